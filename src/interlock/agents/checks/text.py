"""What counts as a word, a sentence, a content word and a number, in any script."""

import unicodedata
from dataclasses import dataclass
from decimal import Decimal

import regex

__all__ = [
    "Number",
    "WordCount",
    "content_words",
    "count_words",
    "folded",
    "forms_of",
    "numbers_in",
    "sentences_in",
    "words_in",
]

# Scripts in which each character counts as a word, as word processors count them.
_CHARACTER_WORDS = r"\p{Han}\p{Hiragana}\p{Katakana}\u30FC"
# Scripts that put no spaces between words: only a dictionary could tell the words of a run.
_UNSPACED = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_SPACED = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--[{_CHARACTER_WORDS}{_UNSPACED}]]"

_WORD = regex.compile(
    rf"(?V1)(?P<character>[{_CHARACTER_WORDS}])"
    rf"|(?P<run>[{_UNSPACED}]+)"
    # Apostrophes and hyphens join; points, commas and colons do so only between digits.
    rf"|(?P<word>{_SPACED}+(?:(?:['\u2019\u02BC\u2010\u2011-]|(?<=\p{{N}})[.,:](?=\p{{N}})){_SPACED}+)*)"
)
_TERM = regex.compile(rf"(?V1)(?P<run>[{_CHARACTER_WORDS}{_UNSPACED}]+)|(?P<word>[{_SPACED}--_]+)")
_GRAPHEME = regex.compile(r"\X")
_IGNORABLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")
_SENTENCE_END = regex.compile(r"(?<=[.!?…][\"'\u201D\u2019)\]]*)\s+|(?<=[\u3002\uFF01\uFF1F])|[\r\n]+")

_STOP_TEXT = (
    "a about after all also am an and any are aren as at be because been before being between both but by can cannot "
    "cent could couldn did didn do does doesn doing don down each either else even ever every few for from further "
    "get gets had hadn has hasn have haven having he her here hers him his how however if in into is isn it its "
    "itself just let ll may me might mine more most much must my neither no nor not now of off on once one only or "
    "other our ours out over own per percent re same shall she should shouldn since so some such than that the their "
    "theirs them then there these they this those through thus to too under until up upon us ve very was wasn we were "
    "weren what when where whether which while who whom whose why will with within without won would wouldn yes yet "
    "you your yours"
)
_STOP_WORDS = frozenset(_STOP_TEXT.split())
_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_VALUE_OF = {word: str(value) for value, word in enumerate(_NUMBER_WORDS)}


@dataclass(frozen=True, slots=True)
class WordCount:
    """How many words a text has: exactly so many where ``least`` and ``most`` are equal."""

    least: int
    """Each run of a script without spaces (Thai, Lao, Khmer, Burmese) counted as one word."""
    most: int
    """Each written character of such a run counted as a word."""


def _plain(text: str) -> str:
    """Return ``text`` composed (NFC), without invisible characters; a zero-width space separates words."""
    return _IGNORABLE.sub("", unicodedata.normalize("NFC", text).replace("\u200b", " "))


def folded(text: str) -> str:
    """Return ``text`` as a search that ignores case sees it: case-folded, composed, visible, spaces as one."""
    visible = _IGNORABLE.sub("", unicodedata.normalize("NFC", text))
    return " ".join(unicodedata.normalize("NFC", visible.casefold()).split())


def words_in(text: str) -> list[str]:
    """Return the words of ``text`` in order.

    A word is a run of letters, marks, digits and ``_``; apostrophes and hyphens inside it belong to it, so do points,
    commas and colons between digits. Han and kana characters are a word each; a run of Thai, Lao, Khmer or Burmese is
    one, since only a dictionary could tell more.
    """
    return [match[0] for match in _WORD.finditer(_plain(text))]


def count_words(text: str) -> WordCount:
    """Return how many words ``text`` has, and where that cannot be told, at least and at most how many."""
    least = most = 0
    for match in _WORD.finditer(_plain(text)):
        least += 1
        most += len(_GRAPHEME.findall(match[0])) if match["run"] else 1
    return WordCount(least, most)


