"""The first process inside a sandbox: ``python -I -S _inside.py SPEC LIFE REPORT``, each the number of an open file.

Starts the command with its limits and waits for it, reaps orphans, and watches what no limit of the kernel holds
for all of them together: processes, memory, disk. When it ends, the kernel kills everything in its PID namespace. So
it ends with the command, when a limit is passed, when its time is up, and when the other end of LIFE closes: the
process that wanted the command is gone, or wants it gone.

It writes to REPORT, in lines: ``started``, then ``exit STATUS`` or ``exceeded LIMIT``, or nothing.

Imports nothing but the standard library, and little of it, so that it starts in 15 ms.
"""

import ctypes
import fcntl
import marshal
import os
import resource
import select
import struct
import sys
import time
from _socket import socket, socketpair  # the module around it takes 15 ms more to import
from collections.abc import Iterator
from typing import Any

_DUMPABLE, _NO_NEW_PRIVILEGES, _SECCOMP = 4, 38, 22
_SIGPIPE, _SIGXFSZ = 13, 25
_SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}
_NEW_LISTENER, _ASKED, _ANSWER, _GO_ON, _QUESTION = 8, 0xC0502100, 0xC0182101, 1, 80
_SOL_SOCKET, _SCM_RIGHTS = 1, 1
_TICK_MS = 10
_GRACE = 1.0
"""How many seconds after its time the sandbox ends by itself: whoever waits for it outside should have ended it."""
_MOST_DISK = 4
"""How many times the disk limit may vanish from a disk, by whoever, before the run is ended without a look at whose."""
_PAGE = 4096
_INODE = 1024
"""About what a file costs in memory besides its bytes."""
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_NAMESPACED_NPROC = (5, 14)
"""The kernel that began to count processes for each user namespace; older ones count all of the user's."""


def main() -> None:
    """Run what the spec says, and end."""
    spec_file, life, report = map(int, sys.argv[1:4])
    with open(spec_file, "rb") as file:  # noqa: PTH123 -- pathlib takes 15 ms to import
        spec: dict[str, Any] = marshal.loads(file.read())  # noqa: S302 -- our own parent wrote it, this same Python
    _write("/proc/self/oom_score_adj", "1000")
    _prctl(_DUMPABLE, 0)  # else what runs below could write to /proc/1/mem, being the same user
    if select.select([life], [], [], 0)[0]:
        sys.exit("the process that wanted the sandbox is gone")
    os.write(report, b"started\n")
    ours, theirs = socketpair()
    command = os.fork()
    if command == 0:
        _become(spec, theirs)
    theirs.close()
    forks = _receive_file(ours) if spec["seccomp_forks"] else None
    _Watch(spec, command, forks, life, report).wait()
    os._exit(0)


def _become(spec: dict[str, Any], first: socket) -> None:
    """Become the command, with its limits, nothing open but the three standard files, and few system calls."""
    try:
        os.setsid()
        _close_others(first.fileno())
        os.chdir(spec["folder"])
        os.nice(5)  # the watch goes first
        for signal in (_SIGPIPE, _SIGXFSZ):  # Python ignores them, and what is ignored stays so
            ctypes.CDLL(None).signal(signal, None)
        _limit(spec["limits"])
        _prctl(_NO_NEW_PRIVILEGES, 1)
        if spec["seccomp_forks"]:
            first.sendmsg([b"f"], [(_SOL_SOCKET, _SCM_RIGHTS, struct.pack("i", _listen(spec["seccomp_forks"])))])
        first.close()
        _filter(spec["seccomp"])
        os.execvpe(spec["command"][0], spec["command"], spec["environment"])  # noqa: S606 -- no shell is wanted
    except FileNotFoundError:
        _refuse(f"there is no program {spec['command'][0]} in the sandbox\n", _NOT_FOUND)
    except BaseException as error:  # noqa: BLE001 -- a copy of the first process must not go on as it
        _refuse(f"the program {spec['command'][0]} cannot be run in the sandbox: {error}\n", _NOT_EXECUTABLE)


