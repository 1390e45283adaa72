"""YAML 1.2 with a line and a column for every key and value, so that a mistake can be shown where it stands.

A document becomes plain JSON values. What YAML allows and JSON has no word for (keys that are not text, tags, NaN) is
a problem with a position, and so is a key that stands twice. Anchors, aliases and ``<<`` work; how much they can blow a
document up to is bounded.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interlock.protocol.base import Json

__all__ = ["MAX_BYTES", "Document", "Location", "Position", "Problem", "YamlInvalid", "parse_yaml", "read_text"]

MAX_BYTES = 4_194_304
"""The largest file that is read."""

_MAX_VALUES = 200_000
_MAX_DEPTH = 64
_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = {"str", "timestamp", "value", "merge"}

Location = tuple[str | int, ...]
"""Where a value stands in a document: keys and indices from the root."""


@dataclass(frozen=True, order=True)
class Position:
    """A place in a text; lines and columns count from 1."""

    line: int
    column: int


@dataclass(frozen=True, order=True)
class Problem:
    """A mistake in a file. As text: ``FILE:LINE:COLUMN: what is wrong and what would be right``."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class YamlInvalid(ValueError):
    """A text that cannot be read as YAML at all; ``position`` is where that shows."""

    def __init__(self, message: str, position: Position = Position(1, 1)) -> None:
        super().__init__(message)
        self.position = position


@dataclass
class Document:
    """A YAML document: its value, where everything in it stands, and what is wrong with it."""

    value: Json = None
    positions: dict[Location, Position] = field(default_factory=dict)
    keys: dict[Location, Position] = field(default_factory=dict)
    """Where the keys of mappings stand; the location is that of the value."""
    blocks: dict[Location, int] = field(default_factory=dict)
    """For each text written with ``|`` the column of its lines."""
    problems: list[tuple[Position, str]] = field(default_factory=list)
    broken: set[Location] = field(default_factory=set)
    """Where a value could not be read as it stands; a problem says why."""

    def at(self, location: Location) -> Position:
        """Return where the value at ``location`` stands, or else the innermost thing around it."""
        while location not in self.positions and location:
            location = location[:-1]
        return self.positions.get(location, Position(1, 1))

    def at_key(self, location: Location) -> Position:
        """Return where the key of the value at ``location`` stands, or else the value."""
        return self.keys.get(location) or self.at(location)

    def at_line(self, location: Location, line: int) -> Position:
        """Return where the given line, from 1, of the text at ``location`` stands, if that can be told."""
        column = self.blocks.get(location)
        start = self.at(location)
        return start if column is None else Position(start.line + line, column)


def read_text(path: Path) -> str:
    """Return the text of a file.

    :raises YamlInvalid: it is missing, no file, too large, or no UTF-8; the message says what would be right.
    """
    data = _read(path)
    if len(data) > MAX_BYTES:
        raise YamlInvalid(f"this file is too large: at most {MAX_BYTES} bytes are read")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        raise YamlInvalid(
            f"byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8", _end_of(before)
        ) from None


