"""The sandbox without bubblewrap: ``python -I -S _enter.py SPEC LIFE REPORT PARENT`` goes into namespaces of its own.

It unshares all of them, starts the first process of the new PID namespace and waits for it. That one builds a root of
its own from the view in the spec, moves into it so that nothing else is left to see, gives up every capability, and
becomes ``_inside.py``. Needs Linux 5.12 and user namespaces; the machine's root needs nothing else and keeps nothing.

Imports nothing but the standard library, and little of it.
"""

import ctypes
import marshal
import os
import struct
import sys
from collections.abc import Callable
from typing import Any

_NEW = {"user": 0x10000000, "mount": 0x00020000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x08000000}
_NEW |= {"uts": 0x04000000, "cgroup": 0x02000000}
_UID = 1000
"""Who the command is inside; outside it is this process's user."""

_READ_ONLY, _NO_SETUID, _NO_DEVICES, _NO_EXEC, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = (
    1, 2, 4, 8, 0x20, 0x1000, 0x4000, 0x40000,
)  # fmt: skip
_DETACH = 2
_AT_RECURSIVE, _AT_FDCWD = 0x8000, -100
_MOUNT_SETATTR = 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_PARENT_DEATH, _DROP_BOUND, _NO_NEW_PRIVILEGES, _AMBIENT, _AMBIENT_CLEAR = 1, 24, 38, 47, 4
_SIGKILL = 9
_CAPABILITIES_V3 = 0x20080522
_INET, _DATAGRAM, _SET_FLAGS, _UP = 2, 2, 0x8914, 0x1

_LIBC = ctypes.CDLL(None, use_errno=True)
_OLD = "/old"
_NEW_ROOT = "/new"