def _close_others(kept: int) -> None:
    """Close all but the standard files and one more."""
    os.closerange(3, kept)
    os.closerange(kept + 1, 65536)


def _refuse(words: str, status: int) -> None:
    os.write(2, words.encode("utf-8", "replace"))
    os._exit(status)


def _limit(limits: dict[str, Any]) -> None:
    """Set what the kernel limits for each process, and, for all but the machine's root, how many there are."""
    values = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_DATA: limits["memory_bytes"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_MEMLOCK: 65536,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_SIGPENDING: 1024,
    }
    release = os.uname().release.split(".")
    if (int(release[0]), int("".join(filter(str.isdigit, release[1])))) >= _NAMESPACED_NPROC:
        values[resource.RLIMIT_NPROC] = limits["processes"] + 2  # and the first, and who made the namespaces
    for which, value in values.items():
        hard = resource.getrlimit(which)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (most, most))


class _Program(ctypes.Structure):
    """A filter of system calls."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def _filter(program: bytes) -> None:
    """Load the filter of system calls, for this process and all that it will start."""
    loaded = _Program(len(program) // 8, program)
    _prctl(_SECCOMP, 2, ctypes.addressof(loaded))


def _listen(program: bytes) -> int:
    """Load a filter whose calls wait for an answer, and return the file that they are asked on; it goes with exec."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = _SECCOMP_CALL[os.uname().machine]
    file = int(libc.syscall(number, 1, _NEW_LISTENER, ctypes.byref(_Program(len(program) // 8, program))))
    if file < 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
    return file


def _receive_file(first: socket) -> int | None:
    """Return the file that the command sent before it began; None: it ended before."""
    _, sent, _, _ = first.recvmsg(1, 64)
    return int(struct.unpack("i", sent[0][2][:4])[0]) if sent else None


def _answer(forks: int) -> None:
    """Let the process that asked go on."""
    question = bytearray(_QUESTION)
    try:
        fcntl.ioctl(forks, _ASKED, question)
        fcntl.ioctl(forks, _ANSWER, struct.pack("=QqiI", int.from_bytes(question[:8], sys.byteorder), 0, 0, _GO_ON))
    except FileNotFoundError:
        return  # it was killed meanwhile


def _prctl(option: int, *arguments: int) -> None:
    four = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, *four) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}): {os.strerror(ctypes.get_errno())}")


class _Watch:
    """Waits for the command, and looks at everything inside every few milliseconds."""

    def __init__(self, spec: dict[str, Any], command: int, forks: int | None, life: int, report: int) -> None:
        self._limits: dict[str, Any] = spec["limits"]
        self._memory_folders: list[str] = spec["memory_folders"]
        self._disks = [_Disk(folder, self._limits["disk_bytes"]) for folder in spec["disks"]]
        self._command = command
        self._forks = forks
        """Where processes that want to start another one ask; None: nobody asks, the kernel counts."""
        self._life = life
        self._report = report
        self._ends = time.monotonic() + self._limits["seconds"] + _GRACE

    def wait(self) -> None:
        """Return when everything has to end, with the reason reported."""
        poll = select.poll()
        poll.register(self._life, select.POLLIN)
        poll.register(os.pidfd_open(self._command), select.POLLIN)
        if self._forks is not None:
            poll.register(self._forks, select.POLLIN)
        while time.monotonic() < self._ends:
            ready = dict(poll.poll(_TICK_MS))
            if self._life in ready:
                break
            asked = self._forks is not None and ready.get(self._forks, 0) & select.POLLIN
            if line := self._outcome(1 if asked else 0):
                os.write(self._report, f"{line}\n".encode())
                break
            if asked and self._forks is not None:
                _answer(self._forks)

    def _outcome(self, more: int) -> str:
        """Return what there is to report with ``more`` processes than there are; empty: everything goes on."""
        if (status := self._reap()) is not None:
            return f"exit {os.waitstatus_to_exitcode(status)}"
        limit = self._exceeded(more)
        return f"exceeded {limit}" if limit else ""

    def _reap(self) -> int | None:
        """Let go of all who ended, orphans too, and return the command's status if it is among them."""
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == self._command:
                return status
            if pid == 0:
                return None
            for disk in self._disks:
                disk.ended(pid, status)

    def _exceeded(self, more: int) -> str:
        """Return the limit that is passed; empty: none is."""
        most = self._limits["processes"] - more
        ours = {1, *(disk.counting for disk in self._disks)}
        pids = [name for name in os.listdir("/proc") if name.isdigit() and int(name) not in ours]  # noqa: PTH208 -- as above
        if len(pids) > most:
            return "processes"
        threads, resident = _totals(pids)
        if threads > most:
            return "processes"
        if self._too_much_memory(pids, resident):
            return "memory"
        return "disk" if sum(disk.full() for disk in self._disks) else ""  # each is asked, so each can count

    def _too_much_memory(self, pids: list[str], resident: int) -> bool:
        files = sum(map(_held, self._memory_folders))
        most: int = self._limits["memory_bytes"]
        # What is resident counts shared pages once for each process: only beyond that is the exact sum worth its time.
        return files + resident > most and files + sum(map(_own_memory, pids)) > most


class _Disk:
    """The disk below one writable mount, as it was when the run began."""

    def __init__(self, folder: str, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._free, self._inodes = _free(folder)
        self._began = time.time() - 1  # file systems keep a coarser time
        self._over = False
        self.counting = 0
        """The process that is looking how much this run wrote; 0: there is none."""

    def full(self) -> bool:
        """Return whether this run wrote too much: others use the disk too, so its files are counted, in a process."""
        free, inodes = _free(self._folder)
        gone = max(self._free - free, (self._inodes - inodes) * _PAGE)
        if self._over or gone > _MOST_DISK * self._limit:
            return True
        if gone > self._limit // 2 and not self.counting:
            self.counting = os.fork()
            if self.counting == 0:
                os._exit(self._written() > self._limit)
        return False

    def ended(self, pid: int, status: int) -> None:
        """Take note of the process ``pid`` that ended."""
        if pid == self.counting:
            self.counting = 0
            self._over = status != 0

    def _written(self) -> int:
        """Return what the files hold that were changed since the run began; the count stops beyond the limit."""
        total = 0
        for size in _changed(self._folder, self._began):
            total += max(size, _PAGE)
            if total > self._limit:
                break
        return total


def _changed(folder: str, since: float) -> Iterator[int]:
    """Yield the size on disk of each file changed since then, by the clock that nothing inside can set."""
    waiting = [folder]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue  # removed meanwhile
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            if found.st_ctime >= since:
                yield found.st_blocks * 512


def _free(folder: str) -> tuple[int, int]:
    found = os.statvfs(folder)
    return found.f_bfree * found.f_frsize, found.f_ffree


def _held(folder: str) -> int:
    """Return what the files of a file system in memory hold, in bytes."""
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize + (found.f_files - found.f_ffree) * _INODE


def _totals(pids: list[str]) -> tuple[int, int]:
    """Return how many threads there are, and how many bytes are resident."""
    threads = resident = 0
    for pid in pids:
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if len(fields) > 21:  # noqa: PLR2004 -- else it ended; see proc_pid_stat(5), counted from the state
            threads += int(fields[17])
            resident += int(fields[21]) * resource.getpagesize()
    return threads, resident


def _own_memory(pid: str) -> int:
    """Return what a process holds that is no file's, pages shared with others in proportion, in bytes."""
    if not (rollup := _read(f"/proc/{pid}/smaps_rollup")):
        return _totals([pid])[1]  # it hides, or ended
    lines = (line.split() for line in rollup.splitlines()[1:])
    return sum(int(line[1]) * 1024 for line in lines if line[0] in ("Pss_Anon:", "Pss_Shmem:", "SwapPss:"))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 -- as above
            return file.read()
    except OSError:
        return ""  # the process is gone, or hides it


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123 -- as above
        file.write(text)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(str(error))
