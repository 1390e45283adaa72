"""Whether a command accepts an output: it runs without a shell, with little environment, and always ends."""

import os
import signal
from collections.abc import AsyncIterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio
from anyio.abc import ByteSendStream, Process

from interlock.agents.checks.finding import Finding, failed, held, quoted, undecided
from interlock.backends._tether import SUPERVISED, tethered
from interlock.protocol.base import Json, canonical_json
from interlock.protocol.criteria import CommandCriterion

__all__ = ["check_command"]

_KEPT = 4096
"""How many bytes of the end of each output are kept."""
_QUOTED = 500
_DRAIN_SECONDS = 1.0
"""How long the outputs may stay open after the command ended: something that left its process group can hold them."""


async def check_command(criterion: CommandCriterion, output: Json) -> Finding:
    """Return whether the command exits 0 with ``output`` as JSON on its standard input.

    It gets ``PATH`` and ``LANG`` and nothing else of the environment that could tell it anything. It and all processes
    of its group are killed when it ends, when its time is up and when this is cancelled; it dies with this process
    (Linux). Undecided where it cannot start or does not end.
    """
    program = quoted(criterion.command[0])
    stdin = canonical_json(output).encode("utf-8", "replace")
    try:
        with anyio.fail_after(criterion.timeout):
            ended = await _run(criterion.command, stdin)
    except TimeoutError:
        return undecided(f"the command {program} took more than {criterion.timeout:g} s and was ended")
    except (OSError, ValueError) as problem:
        return undecided(f"the command {program} could not be started: {problem}")
    if ended.code == 0:
        return held(f"the command {program} exited 0{ended.said}")
    how = f"was ended by signal {-ended.code}" if ended.code < 0 else f"exited {ended.code}"
    return failed(f"the command {program} {how}{ended.said}", f"Make the command {program} accept it{ended.said}.")


@dataclass(frozen=True, slots=True)
class _Ended:
    code: int
    """The exit code; negative: the signal that ended it."""
    said: str
    """The end of what it printed, ready to follow other words; empty where it printed nothing."""


async def _run(command: Sequence[str], stdin: bytes) -> _Ended:
    """Run the command to its end; whatever happens, nothing of its process group is left afterwards."""
    out, err = _Tail(), _Tail()
    process, problem = await _start(command)
    try:
        await _raise(problem, command[0])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_feed, process.stdin, stdin)
            tasks.start_soon(out.read, process.stdout)
            tasks.start_soon(err.read, process.stderr)
            await process.wait()
            _kill_group(process)
            tasks.cancel_scope.deadline = anyio.current_time() + _DRAIN_SECONDS
    finally:
        os.close(problem)
        _kill_group(process)
        with anyio.CancelScope(shield=True):
            await process.aclose()
    return _Ended(-signal.SIGKILL if process.returncode is None else process.returncode, _said(err.kept or out.kept))


async def _start(command: Sequence[str]) -> tuple[Process, int]:
    """Start the command so that it dies with this process; return also where it is read why it could not be run."""
    problem, told = os.pipe()
    try:
        process = await anyio.open_process(
            tethered(command, told), env=_environment(), start_new_session=True, pass_fds=(told,)
        )
    except BaseException:
        os.close(problem)
        raise
    finally:
        os.close(told)
    return process, problem


async def _raise(problem: int, program: str) -> None:
    """Wait until a command runs.

    :raises OSError: it cannot
    """
    await anyio.wait_readable(problem)
    if number := os.read(problem, 16):
        raise OSError(int(number), os.strerror(int(number)), program)


def _environment() -> dict[str, str]:
    """Return what a command gets to know, and the mark by which it is found when this process is gone."""
    kept = {"PATH": os.environ.get("PATH", os.defpath), "LANG": os.environ.get("LANG", "C.UTF-8")}
    return kept | {name: os.environ[name] for name in (SUPERVISED,) if name in os.environ}


def _kill_group(process: Process) -> None:
    """Kill every process of the group that the command leads; there may be none left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


async def _feed(stream: ByteSendStream | None, data: bytes) -> None:
    """Send ``data`` and close; a command need not read it."""
    if stream is not None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await stream.send(data)
        await stream.aclose()


@dataclass(slots=True)
class _Tail:
    """The end of a stream."""

    kept: bytes = b""

    async def read(self, stream: AsyncIterable[bytes] | None) -> None:
        if stream is not None:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                async for chunk in stream:
                    self.kept = (self.kept + chunk)[-_KEPT:]


def _said(tail: bytes) -> str:
    text = tail.decode("utf-8", "replace").strip()
    return f"; it printed {quoted(text[-_QUOTED:], _QUOTED)}" if text else ""
