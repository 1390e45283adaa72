import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from interlock.agents.checks import command
from interlock.agents.checks.registry import evaluate
from interlock.protocol.base import Json
from interlock.protocol.criteria import CommandCriterion
from interlock.protocol.messages import CriterionVerdict

LEAVES_A_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print(child.pid, file=open(sys.argv[1], "w"), flush=True)
time.sleep(float(sys.argv[2]))
"""


async def run(code: str, *arguments: str, output: Json = None, timeout: float = 20) -> CriterionVerdict:  # noqa: ASYNC109 -- the criterion's own name
    program = (sys.executable, "-c", code, *arguments)
    return await evaluate(CommandCriterion(command=program, timeout=timeout, name="tests"), output)


async def test_the_command_gets_the_output_as_json() -> None:
    """Exit 0 holds, and the command reads the output as JSON from its standard input."""
    code = "import json, sys; sys.exit(json.load(sys.stdin) != {'a': ['é', 1]})"
    found = await run(code, output={"a": ["é", 1]})
    assert (found.criterion, found.holds, found.change) == ("tests", True, "")


async def test_another_exit_fails_and_quotes_the_end() -> None:
    """Any other exit fails; the end of what it printed is the evidence, and no more than its end."""
    code = "import sys; print('beginning' + 'x' * 100_000 + ' the end', file=sys.stderr); sys.exit(3)"
    found = await run(code)
    assert found.holds is False
    assert "exited 3" in found.evidence
    assert found.evidence.endswith('the end"')
    assert "beginning" not in found.evidence
    assert len(found.evidence) < 1000


async def test_what_it_printed_is_quoted_where_it_complains_nowhere_else() -> None:
    """Without anything on standard error, standard output is quoted."""
    assert "two tests failed" in (await run("print('two tests failed'); raise SystemExit(1)")).change


async def test_a_command_that_dies_fails() -> None:
    """A signal that ends the command is no pass."""
    found = await run("import os; os.kill(os.getpid(), 9)")
    assert found.holds is False
    assert "signal 9" in found.evidence


async def test_a_command_need_not_read() -> None:
    """A command that leaves a large input unread is judged by its exit all the same."""
    assert (await run("pass", output="x" * 1_000_000)).holds is True


@pytest.mark.parametrize("program", ["/nonexistent/program", "no-such-program-anywhere", "nul\0byte"])
async def test_a_command_that_cannot_start_is_undecided(program: str) -> None:
    """What never ran decides nothing."""
    found = await evaluate(CommandCriterion(command=(program,)), "x")
    assert found.holds is None
    assert "could not be started" in found.evidence


async def test_no_secret_reaches_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the environment, the command sees the path and the language only."""
    monkeypatch.setenv("INTERLOCK_API_KEY", "secret")
    found = await run("import os; print(sorted(os.environ)); raise SystemExit(1)")
    assert "secret" not in found.evidence
    assert "INTERLOCK" not in found.evidence
    assert "'LANG'" in found.evidence
    assert "'PATH'" in found.evidence


async def test_time_runs_out_for_the_whole_group(tmp_path: Path) -> None:
    """A command that takes too long is ended with all its children, and is undecided."""
    async with child_of(tmp_path) as note:
        begun = time.monotonic()
        found = await run(LEAVES_A_CHILD, str(note), "300", timeout=1.5)
    assert found.holds is None
    assert "more than 1.5 s" in found.evidence
    assert time.monotonic() - begun < 10


async def test_what_a_command_leaves_behind_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that outlives its command, and holds its outputs open, is ended with it; the exit still counts."""
    monkeypatch.setattr(command, "_DRAIN_SECONDS", 60)
    async with child_of(tmp_path) as note:
        with anyio.fail_after(15):
            assert (await run(LEAVES_A_CHILD, str(note), "0")).holds is True


async def test_no_output_fills_the_memory() -> None:
    """Of however much a command prints, only the end is kept while it runs."""

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(100):
            yield bytes([number]) * 1000

    tail = command._Tail()
    await tail.read(chunks())
    assert tail.kept == (b"".join([bytes([number]) * 1000 for number in range(95, 100)]))[-4096:]


async def test_what_leaves_the_group_holds_nothing_up(tmp_path: Path) -> None:
    """A child in a session of its own that keeps the outputs open delays the verdict by about a second, no more."""
    note = tmp_path / "child"
    begun = time.monotonic()
    found = await run(LEAVES_A_CHILD.replace('300)"]', '300)"], start_new_session=True'), str(note), "0", timeout=15)
    os.kill(int(note.read_text(encoding="utf-8")), signal.SIGKILL)
    assert found.holds is True
    assert time.monotonic() - begun < 10


async def test_cancelling_ends_the_command(tmp_path: Path) -> None:
    """A cancelled check leaves no process behind."""
    async with child_of(tmp_path) as note, anyio.create_task_group() as tasks:
        tasks.start_soon(run, LEAVES_A_CHILD, str(note), "300")
        with anyio.fail_after(20):
            await until_written(note)
        tasks.cancel_scope.cancel()


async def test_the_loop_is_not_held_up_by_a_slow_pipe() -> None:
    """A command that writes more than a pipe holds before it reads does not lock up."""
    code = "import sys; sys.stdout.write('x' * 300_000); sys.stdout.flush(); sys.exit(len(sys.stdin.read()) != 500_002)"
    assert (await run(code, output="y" * 500_000)).holds is True


@asynccontextmanager
async def child_of(folder: Path) -> AsyncIterator[Path]:
    """Give the file for the id of a child process that must be gone in the end."""
    note = folder / "child"
    yield note
    pid = int(note.read_text(encoding="utf-8"))
    with anyio.move_on_after(5):
        while is_running(pid):  # noqa: ASYNC110 -- no event tells when a grandchild is gone
            await anyio.sleep(0.01)
    gone = not is_running(pid)
    if not gone:
        os.kill(pid, signal.SIGKILL)
    assert gone, "the child still runs"


async def until_written(note: Path) -> None:
    while not is_written(note):  # noqa: ASYNC110 -- another process writes it
        await anyio.sleep(0.01)


def is_written(note: Path) -> bool:
    return note.exists() and bool(note.read_text(encoding="utf-8").strip())


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
