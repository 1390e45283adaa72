"""URLs in one form: what a client would connect to, spelt in the only way that rules have to know. Pure.

Strict on purpose: where two programs could read a URL in two ways, it is refused.
"""

import ipaddress
import re
from dataclasses import dataclass

import idna

__all__ = ["MAX_URL", "NormalUrl", "UrlNotNormal", "normal_host", "normal_url"]

MAX_URL = 8192
"""The longest URL that is read, in characters."""

_SHAPE = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<where>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(#.*)?"
)
_WHERE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]*\]|[^:\[\]]*)(:(?P<port>[0-9]{1,5})?)?")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_PORTS = {"http": 80, "https": 443}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
_IN_PATH = _PLAIN | frozenset("!$&'()*+,;=:@/")
_IN_QUERY = _IN_PATH | frozenset("?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")


class UrlNotNormal(ValueError):
    """A URL that has no single meaning, or none that a tool may use. ``url`` is the text, ``reason`` what is wrong."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(f"the URL {url[:200]!r} cannot be used: {reason}")


@dataclass(frozen=True)
class NormalUrl:
    """A URL in its one form. As text it is what a client is given."""

    scheme: str
    host: str
    """Lowercase ASCII without a dot at the end; an IPv4 address as four decimal numbers, an IPv6 one in brackets."""
    port: int
    path: str
    """Begins with ``/``; without ``.`` and ``..``; escapes in capitals, and only where they are needed."""
    query: str
    """Empty, or with its ``?``."""

    def __str__(self) -> str:
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.path}{self.query}"


def normal_url(url: str) -> NormalUrl:
    """Return ``url`` in its one form.

    :raises UrlNotNormal: it is no http or https URL, or its parts can be read in several ways.
    """
    parts = _shape(url)
    scheme = parts["scheme"].lower()
    if scheme not in _PORTS:
        raise UrlNotNormal(url, f"only http and https are spoken, not {scheme[:20]}")
    where = _WHERE.fullmatch(parts["where"])
    if "@" in parts["where"] or where is None:
        raise UrlNotNormal(url, "expected HOST or HOST:PORT after the scheme, without a user name")
    port = int(where["port"]) if where["port"] else _PORTS[scheme]
    if not 0 < port < 65536:  # noqa: PLR2004 -- the range of ports
        raise UrlNotNormal(url, f"there is no port {port}")
    path = _escaped(url, parts["path"] or "/", _IN_PATH)
    query = "?" + _escaped(url, parts["query"][1:], _IN_QUERY) if parts["query"] else ""
    return NormalUrl(scheme, _host(url, where["host"]), port, _without_dots(url, path), query)


def normal_host(host: str) -> str:
    """Return a host's one form.

    :raises UrlNotNormal: it is no name and no address.
    """
    return _host(host, host)


def _shape(url: str) -> re.Match[str]:
    if len(url) > MAX_URL:
        raise UrlNotNormal(url, f"it is longer than {MAX_URL} characters")
    if any(character <= " " or character in {"\x7f", "\\"} for character in url):
        raise UrlNotNormal(url, "it holds blanks, control characters or a backslash")
    if any("\ud800" <= character <= "\udfff" for character in url):
        raise UrlNotNormal(url, "it holds half a character")
    parts = _SHAPE.fullmatch(url)
    if parts is None:
        raise UrlNotNormal(url, "expected something like https://example.org/page")
    return parts


def _host(url: str, host: str) -> str:
    if host.startswith("["):
        return _address6(url, host[1:-1])
    name = _unescaped_host(url, host)
    try:
        name = idna.uts46_remap(name, std3_rules=False, transitional=False) if not name.isascii() else name.lower()
        name = name.removesuffix(".")
        name = idna.encode(name).decode("ascii") if not name.isascii() else name
    except (idna.IDNAError, UnicodeError):
        raise UrlNotNormal(url, f"{host[:80]!r} is no host name") from None
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _address4(url, labels)
    if len(name) > 253 or not all(len(one) <= 63 and _LABEL.fullmatch(one) for one in labels):  # noqa: PLR2004 -- DNS
        raise UrlNotNormal(url, f"{host[:80]!r} is no host name")
    return name


def _unescaped_host(url: str, host: str) -> str:
    if "%" not in host:
        return host
    try:
        raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), host.encode())
        name = raw.decode()
    except UnicodeError:
        raise UrlNotNormal(url, "the escapes in its host are no UTF-8") from None
    if any(character <= " " or character in "%/\\?#@:[]\x7f" for character in name):
        raise UrlNotNormal(url, "its host holds an escape that has no place there")
    return name


def _address6(url: str, text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise UrlNotNormal(url, f"[{text[:60]}] is no IPv6 address") from None
    return str(address.ipv4_mapped) if address.ipv4_mapped else f"[{address.compressed}]"


def _address4(url: str, labels: list[str]) -> str:
    """Return the address that one to four numbers, decimal, octal (``0``) or hexadecimal (``0x``), stand for."""
    if len(labels) > 4 or not all(_NUMBER.fullmatch(label) for label in labels):  # noqa: PLR2004 -- bytes of IPv4
        raise UrlNotNormal(url, "a host that ends in a number must be an IPv4 address")
    try:
        *most, last = [_number(label) for label in labels]
    except ValueError:
        raise UrlNotNormal(url, "its host is no IPv4 address") from None
    if any(one > 255 for one in most) or last >= 256 ** (4 - len(most)):  # noqa: PLR2004 -- bytes
        raise UrlNotNormal(url, "its host is no IPv4 address: a number is too large")
    value = last + sum(one << 8 * (3 - index) for index, one in enumerate(most))
    return str(ipaddress.IPv4Address(value))


def _number(label: str) -> int:
    if len(label) > 16:  # noqa: PLR2004 -- longer than any spelling of 32 bits that anybody uses
        raise ValueError(label)
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8 if label.startswith("0") else 10)


def _escaped(url: str, text: str, plain: frozenset[str]) -> str:
    """Return ``text`` with escapes in capitals, and only for what cannot stand by itself."""
    out, at = [], 0
    while at < len(text):
        character = text[at]
        if character != "%":
            out.append(character if character in plain else "".join(f"%{byte:02X}" for byte in character.encode()))
            at += 1
            continue
        escape = _ESCAPE.match(text, at)
        if escape is None:
            raise UrlNotNormal(url, "it holds a % that escapes nothing: write %25")
        out.append(_one_escape(url, chr(int(escape[1], 16)), text[at + 3 : at + 5], plain is _IN_PATH))
        at += 3
    return "".join(out)


def _one_escape(url: str, character: str, after: str, in_path: bool) -> str:
    if (in_path and (character < " " or character == "\x7f")) or character == "\0":
        raise UrlNotNormal(url, "it holds an escaped control character")
    if in_path and character in "/\\":
        raise UrlNotNormal(url, "its path holds an escaped slash, which servers read in different ways")
    if in_path and character == "%" and re.fullmatch("[0-9A-Fa-f]{2}", after):
        raise UrlNotNormal(url, "its path is escaped twice")
    return character if character in _PLAIN else f"%{ord(character):02X}"


def _without_dots(url: str, path: str) -> str:
    out: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment.partition(";")[0] in {".", ".."} and ";" in segment:
            raise UrlNotNormal(url, "its path holds dots with a parameter, which servers read in different ways")
        if segment == "..":
            out = out[:-1]
        elif segment != ".":
            out.append(segment)
    if segments[-1] in {".", ".."}:
        out.append("")
    return "/" + "/".join(out)
