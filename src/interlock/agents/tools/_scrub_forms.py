r"""Every form in which a secret can stand in a text, as one regular expression.

A secret reaches texts through JSON (``\u00e9``, ``\"``, also JSON inside JSON), URLs (``%2F``, ``+``), HTML
(``&amp;``), ``repr``, hexadecimal and base64. The last depends on where in the encoded bytes the secret begins: there
are three ways.
"""

import base64
import html.entities
import re
from collections.abc import Iterable

_LATIN_1, _PLANE_0 = 0xFF, 0xFFFF  # the last characters that \x and \u can write
_SLASHES = r"\\{1,16}"  # each round of escaping doubles them
_NAMED = {code: name for name, code in html.entities.name2codepoint.items()}
_CONTROL = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}


def forms_of(value: str) -> str:
    """Return the pattern of all forms of ``value``, without groups."""
    raw = value.encode("utf-8", "surrogatepass")
    return "|".join([_escaped(value), *_base64_forms(raw), *{_any_case(raw.hex())}])


def _escaped(value: str) -> str:
    return "".join(f"(?:{'|'.join(_character(character))})" for character in value)


def _character(character: str) -> Iterable[str]:
    """Yield the forms of one character, so that a text that escapes only some of them is found too."""
    if character == "\\":
        yield _SLASHES
    elif character in "\"'/":
        yield rf"\\{{0,16}}{character}"
    else:
        yield re.escape(character)
    yield from _in_a_url(character)
    yield from _in_a_literal(character)
    yield from _in_markup(character)


def _in_a_url(character: str) -> Iterable[str]:
    if character == " ":
        yield r"\+"
    raw = character.encode("utf-8", "surrogatepass")
    yield "".join(f"%(?:25){{0,3}}{_any_case(f'{byte:02x}')}" for byte in raw)


def _in_a_literal(character: str) -> Iterable[str]:
    if character in _CONTROL:
        yield _SLASHES + _CONTROL[character]
    code = ord(character)
    if code <= _LATIN_1:
        yield f"{_SLASHES}x{_any_case(f'{code:02x}')}"
    units = character.encode("utf-16-be", "surrogatepass").hex()
    yield "".join(f"{_SLASHES}u{_any_case(units[at : at + 4])}" for at in range(0, len(units), 4))
    if code > _PLANE_0:
        yield f"{_SLASHES}U{_any_case(f'{code:08x}')}"


def _in_markup(character: str) -> Iterable[str]:
    code = ord(character)
    yield f"&(?:amp;)?#0{{0,6}}{code};"
    yield f"&(?:amp;)?#[xX]0{{0,6}}{_any_case(f'{code:x}')};"
    if code in _NAMED:
        yield f"&(?:amp;)?{_NAMED[code]};"


def _base64_forms(raw: bytes) -> set[str]:
    """Return what of the encoded bytes is the same whatever stands before and after them, for each alignment."""
    encoded = ((before, base64.b64encode(bytes(before) + raw).decode().rstrip("=")) for before in range(3))
    return {
        "".join(map(_base64_character, text[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]))
        for before, text in encoded
    }


def _base64_character(character: str) -> str:
    match character:
        case "+":
            return "(?:[-+]|%2[bB])"
        case "/":
            return r"(?:_|\\{0,16}/|%2[fF])"
        case _:
            return character


def _any_case(digits: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)
