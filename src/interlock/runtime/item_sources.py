"""Lists that jobs are made of: checked once from their beginning to their end, and read again as they are stored.

A list that is short is returned itself. Of a long one no more than an item is ever held.
"""

import hashlib
import os
import sys
import tempfile
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from interlock.protocol.base import Json
from interlock.protocol.team import InputType
from interlock.runtime.input_types import expected, fits_frozen, shown
from interlock.runtime.itemstore import each
from interlock.runtime.jsonlines import MAX_ITEM, MAX_LISTED, LineInvalid, from_line, to_line
from interlock.runtime.source_errors import (
    FileTooLarge,
    ItemUnusable,
    JsonLineInvalid,
    LineTooLong,
    SourceChanged,
    SourceMissing,
    SourceNotText,
    SourceUnreadable,
)

__all__ = [
    "STANDARD_INPUT",
    "FilesSource",
    "GivenSource",
    "ItemSource",
    "LinesSource",
    "from_files",
    "from_lines",
    "from_standard_input",
    "from_values",
    "read_text",
]

STANDARD_INPUT = Path("standard input")
"""What errors call it."""

_BOM = b"\xef\xbb\xbf"


class _Lines(Protocol):
    """As much of a binary file as is needed."""

    def readline(self, limit: int, /) -> bytes: ...


_Open = Callable[[], AbstractContextManager[_Lines]]


@dataclass(frozen=True, slots=True)
class LinesSource:
    """The values of a file of JSON lines."""

    place: Path
    """What errors call the file."""
    open: _Open
    digest: bytes
    """SHA-256 of the file as it was checked."""

    def read(self) -> Iterator[Json]:
        """Yield the value of each line.

        :raises SourceChanged: the file is another one than it was
        :raises SourceError: it cannot be read any more
        """
        seen = hashlib.sha256()
        for _, _, line in _lines(self.place, self.open, seen.update):
            try:
                yield from_line(line)
            except LineInvalid as error:
                raise SourceChanged(self.place) from error
        if seen.digest() != self.digest:
            raise SourceChanged(self.place)


@dataclass(frozen=True, slots=True)
class FilesSource:
    """Files, each as ``{path, name, text}``."""

    files: Sequence[tuple[str, Path, bytes]]
    """What each is called, where it is, and the SHA-256 of its text as it was checked."""
    wanted_by: str

    def read(self) -> Iterator[Json]:
        """Yield the files.

        :raises SourceChanged: a file is another one than it was
        :raises SourceError: one cannot be read any more
        """
        for called, path, digest in self.files:
            item, found = _item_of(called, path, self.wanted_by)
            if found != digest:
                raise SourceChanged(path)
            yield item


@dataclass(frozen=True, slots=True)
class GivenSource:
    """Items that a program gives; they can be read once."""

    name: str
    """Of the input."""
    kind: InputType | None
    """Of the input; None where the team declares none."""
    values: Iterable[Json] | AsyncIterable[Json]

    async def read(self) -> AsyncIterator[Json]:
        """Yield the items.

        :raises ItemUnusable: one is not of the input's type
        """
        async for item in each(self.values):
            if self.kind == "files" and not fits_frozen("files", [item]):
                reason = f"expected {expected('files', frozen=True)}, got {shown(item)} in it"
                raise ItemUnusable(f"input {self.name!r}", reason)
            yield item


ItemSource = LinesSource | FilesSource | GivenSource
"""A list that is too long to be held: ``read()`` gives its items as they are asked for."""


def from_lines(path: Path, wanted_by: str) -> list[Json] | LinesSource:
    """Return the values of a file of JSON lines, blank ones aside, or where to read them if they are many.

    :raises JsonLineInvalid: a line is no JSON
    :raises LineTooLong: a line is too long
    :raises SourceError: the file cannot be read, or is no UTF-8
    """
    return _looked_through(path, lambda: _opened(path, wanted_by), lambda: _opened(path, wanted_by))


def from_standard_input() -> list[Json] | LinesSource:
    """Return the values of the JSON lines that come over standard input, once all have come, as ``from_lines`` does.

    They go through a file that has no name and is gone with this process.

    :raises JsonLineInvalid: a line is no JSON
    :raises LineTooLong: a line is too long
    :raises SourceNotText: they are no UTF-8
    """
    spool = _Spool()
    return _looked_through(STANDARD_INPUT, spool.filled, spool.opened)


