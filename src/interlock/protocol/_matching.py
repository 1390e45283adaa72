"""Whether an argument of a call fits the patterns of a rule."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interlock.protocol._patterns import PatternInvalid, command_fits, is_any, path_fits, text_fits
from interlock.protocol._patterns import parse_url_pattern as url_pattern
from interlock.protocol.base import Json, canonical_json
from interlock.protocol.tools import ArgumentKind, ToolSpec

if TYPE_CHECKING:
    from interlock.protocol.permissions import Call


@dataclass(frozen=True)
class Place:
    """Where a rule stands."""

    base: str
    links: Mapping[str, str]
    certain: bool
    """Whether it names one tool: then a pattern of it that cannot be read must hold back."""


def argument_fits(name: str, like: Sequence[str], call: "Call", named: set[str], place: Place, *, loose: bool) -> bool:
    """Return whether what a rule says of one argument holds for a call.

    ``named`` are the arguments that the rule names; ``*`` is about all others. A rule that holds back (``loose``) is
    met by one of these, a rule that allows by all of them.
    """
    if name == "" and call.spec.primary is not None:
        name = call.spec.primary
    if name == "":
        return loose and any(_fits(one, like, call, place, loose=True) for one in call.arguments)
    if name == "@destinations":
        goes = [one for one in call.spec.destinations or call.arguments if one in call.arguments]
        fits = (_fits(one, like, call, place, loose=loose) for one in goes)
        known = bool(goes) or not call.spec.destinations  # one that is left to the tool is none that fits
        return any(fits) if loose else known and all(fits)
    if name != "*":
        return _fits(name, like, call, place, loose=loose)
    others = [one for one in call.arguments if one not in named]
    fits = (_fits(one, like, call, place, loose=loose) for one in others)
    return any(fits) if loose else all(fits)


def _fits(name: str, like: Sequence[str], call: "Call", place: Place, *, loose: bool) -> bool:
    if name not in properties_of(call.spec) and name not in call.arguments:
        return False  # the tool has no such argument, so the rule is not about it
    if any(is_any(pattern) for pattern in like):
        return True
    if name not in call.arguments:
        return loose  # the tool will take a value that nobody here can see
    kind = call.spec.kinds.get(name, "text")
    if kind == "command":
        commands = call.commands.get(name, ())
        checks = (_one(like, kind, (words,), place, loose=loose) for words in commands)
        return (not commands or any(checks)) if loose else (bool(commands) and all(checks))
    atoms = list(_atoms(call.arguments[name], loose=loose))
    fitting = (_one(like, kind, atom, place, loose=loose) for atom in atoms)
    return any(fitting) if loose else (bool(atoms) and all(fitting))


def _one(like: Sequence[str], kind: ArgumentKind, atom: object, place: Place, *, loose: bool) -> bool:
    return any(_pattern_fits(pattern, kind, atom, place, loose=loose) for pattern in like)


def _pattern_fits(pattern: str, kind: ArgumentKind, atom: object, place: Place, *, loose: bool) -> bool:
    try:
        match kind, atom:
            case "command", tuple():
                return command_fits(pattern, atom, loose=loose)
            case "path", str():
                return path_fits(pattern, atom, place.base, place.links, loose=loose)
            case "url", str():
                return url_pattern(pattern).matches(atom, loose=loose)
            case "text", str():
                return text_fits(pattern, atom, loose=loose)
            case _:
                return loose  # no value of its kind: nothing that a rule could vouch for
    except PatternInvalid:
        return loose and place.certain


def _atoms(value: Json, *, loose: bool) -> Iterator[object]:
    """Yield the texts that a value stands for: itself, or the elements of a list; to hold back, all that is inside."""
    match value:
        case str():
            yield value
        case list():
            for one in value:
                yield from _atoms(one, loose=loose) if loose or isinstance(one, str) else [_as_text(one)]
        case dict() if loose:
            yield _as_text(value)
            for key, one in value.items():
                yield key
                yield from _atoms(one, loose=loose)
        case _:
            yield _as_text(value)


def _as_text(value: Json) -> str | None:
    """Return what patterns are compared with; None for what is no JSON."""
    try:
        return canonical_json(value)
    except (ValueError, TypeError, RecursionError):
        return None


def properties_of(spec: ToolSpec) -> Mapping[str, Json]:
    """Return the arguments that a tool has, by name, each with its JSON Schema."""
    properties = spec.parameters.get("properties")
    return properties if isinstance(properties, dict) else {}
