"""One run in a sandbox as its parent sees it: started, fed, read, and ended for certain."""

import fcntl
import marshal
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Literal, TypeAlias

import anyio
from anyio.abc import Process

from interlock.agents.tools.isolation import SandboxFailed, SandboxLimits, SandboxResult

_END_SECONDS = 5.0
"""How long the kernel may take to end everything inside before the process outside it is killed too."""
_AGAIN_SECONDS = 0.2
"""After how long it is looked again what there is to kill."""
_CHUNK = 65536
_UNCHANGEABLE = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_TOLD = 1000
"""How many characters of a failed set-up's words are kept."""

Exceeded: TypeAlias = Literal["processes", "memory", "disk"]


@dataclass(frozen=True, slots=True)
class Job:
    """One run, ready to start."""

    tier: str
    spec: Mapping[str, object]
    """What ``_inside.py`` and ``_enter.py`` are told; only what ``marshal`` takes."""
    command_line: Callable[[Sequence[int]], list[str]]
    """What to start, given the numbers of the files that it finds open: SPEC, LIFE and REPORT."""
    stdin: bytes
    limits: SandboxLimits


async def run(job: Job) -> SandboxResult:
    """Run it to its end; when this returns or raises, nothing that it started lives.

    :raises SandboxFailed: the command did not run, or something outside killed it
    """
    with _files(job) as files:
        out, err = (_Kept(file, job.limits.output_bytes) for file in (files.out, files.err))
        with anyio.move_on_after(job.limits.seconds) as time:
            async with _started(job, files), anyio.create_task_group() as tasks:
                tasks.start_soon(out.fill, tasks.cancel_scope)
                tasks.start_soon(err.fill, tasks.cancel_scope)
        said = files.said()
    timed_out = time.cancelled_caught and not said.ended
    truncated = out.full or err.full
    if not (said.ended or timed_out or truncated):
        words = err.data.decode("utf-8", "replace").strip()[-_TOLD:]
        raise SandboxFailed(job.tier, "it was killed from outside" if said.started else words or "it ended silently")
    return SandboxResult(said.status, bytes(out.data), bytes(err.data), timed_out, truncated, said.exceeded)


class _Kept:
    """The beginning of what comes out of a pipe."""

    def __init__(self, file: int, most: int) -> None:
        self._file = file
        self._most = most
        self.data = bytearray()
        self.full = False
        """Whether there was more."""

    async def fill(self, scope: anyio.CancelScope) -> None:
        """Read to the end, or cancel ``scope`` when there is more than is kept."""
        while not self.full:
            await anyio.wait_readable(self._file)
            if not (chunk := os.read(self._file, _CHUNK)):
                return
            room = self._most - len(self.data)
            self.data += chunk[:room]
            self.full = len(chunk) > room
        scope.cancel()


@dataclass(frozen=True, slots=True)
class _Said:
    """What the first process reported."""

    started: bool = False
    ended: bool = False
    status: int | None = None
    exceeded: Exceeded | None = None


class _Files:
    """What connects this process with those in the sandbox: everything is open, until it is closed."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self.spec = self._own(os.memfd_create("sandbox", os.MFD_CLOEXEC))
        self.stdin = self._own(os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        self.life_inside, self.life = self._pipe()
        self.report, self.report_inside = self._pipe()
        self.out, self.out_inside = self._pipe()
        self.err, self.err_inside = self._pipe()

    @property
    def told(self) -> tuple[int, int, int]:
        """SPEC, LIFE and REPORT as the sandbox has them."""
        return self.spec, self.life_inside, self.report_inside

    def close(self, *files: int) -> None:
        """Close these, or all."""
        for file in self._open.intersection(files) if files else set(self._open):
            self._open.remove(file)
            os.close(file)

    def said(self) -> _Said:
        """Return what was reported; everything inside has ended."""
        match os.read(self.report, 4096).decode("ascii").split():
            case ["started", "exit", status]:
                return _Said(started=True, ended=True, status=int(status))
            case ["started", "exceeded", ("processes" | "memory" | "disk") as limit]:
                return _Said(started=True, ended=True, exceeded=limit)
            case words:
                return _Said(started=bool(words))

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        return self._own(ends[0]), self._own(ends[1])

    def _own(self, file: int) -> int:
        self._open.add(file)
        return file


@contextmanager
def _files(job: Job) -> Iterator[_Files]:
    files = _Files()
    try:
        _fill(files.spec, marshal.dumps(dict(job.spec)))
        _fill(files.stdin, job.stdin)
        fcntl.fcntl(files.stdin, fcntl.F_ADD_SEALS, _UNCHANGEABLE)
        yield files
    finally:
        files.close()


def _fill(file: int, data: bytes) -> None:
    """Write a file in memory, to be read from its beginning."""
    with os.fdopen(os.dup(file), "wb") as writing:
        writing.write(data)
    os.lseek(file, 0, os.SEEK_SET)


@asynccontextmanager
async def _started(job: Job, files: _Files) -> AsyncIterator[None]:
    """Start it, and end it for certain."""
    process: Process | None = None
    try:
        with anyio.CancelScope(shield=True):  # between its start and our knowing of it there is no way back
            process = await _start(job, files)
        files.close(*files.told, files.stdin, files.out_inside, files.err_inside)
        yield
    finally:
        files.close(files.life)
        with anyio.CancelScope(shield=True):
            if process is not None:
                await _end(process)


async def _start(job: Job, files: _Files) -> Process:
    try:
        return await anyio.open_process(
            job.command_line(files.told),
            stdin=files.stdin,
            stdout=files.out_inside,
            stderr=files.err_inside,
            env={},
            cwd="/",
            start_new_session=True,
            pass_fds=files.told,
        )
    except OSError as error:
        raise SandboxFailed(job.tier, f"it cannot be started: {error}") from error


async def _end(process: Process) -> None:
    """Kill the sandbox's first process, and with it all others, and wait until the kernel has ended every one.

    The process outside waits for the first, which is gone only when all others are: so it is killed only where there is
    no first yet, or something is very wrong.
    """
    with anyio.move_on_after(_END_SECONDS):
        while process.returncode is None:
            _kill_first(process)
            with anyio.move_on_after(_AGAIN_SECONDS):
                await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


def _kill_first(process: Process) -> None:
    """Kill the only child of the process outside, or that one itself where it has none."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return  # this kernel does not tell, or it ended: the first process ends because its LIFE was closed
    with suppress(ProcessLookupError):
        for pid in [int(child) for child in children] or [process.pid]:
            os.kill(pid, SIGKILL)
