"""The patterns of rules, one kind for each kind of argument: how a text fits a pattern.

``loose`` matching is for deny and ask: it takes what comes close (letters that differ in case or form, parts that are
known only later), for a rule that holds back must not be slipped past. ``strict`` matching is for allow.
"""

import posixpath
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from interlock.protocol._globs import HOLE, Glob, parse_glob
from interlock.protocol.urls import UrlNotNormal, normal_host, normal_url

MANY = HOLE * 2
"""Stands among the words of a command for any number of words that are known only later."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class PatternInvalid(ValueError):
    """A pattern that its kind cannot read. The message is what is wrong and what would be right."""


def fold(text: str) -> str:
    """Return ``text`` without what some systems, and all eyes, make no difference of: case, composition, no width."""
    if text.isascii():
        return text.casefold()
    text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def is_any(pattern: str) -> bool:
    """Return whether a pattern matches whatever there is, or nothing at all."""
    return bool(pattern) and not pattern.strip("*")


def text_fits(pattern: str, text: str, *, loose: bool) -> bool:
    """Return whether a text fits; ``*`` is any characters."""
    glob = parse_glob(pattern)
    return glob.matches(text) or (loose and glob.folded().matches(fold(text)))


# --- paths


@dataclass(frozen=True)
class PathPattern:
    """The segments of an absolute path; None crosses folders."""

    segments: tuple[Glob | None, ...]

    def fixed(self) -> str:
        """Return the folder, or file, that stands before the first wildcard."""
        out: list[str] = []
        for one in self.segments:
            if one is None or not one.is_literal:
                break
            out.append(one.pieces[0])
        return "/" + "/".join(out)

    def matches(self, segments: Sequence[str]) -> bool:
        """Return whether the segments of a path fit; what ends in ``/**`` matches the folder itself too."""
        places = {0}
        for one in self.segments:
            if one is None:
                places = set(range(min(places), len(segments) + 1))
            else:
                places = {at + 1 for at in places if at < len(segments) and one.matches(segments[at])}
            if not places:
                return False
        return len(segments) in places


def segments_of(path: str) -> list[str]:
    """Return the names that an absolute path is made of."""
    return [name for name in path.split("/") if name]


@lru_cache(maxsize=4096)
def parse_path_pattern(pattern: str, base: str) -> PathPattern:
    """Return a pattern of paths; a relative one counts from ``base``.

    :raises PatternInvalid: it climbs out of a wildcard, or ``**`` is only a part of a name.
    """
    absolute = pattern.startswith("/")
    segments: list[Glob | None] = [] if absolute else [Glob((name,)) for name in segments_of(base)]
    for name in segments_of(pattern):
        if name == "..":
            if segments and (segments[-1] is None or not segments[-1].is_literal):
                raise PatternInvalid(f"{pattern!r} climbs out of a wildcard: leave '..' out")
            segments = segments[:-1]
        elif name == "**":
            segments.append(None)
        elif "**" in name.replace("\\*", ""):
            raise PatternInvalid(f"in {pattern!r} '**' must be a whole name between slashes, as in ./docs/**")
        elif name != ".":
            segments.append(parse_glob(name))
    return PathPattern(tuple(segments))


def path_fits(pattern: str, path: str, base: str, links: Mapping[str, str], *, loose: bool) -> bool:
    """Return whether an absolute path fits; ``links`` says where the fixed parts of patterns lead to.

    :raises PatternInvalid: the pattern cannot be read.
    """
    parsed = parse_path_pattern(pattern, base)
    if not path.startswith("/"):
        return loose
    if parsed.matches(segments_of(path)):
        return True
    if not loose:
        return False
    forms = [parsed]
    fixed = parsed.fixed()
    if fixed in links:
        rest = parsed.segments[len(segments_of(fixed)) :]
        forms.append(PathPattern((*(Glob((name,)) for name in segments_of(links[fixed])), *rest)))
    folded = segments_of(fold(path))
    return any(_folded(form).matches(folded) for form in forms)


def _folded(pattern: PathPattern) -> PathPattern:
    return PathPattern(tuple(one and one.folded() for one in pattern.segments))


def path_is_below(path: str, folder: str) -> bool:
    """Return whether an absolute path is ``folder`` or stands in it."""
    return posixpath.commonpath([path, folder]) == folder


# --- URLs

_URL_PATTERN = re.compile(
    r"(?P<scheme>https?|\*)://(?P<host>[^/:\[\]?#]+|\[[^\]]*\])(:(?P<port>[0-9]{1,5}|\*))?(?P<path>/.*)?"
)
_PARTS = re.compile(r"/\*\*$|\*\*|\\[*\\]|\*|(?:(?!/\*\*$)[^*\\])+|\\")
_WILD = {"/**": "below", "**": "any", "*": "name"}


@dataclass(frozen=True)
class RestPattern:
    """Path and query together: fixed texts, and wildcards by their names in ``_WILD``."""

    parts: tuple[tuple[str, str], ...]
    """Pairs of a wildcard, or nothing, and a fixed text."""

    def matches(self, text: str) -> bool:
        """Return whether the whole text fits; in time linear in it."""
        places = {0}
        for wild, fixed in self.parts:
            places = _step(wild, fixed, text, places)
            if not places:
                return False
        return len(text) in places

    def folded(self) -> "RestPattern":
        """Return the same pattern for folded texts."""
        return RestPattern(tuple((wild, fold(fixed)) for wild, fixed in self.parts))


def _step(wild: str, fixed: str, text: str, places: set[int]) -> set[int]:
    """Return where one can be in ``text`` after one more part of a pattern."""
    match wild:
        case "":
            return {at + len(fixed) for at in places if text.startswith(fixed, at)}
        case "any":
            return set(range(min(places), len(text) + 1))
        case "below":
            return {len(text)} if any(text[at : at + 1] in {"", "/", "?"} for at in places) else set()
        case _:
            return _within_a_name(text, places)


def _within_a_name(text: str, places: set[int]) -> set[int]:
    reached: set[int] = set()
    for start in sorted(places):
        at = start
        while at not in reached:
            reached.add(at)
            if at == len(text) or text[at] in "/?":
                break
            at += 1
    return reached


@dataclass(frozen=True)
class UrlPattern:
    """What scheme, host, port and the rest of a URL must be."""

    schemes: tuple[str, ...]
    host: str
    """A host; ``*`` for any; ``*.NAME`` for all that are below a name, but not the name itself."""
    port: int | None
    """None: any; 0: that of the scheme."""
    rest: RestPattern

    def matches(self, url: str, *, loose: bool) -> bool:
        """Return whether a URL in its one form fits."""
        try:
            parts = normal_url(url)
        except UrlNotNormal:
            return loose
        default = 443 if parts.scheme == "https" else 80
        rest = parts.path + parts.query
        return (
            parts.scheme in self.schemes
            and self._host_matches(parts.host)
            and (self.port is None or parts.port == (self.port or default))
            and (self.rest.matches(rest) or (loose and self.rest.folded().matches(fold(rest))))
        )

    def _host_matches(self, host: str) -> bool:
        if self.host == "*":
            return True
        return host.endswith(self.host[1:]) if self.host.startswith("*.") else host == self.host


@lru_cache(maxsize=4096)
def parse_url_pattern(pattern: str) -> UrlPattern:
    """Return a pattern of URLs.

    :raises PatternInvalid: it lacks a scheme, a host or a path, or has a wildcard where none may be.
    """
    found = _URL_PATTERN.fullmatch(pattern)
    if found is None:
        raise PatternInvalid(f"{pattern!r} is no pattern of URLs: expected something like https://*.example.org/**")
    if found["path"] is None:
        raise PatternInvalid(f"{pattern!r} does not say which pages: write {pattern}/** for all of them")
    schemes = ("http", "https") if found["scheme"] == "*" else (found["scheme"],)
    port = None if found["port"] == "*" else int(found["port"] or 0)
    return UrlPattern(schemes, _host_pattern(pattern, found["host"]), port, _rest_pattern(pattern, found["path"]))


def _host_pattern(pattern: str, host: str) -> str:
    if host == "*":
        return host
    stars = "*." if host.startswith("*.") else ""
    try:
        return stars + normal_host(host.removeprefix(stars))
    except UrlNotNormal:
        raise PatternInvalid(f"in {pattern!r} the host must be a name, *.NAME or *, got {host!r}") from None


def _rest_pattern(pattern: str, path: str) -> RestPattern:
    try:
        return RestPattern(tuple(_part(one) for one in _PARTS.findall(path)))
    except UrlNotNormal as error:
        raise PatternInvalid(f"in {pattern!r} {error.reason}") from None


def _part(text: str) -> tuple[str, str]:
    if text in _WILD:
        return _WILD[text], ""
    return "", {"\\*": "*", "\\": "%5C", "\\\\": "%5C"}.get(text) or _plain(text)


def _plain(text: str) -> str:
    """Return a fixed part of a path, or of a query, in the form that URLs have."""
    path, mark, query = text.partition("?")
    lead = normal_url(f"http://h/{path}").path[1:]
    return lead + (mark + normal_url(f"http://h/?{query}").query[1:] if mark else "")


# --- commands


@dataclass(frozen=True)
class CommandPattern:
    """The words of a command."""

    words: tuple[Glob, ...]
    more: bool
    """Whether any words may follow."""

    def matches(self, words: Sequence[str]) -> bool:
        """Return whether all that is known of a command fits, and what is not known does not matter."""
        known = words[: len(self.words)]
        if MANY in known or len(known) < len(self.words) or (len(words) > len(self.words) and not self.more):
            return False
        return all(glob.matches(word) for glob, word in zip(self.words, known, strict=True))

    def may_match(self, words: Sequence[str]) -> bool:
        """Return whether a command could fit, whatever becomes of what is not known yet."""
        for index, word in enumerate(words):
            if word == MANY:
                return True
            if index >= len(self.words):
                return self.more
            if not (self.words[index].may_match(word) or self.words[index].folded().may_match(fold(word))):
                return False
        return len(words) == len(self.words)


@lru_cache(maxsize=4096)
def parse_command_pattern(pattern: str) -> CommandPattern:
    """Return a pattern of commands.

    :raises PatternInvalid: it has no words.
    """
    words = pattern.split()
    more = bool(words) and is_any(words[-1])
    if not words:
        raise PatternInvalid("a pattern of commands has at least one word, as in 'git log *'")
    return CommandPattern(tuple(parse_glob(word) for word in (words[:-1] if more else words)), more)


def command_fits(pattern: str, commands: Sequence[Sequence[str]], *, loose: bool) -> bool:
    """Return whether commands fit: all of them, or, where ``loose``, any that could.

    :raises PatternInvalid: the pattern cannot be read.
    """
    parsed = parse_command_pattern(pattern)
    if not loose:
        return bool(commands) and all(parsed.matches(words) for words in commands)
    return not commands or any(parsed.may_match(form) for words in commands for form in _forms(words))


def _forms(words: Sequence[str]) -> list[Sequence[str]]:
    """Return a command as it stands and by its bare name: ``/bin/rm`` is ``rm`` too."""
    bare = posixpath.basename(words[0]) if words else ""
    return [words, [bare, *words[1:]]] if bare and bare != words[0] else [words]


def check_pattern(pattern: str) -> str:
    """Return what is wrong with a pattern of any kind; empty if nothing is."""
    if not pattern:
        return "a pattern is never empty: leave it out, or write ** for anything"
    return "a pattern holds no control characters" if _CONTROL.search(pattern) else ""
