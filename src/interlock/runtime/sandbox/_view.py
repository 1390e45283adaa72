"""What a command in a sandbox sees of this machine, as a list of steps that either tier carries out in order.

``("bind", source, path, writable)``, ``("link", target, path)``, ``("memory", path, bytes)``, ``("device", path)``,
``("processes", path)`` and ``("hide", path)``.
"""

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from interlock.agents.tools.isolation import Mount, MountRefused, SandboxLimits

Step = tuple[str, str] | tuple[str, str, str] | tuple[str, str, int] | tuple[str, str, str, bool]

INSIDE = "/.interlock/inside.py"
"""Where the first process finds its program."""
TMP = "/tmp"  # noqa: S108 -- the private one, inside
SHARED_MEMORY = "/dev/shm"  # noqa: S108 -- the private one, inside

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SETTINGS = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_STREAMS = (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2"))
_TOLD_TO_ALL = ("cmdline", "kallsyms", "key-users", "keys")
"""What the kernel shows to everyone in /proc and a command has no use for."""
_NEVER = ("/proc", "/sys", "/dev", "/run", "/.interlock")
_SHARED_MEMORY_BYTES = 64 * 1024 * 1024


def view(mounts: Sequence[Mount], limits: SandboxLimits) -> list[Step]:
    """Return all that is seen inside.

    :raises MountRefused: a mount may not be shown
    """
    for mount in mounts:
        check_mount(mount.path)
    return [
        *_system(),
        ("processes", "/proc"),
        *_machine(),
        *(("device", path) for path in _DEVICES),
        *(("link", f"/proc/self/fd{rest}", f"/dev/{name}") for name, rest in _STREAMS),
        ("memory", SHARED_MEMORY, min(limits.memory_bytes, _SHARED_MEMORY_BYTES)),
        ("memory", TMP, limits.disk_bytes),
        *_folders(mounts),
        ("bind", str(Path(__file__).with_name("_inside.py")), INSIDE, False),
    ]


def check_mount(path: Path) -> None:
    """Check that a path may be shown.

    It has to be free of symbolic links: a command that may write to the folder above it could have put one there.

    :raises MountRefused: it is not there, is reached by a link, or would show the machine itself
    """
    if not path.is_absolute():
        raise MountRefused(path, "it must be an absolute path")
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise MountRefused(path, f"it cannot be reached: {error}") from error
    if real != path:
        raise MountRefused(path, f"there is a symbolic link on the way; if it is meant, name {real}")
    if path == Path("/") or any(path.is_relative_to(never) for never in _NEVER):
        raise MountRefused(path, "it is the machine's own; name the folder of files that is meant")
    if not path.is_dir() and not path.is_file():
        raise MountRefused(path, "it is neither a file nor a folder")


def start_folder(folder: Path | None, mounts: Sequence[Mount]) -> str:
    """Return where the command starts.

    :raises MountRefused: the folder is not below one of the mounts
    """
    if folder is None:
        return TMP
    check_mount(folder)
    if not folder.is_dir() or not any(folder.is_relative_to(mount.path) for mount in mounts):
        raise MountRefused(folder, "the folder to start in must be one of the mounts, or a folder below one")
    return str(folder)


def environment() -> dict[str, str]:
    """Return all of the environment that a command gets."""
    own = Path(sys.prefix) / "bin"
    return {"PATH": f"{own}:/usr/local/bin:/usr/bin:/bin", "HOME": TMP, "LANG": "C.UTF-8"}


def _system() -> Iterator[Step]:
    for path in map(Path, _SYSTEM):
        if path.is_symlink():
            yield ("link", os.readlink(path), str(path))  # noqa: PTH115 -- the text, not a path
        elif path.exists():
            yield ("bind", str(path), str(path), False)
    for path in map(Path, _SETTINGS):
        if path.exists():
            yield ("bind", str(path.resolve()), str(path), False)


@cache
def _machine() -> tuple[Step, ...]:
    """Take from the machine's part of /proc all that can be changed, and what not everybody may read.

    The kernel lets its root write there without any capability, and root in a user namespace of root's is that root.
    """
    steps: list[Step] = []
    with os.scandir("/proc") as entries:
        for entry in (entry for entry in entries if not entry.name.isdigit() and not entry.is_symlink()):
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                steps.append(("bind", entry.path, entry.path, False))
            elif mode & 0o222 or not mode & 0o004 or entry.name in _TOLD_TO_ALL:
                steps.append(("hide", entry.path))
    return tuple(steps)


def _folders(mounts: Sequence[Mount]) -> Iterator[Step]:
    """Yield the mounts and this Python, those above before those below, and Python last, so that it stays read-only."""
    pythons = _pythons()
    found = [(mount.path, mount.writable) for mount in mounts if mount.path not in pythons]
    found += [(path, False) for path in pythons]
    for path, writable in sorted(found, key=lambda item: len(item[0].parts)):
        yield ("bind", str(path.resolve()), str(path), writable)
    for path in pythons:
        if (secrets := path / "pip.conf").is_file():  # it may hold the password of a package index
            yield ("hide", str(secrets))


def _pythons() -> list[Path]:
    """Return the folders of this Python, where the system does not hold them, and each link on the way to its program.

    :raises MountRefused: they hold more than Python
    """
    prefixes = [Path(sys.prefix), Path(sys.base_prefix)]
    if broad := [path for path in prefixes if Path.home().is_relative_to(path)]:
        raise MountRefused(broad[0], "Python is installed there, beside everything else; use a virtual environment")
    links = (link for link in _links(Path(sys.executable)) if not any(map(link.is_relative_to, prefixes)))
    found = dict.fromkeys([*prefixes, *links])
    return [path for path in found if not any(path.is_relative_to(system) for system in _SYSTEM)]


def _links(path: Path) -> Iterator[Path]:
    """Yield a path and each one that it leads to by being a symbolic link."""
    yield path
    while path.is_symlink():
        path = path.parent / path.readlink()
        yield path