def from_files(found: Iterable[tuple[str, Path]], wanted_by: str) -> list[Json] | FilesSource:
    """Return files as ``{path, name, text}``, or where to read them if they are many or large.

    ``found`` says what each is called and where it is.

    :raises FileTooLarge: one is larger than an item may be
    :raises SourceError: one cannot be read, or is no UTF-8
    """
    short = _Short()
    files: list[tuple[str, Path, bytes]] = []
    for called, path in found:
        item, digest = _item_of(called, path, wanted_by)
        short.add(item, len(to_line(item)))
        files.append((called, path, digest))
    return FilesSource(files, wanted_by) if short.items is None else short.items


def from_values(name: str, kind: InputType, values: list[Json]) -> list[Json] | GivenSource:
    """Return a list, or where to read it if it is long.

    :raises ItemUnusable: an item is no JSON value
    """
    size = 0
    for position, value in enumerate(values):
        try:
            size += len(to_line(value))
        except LineInvalid as error:
            raise ItemUnusable(f"input {name!r}", f"item {position} is no JSON: {error}") from error
        if size > MAX_LISTED:
            return GivenSource(name, kind, values)
    return values


def read_text(path: Path, wanted_by: str, limit: int | None = None) -> str:
    """Return the text of a file.

    :raises FileTooLarge: it has more than ``limit`` bytes
    :raises SourceError: it cannot be read, or is no UTF-8
    """
    with _opened(path, wanted_by) as file:
        data = file.read(-1 if limit is None else limit + 1)
    if limit is not None and len(data) > limit:
        raise FileTooLarge(path, limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceNotText(path, error.start) from error


def _item_of(called: str, path: Path, wanted_by: str) -> tuple[Json, bytes]:
    """Return a file as an item, and the digest of its text."""
    text = read_text(path, wanted_by, MAX_ITEM)
    return {"path": called, "name": path.name, "text": text}, hashlib.sha256(text.encode()).digest()


class _Short:
    """The items of a list, as long as it is short."""

    def __init__(self) -> None:
        self.items: list[Json] | None = []
        """None: it is not short."""
        self._size = 0

    def add(self, item: Json, size: int) -> None:
        self._size += size
        if self._size > MAX_LISTED:
            self.items = None
        if self.items is not None:
            self.items.append(item)


def _looked_through(place: Path, first: _Open, again: _Open) -> list[Json] | LinesSource:
    short, seen = _Short(), hashlib.sha256()
    for number, offset, line in _lines(place, first, seen.update):
        try:
            short.add(from_line(line), len(line))
        except LineInvalid as error:
            _complain_of_text(place, offset, line)
            raise JsonLineInvalid(place, number, str(error)) from error
    return LinesSource(place, again, seen.digest()) if short.items is None else short.items


def _lines(place: Path, opened: _Open, seen: Callable[[bytes], None]) -> Iterator[tuple[int, int, bytes]]:
    """Yield the number, the position and the bytes of each line that is not blank; show all bytes to ``seen``."""
    number = offset = 0
    with opened() as file:
        while line := file.readline(MAX_ITEM + 1):
            seen(line)
            number += 1
            if len(line) > MAX_ITEM:
                raise LineTooLong(place, number, MAX_ITEM)
            body = line.removeprefix(_BOM) if number == 1 else line
            if body.strip():
                yield number, offset + len(line) - len(body), body
            offset += len(line)


def _complain_of_text(place: Path, offset: int, line: bytes) -> None:
    """Raise if what is wrong with a line at a position is that it is no text."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise SourceNotText(place, offset + error.start) from error


@contextmanager
def _opened(path: Path, wanted_by: str) -> Iterator["_File"]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise SourceMissing(path, wanted_by) from None
    except OSError as error:
        raise SourceUnreadable(path, error.strerror or str(error)) from error
    except ValueError as error:  # such as a name with a NUL in it
        raise SourceUnreadable(path, str(error)) from error
    with file:
        yield file


class _File(_Lines, Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Spool:
    """What came over standard input, in a file without a name."""

    def __init__(self) -> None:
        descriptor, name = tempfile.mkstemp(prefix="interlock-")
        Path(name).unlink()
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    @contextmanager
    def filled(self) -> Iterator[_Lines]:
        """Yield standard input; what is read of it goes into the file."""
        with os.fdopen(os.dup(self._descriptor), "wb") as file:
            yield _Tee(sys.stdin.buffer, file.write)

    @contextmanager
    def opened(self) -> Iterator[_Lines]:
        """Yield the file from its beginning on."""
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            yield file


class _Tee:
    """A file of which all that is read is shown to somebody else too."""

    def __init__(self, file: _Lines, tell: Callable[[bytes], object]) -> None:
        self._file = file
        self._tell = tell

    def readline(self, limit: int, /) -> bytes:
        line = self._file.readline(limit)
        self._tell(line)
        return line
