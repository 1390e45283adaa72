"""Calls in one form, before rules look at them: what rules judge is what the tool gets, so nobody reads it twice.

::

    CallNotNormal                 the call has no single meaning, so it is not made
    |-- ArgumentsInvalid          they do not fit the tool's parameters, or the tool has no such argument
    |-- PathUnclear               a path that cannot be resolved, or whose name can be read in two ways
    |-- UrlUnclear                a URL that two programs could read in two ways
    `-- CommandUnclear            a command line that is not certainly understood
"""

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from interlock.agents.checks.schema import check_schema
from interlock.agents.tools.normal_command import CommandNotUnderstood, normal_command
from interlock.protocol.base import Json
from interlock.protocol.permissions import Call, Layer, Source
from interlock.protocol.rule_checks import fixed_folders
from interlock.protocol.tools import ToolSpec
from interlock.protocol.urls import UrlNotNormal, normal_url

__all__ = [
    "ArgumentsInvalid",
    "CallNotNormal",
    "CommandUnclear",
    "PathUnclear",
    "UrlUnclear",
    "normal_path",
    "normal_value",
    "normalise",
    "resolved",
]

_MAX_PATH = 4096
_MAX_NAME = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class CallNotNormal(ValueError):
    """A call that cannot be brought into one form. ``reason`` says what is wrong and what would be right."""

    def __init__(self, tool: str, argument: str, reason: str) -> None:
        self.tool = tool
        self.argument = argument
        """Empty where it is about all of them."""
        self.reason = reason
        super().__init__(f"{tool}: {argument}: {reason}" if argument else f"{tool}: {reason}")


class ArgumentsInvalid(CallNotNormal):
    """The arguments do not fit the tool's parameters."""


class PathUnclear(CallNotNormal):
    """A path that cannot be resolved, or whose name can be read in two ways."""


class UrlUnclear(CallNotNormal):
    """A URL that is none, or that two programs could read in two ways."""


class CommandUnclear(CallNotNormal):
    """A command line that is not certainly understood."""


def normalise(
    spec: ToolSpec,
    arguments: Mapping[str, Json],
    base: Path,
    *,
    tainted: bool = False,
    sources: Mapping[str, Source] | None = None,
) -> Call:
    """Return a call in its one form; its arguments are what the tool must be given.

    Arguments that are left out get the defaults of the tool's parameters. Paths are looked up on this machine.

    :param base: the absolute folder that relative paths count from
    :raises CallNotNormal: one of the family above
    """
    given = _with_defaults(spec, arguments)
    _check(spec, given)
    commands: dict[str, tuple[tuple[str, ...], ...]] = {}
    normal = {name: _one_form(spec, name, value, base, commands) for name, value in given.items()}
    own: dict[str, Source] = dict.fromkeys((name for name in given if name not in arguments), "pinned")
    return Call(spec, normal, commands, {**own, **(sources or {})}, tainted)


def normal_value(spec: ToolSpec, name: str, value: Json, base: Path) -> Json:
    """Return the one form of a value of the argument ``name``.

    :raises CallNotNormal: it has none
    """
    return _one_form(spec, name, value, base, {})


def _one_form(
    spec: ToolSpec, name: str, value: Json, base: Path, commands: dict[str, tuple[tuple[str, ...], ...]]
) -> Json:
    match spec.kinds.get(name, "text"):
        case "path":
            return _each(value, partial(_path, spec, name, base))
        case "url":
            return _each(value, partial(_url, spec, name))
        case "command":
            found: list[tuple[str, ...]] = []
            line = _each(value, partial(_command, spec, name, found))
            commands[name] = tuple(found)
            return line
        case _:
            return value


