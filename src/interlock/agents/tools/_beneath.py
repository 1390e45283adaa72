"""Files below folders that were opened for it, whatever anybody does to the folders meanwhile.

A path is walked from the root of the file system, each part opened in the folder that was opened before and never
through a link. So what is opened is what the path says, and what rules judged: no link put in place between the
judgement and the opening, or while the walk goes on, leads anywhere else.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from interlock.agents.tools.errors import ToolFailed

_WALK = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a pipe that somebody put in the file's place would wait for its other end.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def place_below(path: str, base: Path, roots: Sequence[Path]) -> Path:
    """Return ``path`` as an absolute path, without looking at the disk; ``base`` is what relative ones begin at.

    :raises ToolFailed: it is in none of the folders ``roots``, or is not in its simplest form
    """
    if "\0" in path or ".." in Path(path).parts:
        raise ToolFailed(f"the path {path!r} holds '..' or a NUL character: write it without")
    place = base / path
    if not any(place.is_relative_to(root) for root in roots):
        opened = ", ".join(map(str, roots)) or "none"
        raise ToolFailed(f"{path} is in none of the folders that are open for this: {opened}")
    return place


@contextmanager
def folder_opened(folder: Path, *, create_below: Path | None = None) -> Iterator[int]:
    """Open an absolute ``folder`` without going through a link, for use as ``dir_fd``.

    :param create_below: folders that are missing below this one are made
    :raises ToolFailed: a part of the path is missing, a link, or no folder
    """
    handle = os.open(folder.anchor, _WALK)
    try:
        walked = Path(folder.anchor)
        for part in folder.parts[1:]:
            walked /= part
            make = create_below is not None and walked != create_below and walked.is_relative_to(create_below)
            inner = _step(handle, part, walked, make=make)
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def _step(handle: int, part: str, walked: Path, *, make: bool) -> int:
    try:
        if make:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=handle)
        return os.open(part, _WALK, dir_fd=handle)
    except (OSError, ValueError) as error:
        raise said(error, walked) from error


@contextmanager
def file_opened(place: Path) -> Iterator[int]:
    """Open an ordinary file for reading, by its absolute path and not through a link.

    :raises ToolFailed: it is missing, a link, or something else than an ordinary file
    """
    with folder_opened(place.parent) as folder:
        try:
            # Looked at first, since opening a device can do something; and again below, since it can have changed.
            refuse_unordinary(os.stat(place.name, dir_fd=folder, follow_symlinks=False), place)
            handle = os.open(place.name, _READ, dir_fd=folder)
        except (OSError, ValueError) as error:
            raise said(error, place) from error
    try:
        refuse_unordinary(os.fstat(handle), place)
        yield handle
    finally:
        os.close(handle)


def refuse_unordinary(found: os.stat_result, place: Path) -> None:
    """Refuse everything but an ordinary file.

    :raises ToolFailed: ``found`` is something else
    """
    if not stat.S_ISREG(found.st_mode):
        raise ToolFailed(f"{place} is a {kind_of(found.st_mode)}, no ordinary file")


def kind_of(mode: int) -> str:
    """Return what a thing in a folder is, in a word or two."""
    return next((word for holds, word in _KINDS if holds(mode)), "special file")


_KINDS = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "folder"),
    (stat.S_ISLNK, "link"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


def said(error: OSError | ValueError, place: Path) -> ToolFailed:
    """Return what an error of the file system means to whoever named ``place``."""
    number = error.errno if isinstance(error, OSError) else None
    match number:
        case errno.ENOENT:
            return ToolFailed(f"{place} is not there")
        case errno.ENOTDIR:
            return ToolFailed(f"{place} is a file or a link, no folder")
        case errno.ELOOP:
            return ToolFailed(f"{place} is a link, and links are not followed")
        case errno.EACCES | errno.EPERM:
            return ToolFailed(f"{place} may not be opened by this process")
        case None:
            return ToolFailed(f"{str(place)!r} is no path: {error}")
        case _:
            return ToolFailed(f"{place}: {os.strerror(number)}")
