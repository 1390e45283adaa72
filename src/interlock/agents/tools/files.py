"""The tools ``files.read``, ``files.list`` and ``files.write``, inside the folders that the team file opens."""

import codecs
import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field

from interlock.agents.tools._beneath import file_opened, folder_opened, kind_of, place_below, refuse_unordinary, said
from interlock.agents.tools.errors import ToolFailed
from interlock.agents.tools.tool import Key, tool
from interlock.protocol.base import Json
from interlock.protocol.team import FilesTools

__all__ = ["Files"]

_READ_BYTES = 50_000
_LEAST_READ_BYTES, _MOST_READ_BYTES = 16, 200_000
_MOST_WRITTEN = 2_000_000
_MOST_ENTRIES = 1_000
_SCRATCH = ".interlock-"  # what is being written; never listed


class Files:
    """The file tools of one team. Links are not followed: rules judged where they lead."""

    def __init__(self, settings: FilesTools, base: Path) -> None:
        """Resolve the folders now: a link put in their place later leads nowhere.

        :param base: the folder of the team file
        """
        self._base = base.resolve()
        self._writable = tuple((base / folder).resolve() for folder in settings.write)
        self._readable = (*((base / folder).resolve() for folder in settings.read), *self._writable)

    @tool(effect="read", name="files.read", kinds={"path": "path"}, primary="path")
    def read(
        self,
        path: str,
        offset: Annotated[int, Field(ge=0, description="The byte to begin at.")] = 0,
        limit: Annotated[
            int, Field(ge=_LEAST_READ_BYTES, le=_MOST_READ_BYTES, description="How many bytes at most.")
        ] = _READ_BYTES,
    ) -> dict[str, Json]:
        """Read a text file. Where `next` is a number there is more of it, from that offset on."""
        place = place_below(path, self._base, self._readable)
        with file_opened(place) as file:
            size = os.fstat(file).st_size
            data = os.pread(file, limit, offset)
        if b"\0" in data:
            raise ToolFailed(f"{path} is not text")
        text, used = _decoded(data, last=offset + len(data) >= size)
        end = offset + used
        return {
            "path": path,
            "text": text.removeprefix("\ufeff") if offset == 0 else text,
            "size": size,
            "next": end if used and end < size else None,
        }

    @tool(effect="read", name="files.list", kinds={"path": "path"}, primary="path")
    def list(self, path: str) -> dict[str, Json]:
        """List what is in a folder, sorted by name."""
        place = place_below(path, self._base, self._readable)
        with folder_opened(place) as folder:
            try:
                readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            except OSError as error:
                raise said(error, place) from error
            try:
                names = sorted(
                    name
                    for name in os.listdir(readable)  # noqa: PTH208 -- a Path would be walked anew
                    if not name.startswith(_SCRATCH)
                )
                entries: list[Json] = [_entry(name, readable) for name in names[:_MOST_ENTRIES]]
            finally:
                os.close(readable)
        return {"path": path, "entries": entries, "more": len(names) - len(entries)}

    @tool(
        effect="idempotent",
        name="files.write",
        kinds={"path": "path"},
        primary="path",
        destinations=("path",),
        outside=False,
    )
    def write(self, path: str, text: Annotated[str, Field(max_length=_MOST_WRITTEN)], key: Key) -> dict[str, Json]:
        """Write a text file, in place of what it held before; folders that are missing are made."""
        place = place_below(path, self._base, self._writable)
        if place in self._writable:
            raise ToolFailed(f"{path} is a folder: name a file in it")
        data = text.encode("utf-8", "replace")
        with folder_opened(place.parent, create_below=self._root_of(place)) as folder:
            try:
                mode = _mode_of(place, folder)
                _replace(place.name, data, mode, folder, key)
            except OSError as error:
                raise said(error, place) from error
            _sync(folder)  # an error here leaves open what is on the disk
        return {"path": path, "bytes": len(data)}

    def _root_of(self, place: Path) -> Path:
        root = next(root for root in self._writable if place.is_relative_to(root))
        return root.parent  # the folder itself may have to be made too


def _decoded(data: bytes, *, last: bool) -> tuple[str, int]:
    """Return the text of ``data`` and how many bytes of it that was: a character that is cut off is left for later."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data, final=last)
    return text, len(data) - len(decoder.getstate()[0])


def _entry(name: str, folder: int) -> dict[str, Json]:
    shown = os.fsencode(name).decode("utf-8", "replace")
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:  # it went away meanwhile
        return {"name": shown, "kind": "gone"}
    entry: dict[str, Json] = {"name": shown, "kind": kind_of(found.st_mode)}
    return {**entry, "size": found.st_size} if stat.S_ISREG(found.st_mode) else entry


def _mode_of(place: Path, folder: int) -> int | None:
    """Return the permissions of the file that is to be replaced; None where there is none."""
    try:
        found = os.stat(place.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    refuse_unordinary(found, place)
    return stat.S_IMODE(found.st_mode)


def _replace(name: str, data: bytes, mode: int | None, folder: int, key: str) -> None:
    """Write a file beside and rename it over ``name``: whoever reads sees the old text or the new one.

    Its name hangs on ``key`` alone, so that what a crash leaves behind is overwritten when the call is made again.
    """
    scratch = _SCRATCH + hashlib.sha256(f"{key}\0{name}".encode("utf-8", "surrogateescape")).hexdigest()[:24]
    with suppress(FileNotFoundError):
        os.unlink(scratch, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(scratch, flags, 0o666, dir_fd=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if mode is not None:
                os.fchmod(handle, mode & 0o777)
            os.fsync(handle)
        os.replace(scratch, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(scratch, dir_fd=folder)
        raise


def _sync(folder: int) -> None:
    handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
