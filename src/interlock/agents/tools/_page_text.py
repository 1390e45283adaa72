"""From the bytes of a response to text: which kinds of content are text, in which character set, and what HTML says."""

import codecs
import re

from interlock.agents.tools.errors import ToolFailed

_TEXT = re.compile(
    r"text/.+|application/((.+\+)?(json|xml|yaml)|x-yaml|x-ndjson|jsonl|javascript|x-javascript|ecmascript|toml|sql|graphql)"
)
_HTML = {"text/html", "application/xhtml+xml"}
# The codecs of Python that stand for character sets; the others unpack, execute escapes or take quadratic time.
_CHARSETS = re.compile(
    r"ascii|utf-(8|16|32).*|iso8859.*|iso2022.*|cp\d+|windows.*|koi8.*|mac.*|gb.*|big5.*|euc.*|shift_?jis.*|hz|johab|tis.*|ptcp154|kz1048"
)
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_DECLARED = re.compile(
    rb"""<(?:meta[^>]{0,200}?charset|\?xml[^>]{0,200}?encoding)\s*=\s*["']?([\w.:-]{1,40})""", re.IGNORECASE
)
_LOOKED_AT = 2_048


def media_type(header: str) -> str:
    """Return the media type that a Content-Type header names, in lower case; an empty one is plain text.

    :raises ToolFailed: it is nothing that can be read as text
    """
    kind = header.partition(";")[0].strip().lower() or "text/plain"
    if not _TEXT.fullmatch(kind):
        raise ToolFailed(f"what is there is {kind[:100]}, and only text can be fetched")
    return kind


def page_text(body: bytes, kind: str, header: str, *, links: bool) -> str:
    """Return the text of a response: of HTML what a person would read, laid out in lines; of anything else all of it.

    :param header: its Content-Type, which may name a character set
    :param links: whether the targets of links stand behind them
    :raises ToolFailed: it is binary, whatever it says it is
    """
    text = body.decode(_charset(body, header), "replace").removeprefix("\ufeff")
    if "\0" in text[:_LOOKED_AT]:
        raise ToolFailed(f"what is there says that it is {kind}, but it is not text")
    return _laid_out(text, links=links) if kind in _HTML else text


def _charset(body: bytes, header: str) -> str:
    named = re.search(r"""charset\s*=\s*["']?([\w.:-]{1,40})""", header, re.IGNORECASE)
    declared = _DECLARED.search(body[:_LOOKED_AT])
    marked = next((name for mark, name in _MARKS if body.startswith(mark)), None)
    candidates = (marked, named and named[1], declared and declared[1].decode("ascii", "replace"))
    return next((found for name in candidates if name and (found := _known(name))), "utf-8")


def _known(name: str) -> str | None:
    try:
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        return None
    if found in {"ascii", "iso8859-1"}:
        return "cp1252"  # which is what pages mean that say so
    return found if _CHARSETS.fullmatch(found) else None


def _laid_out(page: str, *, links: bool) -> str:
    import inscriptis  # type: ignore[import-untyped]  # noqa: PLC0415 -- it takes 0.4 s, and few processes need it
    from inscriptis.model.config import ParserConfig  # type: ignore[import-untyped]  # noqa: PLC0415 -- as above

    text = str(inscriptis.get_text(page, ParserConfig(display_links=links)))
    lines = (line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
