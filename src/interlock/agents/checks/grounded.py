"""Whether what a text says stands in its source: its content words and its numbers."""

from interlock.agents.checks.finding import Finding, counted, failed, held, listed
from interlock.agents.checks.text import Number, content_words, folded, forms_of, numbers_in
from interlock.protocol.criteria import GroundedCheck

__all__ = ["check_grounded"]


def check_grounded(criterion: GroundedCheck, text: str) -> Finding:
    """Return whether enough distinct content words of the text, and all its numbers, stand in the source.

    Words are compared case-folded and with English plurals undone. A text that has neither content words nor numbers
    says nothing that could be grounded: it fails.
    """
    words = content_words(text)
    numbers = numbers_in(text) if criterion.numbers else []
    if not words and not numbers:
        return failed("the text has no content words to look for in the source", "Say what the source says.")
    evidence = numbers_in(criterion.source, as_source=True)
    foreign = _missing_words(words, criterion.source, evidence)
    invented = _missing_numbers(numbers, evidence)
    enough = not words or (len(words) - len(foreign)) / len(words) >= criterion.share
    account = _account(words, foreign, criterion.share)
    if enough and not invented:
        return held(account)
    return failed(
        "; ".join(_evidence(account, foreign, invented)), " ".join(_changes(foreign, invented, enough=enough))
    )


def _missing_words(words: set[str], source: str, evidence: list[Number]) -> list[str]:
    known = {form for word in content_words(source) for form in forms_of(word)}
    values = {number.value for number in evidence}
    return sorted(word for word in words if known.isdisjoint(forms_of(word)) and not _says_number(word, values, source))


def _says_number(word: str, values: set[str], source: str) -> bool:
    """Return whether ``word`` is a number word for a number of the source, or a lone character that stands in it."""
    if len(word) == 1:
        return word in folded(source)
    return any(number.value in values for number in numbers_in(word, as_source=True) if number.written == word)


def _missing_numbers(numbers: list[Number], evidence: list[Number]) -> list[str]:
    values = {number.value for number in evidence}
    percentages = {number.value for number in evidence if number.percent}
    missing = [number.written for number in numbers if number.value not in (percentages if number.percent else values)]
    return list(dict.fromkeys(missing))


def _account(words: set[str], foreign: list[str], share: float) -> str:
    found = len(words) - len(foreign)
    percent = f" ({found / len(words):.0%})" if words else ""
    return f"{found} of {counted(len(words), 'content word')}{percent} found in the source, at least {share:.0%} needed"


def _evidence(account: str, foreign: list[str], invented: list[str]) -> list[str]:
    parts = [account]
    if foreign:
        parts.append(f"words that the source does not have: {listed(foreign)}")
    if invented:
        parts.append(f"numbers that the source does not give: {listed(invented)}")
    return parts


def _changes(foreign: list[str], invented: list[str], *, enough: bool) -> list[str]:
    parts = []
    if not enough:
        parts.append(f"Use the source's own words instead of {listed(foreign)}.")
    if invented:
        parts.append(f"Leave out {listed(invented)}, or give the number that the source gives.")
    return parts