def main() -> None:
    """Go into the namespaces, start the first process there, and end when it does, with its status."""
    spec_file, parent = int(sys.argv[1]), int(sys.argv[4])
    with open(spec_file, "rb", closefd=False) as file:
        spec: dict[str, Any] = marshal.loads(file.read())  # noqa: S302 -- our own parent wrote it, this same Python
    os.lseek(spec_file, 0, os.SEEK_SET)
    _call("prctl", _PARENT_DEATH, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that wanted the sandbox is gone")
    _unshare()
    alive, held = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(held)
        _first(spec, alive)
    os.close(alive)
    _, status = os.waitpid(first, 0)
    sys.exit(abs(os.waitstatus_to_exitcode(status)))


def _unshare() -> None:
    uid, gid = os.geteuid(), os.getegid()
    flags = 0
    for flag in _NEW.values():
        flags |= flag
    _call("unshare", flags)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{_UID} {uid} 1")
    _write("/proc/self/gid_map", f"{_UID} {gid} 1")


def _first(spec: dict[str, Any], alive: int) -> None:
    """Build the root, go in, give everything up, and become ``_inside.py``."""
    _call("prctl", _PARENT_DEATH, _SIGKILL, 0, 0, 0)
    os.set_blocking(alive, False)
    try:
        os.read(alive, 1)
        sys.exit("the process that made the namespaces is gone")
    except BlockingIOError:
        os.close(alive)
    _call("sethostname", b"sandbox", 7)
    _loopback()
    _build(spec["view"])
    _give_up()
    os.environ.clear()
    os.execv(sys.executable, [sys.executable, "-I", "-S", spec["inside"], *sys.argv[1:4]])  # noqa: S606 -- no shell


def _build(view: list[tuple[Any, ...]]) -> None:
    """Make a root with nothing in it but the view, and move into it."""
    _mount("none", "/", "", _RECURSIVE | _PRIVATE)
    _mount("root", "/tmp", "tmpfs", _NO_SETUID | _NO_DEVICES, "mode=755,size=1m")  # noqa: S108 -- ours alone sees it
    os.chdir("/tmp")  # noqa: S108 -- as above
    for name in (_OLD, _NEW_ROOT):
        os.mkdir(f".{name}")  # noqa: PTH102 -- pathlib takes 15 ms to import
    _pivot(".", f".{_OLD}")
    os.chdir("/")
    _mount("root", _NEW_ROOT, "tmpfs", _NO_SETUID | _NO_DEVICES, "mode=755,size=1m")
    for kind, *words in view:
        _MAKERS[kind](*words)
    _detach(_OLD)
    os.chdir(_NEW_ROOT)
    _pivot(".", ".")
    _detach(".")
    os.chdir("/")
    _mount("none", "/", "", _REMOUNT | _BIND | _READ_ONLY | _NO_SETUID | _NO_DEVICES)


def _bind(source: str, path: str, writable: bool) -> None:
    _place(path, folder=os.path.isdir(_OLD + source))  # noqa: PTH112 -- as above
    _mount(_OLD + source, _NEW_ROOT + path, "", _BIND | _RECURSIVE)
    _set_flags(path, _NO_SETUID | _NO_DEVICES | (0 if writable else _READ_ONLY))


def _device(path: str) -> None:
    _place(path, folder=False)
    _mount(_OLD + path, _NEW_ROOT + path, "", _BIND)
    _set_flags(path, _NO_SETUID | _NO_EXEC)


def _hide(path: str) -> None:
    if os.path.exists(_NEW_ROOT + path):  # noqa: PTH110 -- as above
        _bind("/dev/null", path, writable=False)


def _link(target: str, path: str) -> None:
    _place(os.path.dirname(path), folder=True)  # noqa: PTH120 -- as above
    os.symlink(target, _NEW_ROOT + path)  # noqa: PTH211 -- as above


def _memory(path: str, size: int) -> None:
    _place(path, folder=True)
    _mount("memory", _NEW_ROOT + path, "tmpfs", _NO_SETUID | _NO_DEVICES, f"mode=755,size={size}")


def _processes(path: str) -> None:
    _place(path, folder=True)
    _mount("proc", _NEW_ROOT + path, "proc", _NO_SETUID | _NO_DEVICES | _NO_EXEC)


_MAKERS: dict[str, Callable[..., None]] = {
    "bind": _bind,
    "device": _device,
    "hide": _hide,
    "link": _link,
    "memory": _memory,
    "processes": _processes,
}


def _place(path: str, *, folder: bool) -> None:
    """Make sure that there is a folder or file to mount on."""
    whole = _NEW_ROOT + path
    os.makedirs(whole if folder else os.path.dirname(whole), mode=0o755, exist_ok=True)  # noqa: PTH103, PTH120 -- as above
    if not folder and not os.path.exists(whole):  # noqa: PTH110 -- as above
        os.close(os.open(whole, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o600))


def _set_flags(path: str, flags: int) -> None:
    """Set mount flags (the first four bits are the same in both calls) of a mount and of all that are below it."""
    attributes = struct.pack("=QQQQ", flags, 0, 0, 0)
    arguments = (_AT_FDCWD, (_NEW_ROOT + path).encode(), _AT_RECURSIVE, attributes, len(attributes))
    _call("syscall", _MOUNT_SETATTR, *arguments)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    _call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode() or None)


def _pivot(new: str, old: str) -> None:
    _call("syscall", _PIVOT_ROOT[os.uname().machine], new.encode(), old.encode())


def _detach(path: str) -> None:
    _call("umount2", path.encode(), _DETACH)


def _loopback() -> None:
    """Bring up the loopback interface of the new network namespace, which has no other."""
    socket = _call("socket", _INET, _DATAGRAM, 0)
    _call("ioctl", socket, ctypes.c_ulong(_SET_FLAGS), struct.pack("16sh14x", b"lo", _UP))
    os.close(socket)


def _give_up() -> None:
    """Drop every capability, for good."""
    for capability in range(int(_read("/proc/sys/kernel/cap_last_cap")) + 1):
        _call("prctl", _DROP_BOUND, capability, 0, 0, 0)
    _call("prctl", _AMBIENT, _AMBIENT_CLEAR, 0, 0, 0)
    _call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _call("capset", struct.pack("=Ii", _CAPABILITIES_V3, 0), bytes(24))


def _call(function: str, *arguments: Any) -> int:
    """Call the C library.

    :raises OSError: it failed; the error names the function and its text arguments
    """
    result = int(getattr(_LIBC, function)(*arguments))
    if result < 0:
        told = ", ".join(word.decode() for word in arguments if isinstance(word, bytes) and word.isascii())
        raise OSError(ctypes.get_errno(), f"{function}({told.strip(chr(0))}): {os.strerror(ctypes.get_errno())}")
    return result


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:  # noqa: PTH123 -- as above
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123 -- as above
        file.write(text)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(str(error))