def sentences_in(text: str) -> list[str]:
    """Return the sentences of ``text``: what ends with a full stop, question or exclamation mark, or with its line."""
    return [part for part in map(str.strip, _SENTENCE_END.split(_plain(text))) if part]


def content_words(text: str) -> set[str]:
    """Return the distinct words of ``text`` that carry meaning, case-folded.

    Compounds are taken apart; numbers, single letters and English function words are left out. A script without
    spaces gives its pairs of neighbouring characters, and a single character where it stands alone.
    """
    found: set[str] = set()
    for match in _TERM.finditer(_plain(text).casefold()):
        found.update(_pairs(match["run"]) if match["run"] else _content(match["word"]))
    return found


def _pairs(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run) - 1)] or [run]


def _content(word: str) -> list[str]:
    return [] if len(word) == 1 or word.isnumeric() or word in _STOP_WORDS else [word]


def forms_of(word: str) -> set[str]:
    """Return ``word`` and what it may be the plural of; words with a form in common count as the same word."""
    forms = {word}
    if len(word) > 3 and word.endswith("s"):  # noqa: PLR2004 -- "gas" and "bus" are no plurals
        forms.add(word[:-1])
        if word.endswith("es"):
            forms.add(word[:-2])
        if word.endswith("ies"):
            forms.add(word[:-3] + "y")
    return forms


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a text."""

    value: str
    """Equal numbers have equal values: ``1,000`` and ``1000``, ``3.50`` and ``3.5``."""
    percent: bool
    written: str
    """As it stands in the text."""


# Groups of three digits (1,000), or digits with a decimal mark or several points (3.5, 0.16.3).
_GROUPED = (
    r"\p{Nd}{1,3}(?P<group>[,_'\u2019\u00A0\u2009\u202F])\p{Nd}{3}(?:(?P=group)\p{Nd}{3})*(?!\p{Nd})(?:\.\p{Nd}+)?"
)
_DIGITS = rf"(?:{_GROUPED}|\p{{Nd}}+(?:[.,\u066B]\p{{Nd}}+)*)"
_PERCENT = r"\s{0,2}(?:[%\uFF05\u066A]|per\s?cent\b)"
_NUMBER = regex.compile(
    rf"(?i)(?P<number>{_DIGITS})"
    # The first number of a range such as "10-20 %" is a percentage too.
    rf"(?P<percent>{_PERCENT}|(?=\s{{0,2}}(?:[-\u2013\u2014]|to)\s{{0,2}}\p{{Nd}}+(?:[.,]\p{{Nd}}+)?{_PERCENT}))?"
)
_LIST_MARKER = regex.compile(r"(?m)^\s*\p{Nd}{1,3}[.)](?=\s)")


def numbers_in(text: str, *, as_source: bool = False) -> list[Number]:
    """Return the numbers of ``text`` in order, without their signs.

    ``1,000`` is a thousand and ``3,5`` three and a half; several points make a version, compared as it is written.
    The numbers of list items at the start of lines state nothing and are left out. ``as_source`` takes all that may
    count as evidence: those of list items too, and English words from ``zero`` to ``twenty``.
    """
    plain = _plain(text)
    if not as_source:
        return [_number(match) for match in _NUMBER.finditer(_LIST_MARKER.sub(" ", plain))]
    words = (word.casefold() for word in words_in(plain))
    in_words = [Number(_VALUE_OF[word], False, word) for word in words if word in _VALUE_OF]
    return [_number(match) for match in _NUMBER.finditer(plain)] + in_words


def _number(match: "regex.Match[str]") -> Number:
    written = match["number"]
    value = written.replace(match["group"], "") if match["group"] else written.replace("\u066b", ".")
    return Number(_canonical(value.replace(",", ".")), match["percent"] is not None, match[0].strip())


def _canonical(value: str) -> str:
    """Return a decimal in ASCII digits without needless zeros; what has several points stays as it is."""
    if value.count(".") > 1:
        return "".join(str(unicodedata.digit(mark, mark)) for mark in value)
    return format(Decimal(value).normalize(), "f") if len(value) < 28 else value  # noqa: PLR2004 -- Decimal's precision
