"""How long a text is: words and characters."""

import unicodedata

from interlock.agents.checks.finding import Finding, counted, failed, held, undecided
from interlock.agents.checks.text import count_words
from interlock.protocol.criteria import CharactersCheck, WordsCheck

__all__ = ["check_characters", "check_words"]


def check_words(criterion: WordsCheck, text: str) -> Finding:
    """Return whether the number of words lies within the bounds."""
    count = count_words(text)
    least, most = (_bounds(number, "word", criterion) for number in (count.least, count.most))
    if count.least == count.most:
        return least
    between = f"between {count.least} and {counted(count.most, 'word')}"
    if least.holds == most.holds:
        return Finding(least.holds, between, least.change or most.change)
    return undecided(
        f"{between}: in a script without spaces between words only a dictionary could tell; check characters instead"
    )


def check_characters(criterion: CharactersCheck, text: str) -> Finding:
    """Return whether the number of code points, composed (NFC), lies within the bounds."""
    return _bounds(len(unicodedata.normalize("NFC", text)), "character", criterion)


def _bounds(count: int, noun: str, bounds: WordsCheck | CharactersCheck) -> Finding:
    if bounds.max is not None and count > bounds.max:
        return failed(
            f"{counted(count, noun)}, at most {bounds.max} allowed",
            f"Use at most {counted(bounds.max, noun)}: drop {count - bounds.max}.",
        )
    if count < bounds.min:
        return failed(
            f"{counted(count, noun)}, at least {bounds.min} needed",
            f"Use at least {counted(bounds.min, noun)}: add {bounds.min - count}.",
        )
    return held(counted(count, noun))