def _with_defaults(spec: ToolSpec, arguments: Mapping[str, Json]) -> dict[str, Json]:
    properties = _properties(spec)
    unknown = [name for name in arguments if name not in properties]
    if unknown:
        known = ", ".join(properties) or "none"
        raise ArgumentsInvalid(spec.name, "", f"there is no argument {unknown[0]!r}; it has {known}")
    defaults = {
        name: schema["default"]
        for name, schema in properties.items()
        if isinstance(schema, dict) and "default" in schema
    }
    return {**defaults, **arguments}


def _properties(spec: ToolSpec) -> dict[str, Json]:
    properties = spec.parameters.get("properties")
    return properties if isinstance(properties, dict) else {}


def _check(spec: ToolSpec, arguments: dict[str, Json]) -> None:
    finding = check_schema(spec.parameters, arguments)
    if finding.holds is not True:
        raise ArgumentsInvalid(spec.name, "", finding.evidence)


def _each(value: Json, normal: Callable[[str], str]) -> Json:
    """Return ``value`` with its text, or the texts in its list, in their one form; anything else is no such thing."""
    match value:
        case str():
            return normal(value)
        case list():
            return [normal(one) if isinstance(one, str) else one for one in value]
        case _:
            return value


def _path(spec: ToolSpec, name: str, base: Path, text: str) -> str:
    try:
        return normal_path(text, base)
    except ValueError as error:
        raise PathUnclear(spec.name, name, str(error)) from None


def _url(spec: ToolSpec, name: str, text: str) -> str:
    try:
        return str(normal_url(text))
    except UrlNotNormal as error:
        raise UrlUnclear(spec.name, name, str(error)) from None


def _command(spec: ToolSpec, name: str, found: list[tuple[str, ...]], text: str) -> str:
    try:
        line, commands = normal_command(text)
    except CommandNotUnderstood as error:
        raise CommandUnclear(spec.name, name, str(error)) from None
    found += commands
    return line


def normal_path(text: str, base: Path) -> str:
    """Return the absolute path that ``text`` leads to from ``base``, every link on the way followed.

    What is not there yet is resolved as far as it is there. ``~`` and ``%`` are plain characters.

    :raises ValueError: it is no path, leads in a circle, or its name can be read in two ways
    """
    _check_name(text)
    path = os.path.realpath(os.path.join(base, text))  # noqa: PTH118 -- a Path would drop what realpath must see
    path = "/" + path.strip("/")
    _check_name(path)
    if any(len(os.fsencode(name)) > _MAX_NAME for name in path.split("/")):
        raise ValueError(f"a name in it is longer than {_MAX_NAME} bytes")
    _check_links(path)
    return path


def _check_name(text: str) -> None:
    if not text or len(text) > _MAX_PATH:
        raise ValueError(f"a path has 1 to {_MAX_PATH} characters")
    if _CONTROL.search(text) or any(unicodedata.category(one) in {"Cf", "Zl", "Zp"} for one in text):
        raise ValueError(f"the path {text[:200]!r} holds characters that cannot be seen")
    if not unicodedata.is_normalized("NFC", text):
        raise ValueError(f"the path {text[:200]!r} is not in the Unicode form NFC, so it looks like another one")


def _check_links(path: str) -> None:
    """Refuse a path that is not resolved to its end: a circle of links, or a folder that may not be looked into."""
    for place in (path, *map(str, Path(path).parents)):
        try:
            if stat.S_ISLNK(os.lstat(place).st_mode):
                raise ValueError(f"the links on the way to {path[:200]!r} lead in a circle")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ValueError(f"{place[:200]!r} cannot be looked up: {error.strerror}") from None


def resolved(layer: Layer) -> Layer:
    """Return a layer with its folder resolved through links, and with where the fixed parts of its patterns lead to."""
    rules = layer.permissions
    base = os.path.realpath(layer.base)
    folders = {folder for rule in (*rules.allow, *rules.ask, *rules.deny) for folder in fixed_folders(rule, base)}
    links = {folder: real for folder in folders if (real := os.path.realpath(folder)) != folder}
    return Layer(layer.name, rules, base, links)
