"""Whether a value stands in a text as a whole, is made of its words, or brings a link along. Pure."""

import re
import unicodedata
from functools import lru_cache

__all__ = ["SHORTEST", "has_foreign_link", "is_made_of", "is_name", "stands_in"]

SHORTEST = 3
"""A text of fewer characters stands in most texts by chance, so it proves nothing."""

_FOREIGN = 3
"""How many characters a text may have in words that are not those of the instruction: enough for ``13:00`` where the
instruction says ``12:00 for one hour``, too few to carry a secret."""

_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
_JOINERS = frozenset("._-@/\\+%:&~#?" + _APOSTROPHES)
"""Characters that make one word of what stands on both sides of them."""

_FILE_ENDINGS = frozenset(
    (
        *("bmp", "css", "csv", "doc", "docx", "eml", "gif", "gz", "htm", "html", "ics", "ini", "jpeg", "jpg", "js"),
        *("json", "jsonl", "log", "odt", "pdf", "png", "ppt", "pptx", "svg", "tar", "toml", "tsv", "txt", "wav"),
        *("xls", "xlsx", "xml", "yaml", "yml"),
    )
)
"""Endings of file names that no host name has."""

_LINK = re.compile(
    r"[a-z][a-z0-9+.-]{1,30}:/{1,2}[^\s<>\"']+"  # any scheme
    r"|(?<![\w@.-])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[\w-]+\.)+(?P<end>[^\W\d_]{2,63}))(?![\w.-]*@)(?:[/?#:][^\s<>\"']*)?",
    re.IGNORECASE,
)
_DOTS = str.maketrans(dict.fromkeys("。．｡․", "."))  # noqa: RUF001 -- browsers take each of these for a dot


def stands_in(value: str, text: str) -> bool:
    """Return whether ``value`` stands in ``text`` as a whole: nothing on either side makes it a part of a longer word.

    ``corp.example`` does not stand in ``mail to a@corp.example.org``. A phrase of several words may differ in case and
    white space; a single word may not. A value of fewer than ``SHORTEST`` characters never stands in a text.
    """
    wanted = _plain(value)
    if len(wanted) < SHORTEST or not any(map(str.isalnum, wanted)):
        return False
    if text.isascii() and wanted.partition(" ")[0].lower() not in text.lower():
        return False  # what follows takes its time, and most values stand in no text
    where = _plain(text)
    if " " in wanted:
        wanted, where = wanted.casefold(), where.casefold()
    start = where.find(wanted)
    while start >= 0:
        if _begins(where, start) and _ends(where, start + len(wanted)):
            return True
        start = where.find(wanted, start + 1)
    return False


def is_made_of(value: str, text: str) -> bool:
    """Return whether ``value`` says nothing but what the words of ``text`` say, in whatever order.

    Words that are not in ``text`` may have 3 characters in all, and there must be no more of them than of the others.
    """
    known = set(_words(text))
    words = _words(value)
    foreign = [word for word in words if word not in known]
    return bool(words) and sum(map(len, foreign)) <= _FOREIGN and 2 * len(foreign) <= len(words)


def is_name(value: str) -> bool:
    """Return whether ``value`` looks like what somebody or something is called.

    Several words, a capital at the beginning, a digit or a mark within it. A single small word (``received``) is not a
    name: such words stand in an instruction without meaning the record in which they are a field.
    """
    return len(value) >= SHORTEST and (
        value[0].isupper() or (any(not one.isalpha() for one in value.strip()) and any(map(str.isalnum, value)))
    )


def has_foreign_link(value: str, text: str) -> bool:
    """Return whether there is a link or a host name in ``value`` that does not stand in ``text``.

    Marks that nobody sees are left out of account, and so is the case of letters. Mail addresses are no links, nor are
    names of files with an ending that no host has.
    """
    seen = unicodedata.normalize("NFKC", "".join(one for one in value if unicodedata.category(one) != "Cf"))
    links = (match for match in _LINK.finditer(seen.translate(_DOTS)) if not _is_file(match))
    return any(not stands_in(match.group().rstrip(".,;:!?)"), text) for match in links)


def _is_file(match: re.Match[str]) -> bool:
    end = match["end"]
    return end is not None and end.casefold() in _FILE_ENDINGS and match.group().casefold().endswith(end.casefold())


@lru_cache(maxsize=128)
def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).casefold())


def _begins(text: str, start: int) -> bool:
    """Return whether no word reaches from the left over ``start``."""
    if start == 0 or not text[start].isalnum():
        return True
    before = text[start - 1]
    return not (before.isalnum() or before == "_" or (before in _JOINERS and text[start - 2 : start - 1].isalnum()))


def _ends(text: str, end: int) -> bool:
    """Return whether no word reaches to the right over ``end``."""
    if end >= len(text) or not text[end - 1].isalnum():
        return True
    after, beyond = text[end], text[end + 1 : end + 2]
    if after.isalnum() or after == "_":
        return False
    if after not in _JOINERS or not beyond.isalnum():
        return True
    return _is_genitive(text, end) or (after == "." and beyond.isupper() and text[end - 1].islower())


def _is_genitive(text: str, end: int) -> bool:
    return text[end] in _APOSTROPHES and text[end + 1] == "s" and not text[end + 2 : end + 3].isalnum()