def _read(path: Path) -> bytes:
    """Return what is in a file, a little more than the limit at most."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise YamlInvalid("there is no such file") from None
    except IsADirectoryError:
        raise YamlInvalid("this is a folder; expected a YAML file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise YamlInvalid(f"this file cannot be read: {reason}") from error


def parse_yaml(text: str) -> Document:
    """Return the one document of ``text``.

    :raises YamlInvalid: it is no YAML, or too large or too deep to be looked at.
    """
    node = _compose(text)
    if node is None:
        raise YamlInvalid("this file is empty; expected a mapping (key: value)")
    _check_size(node, {}, 0)
    builder = _Builder(text)
    builder.document.value = builder.build(node, ())
    return builder.document


def _compose(text: str) -> Any:
    from ruamel.yaml import YAML  # noqa: PLC0415  (only where a team file is read)
    from ruamel.yaml.error import MarkedYAMLError, YAMLError  # noqa: PLC0415
    from ruamel.yaml.reader import ReaderError  # noqa: PLC0415

    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False  # the later anchor counts, as YAML says
    try:
        return yaml.compose(text)
    except MarkedYAMLError as error:
        raise YamlInvalid(_plain_words(error), _position(_mark(error))) from error
    except ReaderError as error:
        character = chr(error.character) if isinstance(error.character, int) else str(error.character)
        before = text.partition(character)[0]
        raise YamlInvalid(f"the character {character!r} may not stand in YAML", _end_of(before)) from error
    except RecursionError as error:
        raise YamlInvalid("this file is nested too deeply") from error
    except (YAMLError, ValueError, LookupError, AttributeError, AssertionError, TypeError) as error:
        raise YamlInvalid(f"this is not YAML: {' '.join(str(error).split())}") from error


def _mark(error: Any) -> Any:
    """Return where an error shows: a quote that is never closed, where it opens."""
    opened = error.problem == "found unexpected end of stream" and error.context_mark
    return opened or error.problem_mark or error.context_mark


def _position(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1) if mark is not None else Position(1, 1)


def _end_of(text: str) -> Position:
    lines = text.split("\n")
    return Position(len(lines), len(lines[-1]) + 1)


_WORDS = (
    (r"found character '\\t'", "a tab cannot indent YAML: use spaces"),
    (r"found character '([`@%])'", "text cannot begin with {0} unless it is in quotes"),
    (r"mapping values are not allowed here", "no ':' can stand here: put the text in quotes, or check the indentation"),
    (r"could not find expected ':'", "expected 'key: value'; there is no ':' here"),
    (r"expected <block end>, but found", "this does not fit the indentation of the lines above, or a quote is missing"),
    (r"expected the node content, but found '<stream end>'", "the file ends where a value is expected"),
    (r"found unexpected end of stream", "the quote that is opened here is never closed"),
    (r"expected a single document", "only one YAML document can stand in a file: take the '---' out"),
    (r"found undefined alias '?([^']*)'?", "there is no anchor &{0} before this"),
    (
        r"found unknown escape character '(.)'",
        "\\{0} means nothing in double quotes: write \\\\{0}, or use single quotes",
    ),
)


def _plain_words(error: Any) -> str:
    """Return what a YAML error means for whoever wrote the file."""
    said = f"{error.problem or ''}"
    for text in (said, f"{error.context or ''}"):
        for pattern, words in _WORDS:
            if match := re.search(pattern, text):
                return words.format(*match.groups())
    return f"this is not YAML: {said or error.context or 'it cannot be read'}"


def _check_size(node: Any, sizes: dict[int, int], depth: int) -> int:
    """Return how many values ``node`` is, its aliases written out; ``sizes`` are those of nodes already looked at.

    :raises YamlInvalid: it is too large or too deep.
    """
    if id(node) in sizes:
        return sizes[id(node)]
    if depth > _MAX_DEPTH:
        message = f"this is nested deeper than {_MAX_DEPTH}, or an alias stands inside itself"
        raise YamlInvalid(message, _position(node.start_mark))
    children = node.value if node.id != "scalar" else ()
    several = (one for child in children for one in (child if isinstance(child, tuple) else (child,)))
    size = 1 + sum(_check_size(child, sizes, depth + 1) for child in several)
    if size > _MAX_VALUES:
        message = f"this holds more than {_MAX_VALUES} values, its aliases written out"
        raise YamlInvalid(message, _position(node.start_mark))
    sizes[id(node)] = size
    return size


class _Builder:
    """Turns YAML nodes into JSON values and notes where they stand."""

    def __init__(self, text: str) -> None:
        self.document = Document()
        self._lines = text.split("\n")

    def build(self, node: Any, location: Location) -> Json:
        """Return the value of a node."""
        self.document.positions[location] = _position(node.start_mark)
        match node.id:
            case "mapping":
                return self._mapping(node, location)
            case "sequence":
                self._known_tag(node, {"seq"})
                return [self.build(child, (*location, index)) for index, child in enumerate(node.value)]
            case _:
                return self._scalar(node, location)

    def _mapping(self, node: Any, location: Location) -> Json:
        self._known_tag(node, {"map"})
        value: dict[str, Json] = {}
        for key, child in self._pairs(node, value, location):
            inner = (*location, key.value)
            self.document.keys[inner] = _position(key.start_mark)
            value[key.value] = self.build(child, inner)
            if value[key.value] is None and child.start_mark.index == child.end_mark.index:
                self.document.positions[inner] = _position(key.start_mark)  # an empty value has no place of its own
        return value

    def _pairs(self, node: Any, taken: dict[str, Json], location: Location) -> Iterator[tuple[Any, Any]]:
        """Yield the key and value nodes of a mapping, those that ``<<`` merges last, each key once."""
        merged: list[Any] = []
        for key, child in node.value:
            if key.id == "scalar" and key.tag == f"{_TAG}merge" and key.style is None:
                merged += child.value if child.id == "sequence" else [child]
            elif key.id != "scalar" or not self._is_text(key):
                self._note(key, _key_problem(key))
                self.document.broken.add(location)
            elif key.value in taken:
                first = next(one for one, _ in node.value if one.id == "scalar" and one.value == key.value)
                self._note(key, f"the key {key.value!r} stands twice, first in line {first.start_mark.line + 1}")
            else:
                yield key, child
        for source in merged:
            yield from self._merge(source, taken)

    def _merge(self, source: Any, taken: dict[str, Json]) -> Iterator[tuple[Any, Any]]:
        if source.id != "mapping":
            self._note(source, "'<<' merges a mapping, or a list of mappings")
            return
        for key, child in source.value:
            if key.id == "scalar" and self._is_text(key) and key.value not in taken and key.tag != f"{_TAG}merge":
                yield key, child

    def _is_text(self, node: Any) -> bool:
        return str(node.tag).removeprefix(_TAG) in _TEXT_TAGS and _encodable(node.value)

    def _scalar(self, node: Any, location: Location) -> Json:
        tag = str(node.tag).removeprefix(_TAG)
        text: str = node.value
        if node.style == "|":
            self.document.blocks[location] = self._block_column(node)
        if not _encodable(text):
            self._note(node, "this text has a surrogate code point in it, which no UTF-8 can hold")
            return ""
        match tag:
            case "null":
                return None
            case "bool":
                return text.lower() in {"true", "yes", "on"}
            case "int" | "float":
                return self._number(node, text, location)
            case _:
                self._known_tag(node, _TEXT_TAGS)
                return text

    def _number(self, node: Any, text: str, location: Location) -> Json:
        number = _number(text.replace("_", ""))
        if number is None or not math.isfinite(number):
            self._note(node, f"{text[:40]} is not a number that JSON can carry: put it in quotes to make it text")
            self.document.broken.add(location)
            return None
        return number

    def _block_column(self, node: Any) -> int:
        """Return the column of the lines of a text that is written with ``|``."""
        lines = self._lines[node.start_mark.line + 1 : node.end_mark.line + 1]
        return next((len(line) - len(line.lstrip(" ")) + 1 for line in lines if line.strip()), 1)

    def _known_tag(self, node: Any, known: Iterable[str]) -> None:
        tag = str(node.tag)
        if tag.removeprefix(_TAG) not in known:
            self._note(node, f"the tag {tag.replace(_TAG, '!!')} has no meaning here: leave it out")

    def _note(self, node: Any, message: str) -> None:
        self.document.problems.append((_position(node.start_mark), message))


def _key_problem(key: Any) -> str:
    if key.id == "mapping" and key.flow_style:
        return 'a template must stand in quotes: "{{ ... }}"'
    if key.id != "scalar":
        return "a key must be text"
    return f"a key must be text: put {key.value or 'it'} in quotes"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(text: str) -> float | None:
    """Return the number that YAML 1.2 reads in ``text``; None where Python has no such number."""
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    base = {"0x": 16, "0o": 8, "0b": 2}.get(digits[:2].lower())
    try:
        if base is not None:
            return sign * int(digits[2:], base)
        return sign * (int(digits) if digits.isdigit() else float(digits.replace(".inf", "inf").replace(".nan", "nan")))
    except (ValueError, OverflowError):
        return None
