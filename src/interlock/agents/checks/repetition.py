"""Whether a text says the same thing twice."""

from collections import Counter
from collections.abc import Iterator

from interlock.agents.checks.finding import Finding, failed, held, quoted
from interlock.agents.checks.text import sentences_in, words_in
from interlock.protocol.criteria import NoRepetitionCheck

__all__ = ["check_no_repetition"]

_Words = tuple[str, ...]


def check_no_repetition(criterion: NoRepetitionCheck, text: str) -> Finding:
    """Return whether no sentence stands twice and no run of ``words`` words occurs more than ``max`` times.

    Sentences are compared by their words, case-folded. One of a single word counts as repeated only right after
    itself, since abbreviations end with a full stop too.
    """
    repeated = _repeated_sentence(text)
    if repeated is not None:
        return failed(f"the sentence {quoted(repeated)} stands twice", "Say it once: drop the repeated sentence.")
    words = tuple(word.casefold() for word in words_in(text))
    run, times = _commonest_run(words, criterion.words)
    if times > criterion.max:
        return failed(
            f"the words {quoted(' '.join(run))} occur {times} times, at most {criterion.max} allowed",
            f"Do not repeat {quoted(' '.join(run))}: say it differently or leave it out.",
        )
    return held(f"no sentence and no run of {criterion.words} words is repeated")


def _repeated_sentence(text: str) -> str | None:
    seen: set[_Words] = set()
    before: _Words = ()
    for sentence in sentences_in(text):
        words = tuple(word.casefold() for word in words_in(sentence))
        if words and (words == before or (len(words) > 1 and words in seen)):
            return sentence
        seen.add(words)
        before = words or before
    return None


def _commonest_run(words: _Words, length: int) -> tuple[_Words, int]:
    """Return the run of ``length`` words that occurs most often, the first of them, and how often."""
    common = Counter(_runs(words, length)).most_common(1)
    return common[0] if common else ((), 0)


def _runs(words: _Words, length: int) -> Iterator[_Words]:
    return (words[at : at + length] for at in range(len(words) - length + 1))
