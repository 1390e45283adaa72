"""The supervisor with processes that behave in every bad way: stand-ins for ``interlock.runtime.process``."""

import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest
from tests.cli import alive, command_lines
from tests.waiting import eventually

from interlock.runtime import supervisor as supervising
from interlock.runtime.config import BrokerLogin, ProcessConfig
from interlock.runtime.failures import first_error
from interlock.runtime.supervisor import AgentProcessFailed, supervised

READY = "import sys, os, time, signal; sys.stdin.read(); print('ready', flush=True); "
"""How a stand-in begins that gets ready."""


def config(name: str = "a") -> ProcessConfig:
    login = BrokerLogin(url="nats://127.0.0.1:1", user="u", password="geheim")
    return ProcessConfig(kind="manager", name=name, ns="n", broker=login)


@pytest.fixture
def behaving(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Return a function that gives the environment in which agent processes run ``source``."""

    def environment(source: str) -> dict[str, str]:
        package = tmp_path / "stand-in" / "interlock" / "runtime"
        package.mkdir(parents=True)
        for folder in (package, package.parent):
            (folder / "__init__.py").touch()
        (package / "process.py").write_text(source)
        return {**os.environ, "PYTHONPATH": str(tmp_path / "stand-in")}

    return environment


@asynccontextmanager
async def failing(configs: Sequence[ProcessConfig], environment: dict[str, str]) -> AsyncIterator[None]:
    """Raise what ends the supervision, free of its group."""
    try:
        async with supervised(configs, environment):
            yield
    except ExceptionGroup as group:
        raise first_error(group) from None


async def test_a_process_that_dies_before_it_is_ready_is_given_up(behaving: Callable[[str], dict[str, str]]) -> None:
    """After three deaths in a row the supervision ends, with the last words of the process in the error."""
    environment = behaving("import sys; sys.exit('no\\nsuch luck')")
    with pytest.raises(AgentProcessFailed) as failed, anyio.fail_after(20):
        async with failing([config()], environment):
            await anyio.sleep_forever()
    assert failed.value.returncode == 1
    assert failed.value.output[-1] == "such luck"
    assert "a ended 3 times in a row, the last time with exit status 1" in str(failed.value)
    assert "geheim" not in str(failed.value)


async def test_a_process_that_others_kill_before_it_is_ready_is_not_given_up(
    tmp_path: Path, behaving: Callable[[str], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed by others in each of its first four starts, a process is at no fault and is started once more."""
    monkeypatch.setattr(supervising, "_BACKOFF", (0.01,))
    lives = tmp_path / "lives"
    count = f"lives = open({str(lives)!r}, 'a+'); lives.write('x\\n'); lives.flush(); lives.seek(0); "
    die = "len(lives.read()) < 10 and os.kill(os.getpid(), signal.SIGKILL)"
    source = f"import os, signal; {count}{die}\n{READY}time.sleep(60)"
    async with supervised([config()], behaving(source)) as supervisor:
        await eventually(lambda: "a" in supervisor.ready, 20)
    assert len(lives.read_text().split()) == 5


async def test_a_process_that_fails_right_after_it_was_ready_is_given_up(
    behaving: Callable[[str], dict[str, str]],
) -> None:
    """Ready and then failed, again and again, is no better than never ready."""
    with pytest.raises(AgentProcessFailed, match="exit status 7"), anyio.fail_after(20):
        async with failing([config()], behaving(READY + "sys.exit(7)")):
            await anyio.sleep_forever()


async def test_a_process_that_never_gets_ready_is_killed(
    behaving: Callable[[str], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence is bounded: a process that hangs before it is ready is killed, and in the end given up."""
    monkeypatch.setattr(supervising, "_READY_SECONDS", 0.3)
    with pytest.raises(AgentProcessFailed, match="SIGTERM"), anyio.fail_after(20):
        async with failing([config()], behaving("import time; time.sleep(100)")):
            await anyio.sleep_forever()


async def test_a_process_that_is_killed_comes_back(behaving: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    """However often somebody kills it once it was ready, it is started again: that is not its fault."""
    lives = tmp_path / "lives"
    source = READY + f"open({str(lives)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(100)"
    async with supervised([config()], behaving(source)) as supervisor:
        for number in range(1, 5):
            await eventually(partial(_has_lines, lives, number), 20)
            os.kill(supervisor.pids["a"], signal.SIGKILL)
    pids = [int(line) for line in lives.read_text().split()]
    assert len(set(pids)) == len(pids) >= 4
    assert not any(alive(pid) for pid in pids)


def _has_lines(path: Path, number: int) -> bool:
    return path.exists() and path.read_text().count("\n") >= number


async def test_what_holds_the_outputs_holds_nothing_up(
    behaving: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    """A process left another behind, in a session of its own, with its outputs open: that is killed, and it goes on."""
    source = READY + (
        "import subprocess; child = subprocess.Popen(['sleep', '60'], start_new_session=True); "
        f"open({str(tmp_path / 'pids')!r}, 'a').write(f'{{child.pid}} '); os.kill(os.getpid(), signal.SIGKILL)"
    )
    left = tmp_path / "pids"
    async with supervised([config()], behaving(source)):
        await eventually(lambda: left.exists() and len(left.read_text().split()) >= 2, 20)
        first, *_ = left.read_text().split()
        await eventually(lambda: not alive(int(first)), 5)
    await eventually(lambda: not any(alive(int(pid)) for pid in left.read_text().split()), 5)


async def test_leaving_ends_also_who_does_not_listen(behaving: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    """Processes that ignore SIGTERM are killed with their children, and leaving takes about the grace."""
    source = READY + (
        "import subprocess; signal.signal(signal.SIGTERM, signal.SIG_IGN); child = subprocess.Popen(['sleep', '60']); "
        f"open({str(tmp_path)!r} + f'/{{os.getpid()}}', 'w').write(str(child.pid)); time.sleep(100)"
    )
    async with supervised([config("a"), config("b")], behaving(source)) as supervisor:
        await eventually(lambda: len(supervisor.pids) == 2, 20)
        pids = list(supervisor.pids.values())
        await eventually(lambda: all(_written(tmp_path / str(pid)) for pid in pids), 20)
        pids += [int((tmp_path / str(pid)).read_text()) for pid in pids]
        began = time.monotonic()
    assert time.monotonic() - began < 3
    await eventually(lambda: not any(alive(pid) for pid in pids), 5)


def _written(path: Path) -> bool:
    return path.exists() and bool(path.read_text())


async def test_much_output_is_passed_on_in_bounded_lines(
    behaving: Callable[[str], dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    """A megabyte without an end of line, and output after being ready, hold nothing up and are not piled up."""
    source = READY + "sys.stderr.write('x' * 1_000_000 + '\\nthe end'); sys.stdout.write('y' * 1_000_000); sys.exit(3)"
    with caplog.at_level(logging.WARNING), pytest.raises(AgentProcessFailed), anyio.fail_after(20):
        async with failing([config()], behaving(source)):
            await anyio.sleep_forever()
    passed_on = [record.getMessage() for record in caplog.records if record.getMessage().startswith("a: ")]
    assert sum(line.count("x") for line in passed_on) == 3_000_000
    assert max(map(len, passed_on)) < 150_000
    assert passed_on.count("a: the end") == 3, "an unfinished last line is told too"


async def test_cancelled_while_starting_leaves_no_process(behaving: Callable[[str], dict[str, str]]) -> None:
    """A supervision that is left at once leaves nothing behind."""
    environment = behaving("import sys, time; sys.stdin.read(); time.sleep(100)")
    for pause in range(12):
        async with supervised([config(f"a{n}") for n in range(3)], environment):
            await anyio.sleep(pause / 1000)
        assert not [line for line in command_lines(os.getpid()) if "interlock.runtime.process" in line]


TOLD = (
    "import sys, os, time; config = sys.stdin.readline(); print('ready', flush=True); "
    "words = (line.split() for line in iter(sys.stdin.readline, '') if line[0].isalpha()); "
)
"""How a stand-in begins that hears what it is told, lines of its lease left out."""


async def test_processes_are_told_what_they_are_to_do(
    behaving: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    """What is in hand is heard, a killed job is told once, and who ends when it is told to drain is not run again."""
    heard = tmp_path / "heard"
    source = TOLD + (
        "print('hand 3', flush=True); out = open(" + repr(str(heard)) + ", 'a', buffering=1)\n"
        "for word in words:\n"
        "    print(*word, file=out)\n"
        "    if word[0] == 'kill': print('dropped', word[1], flush=True)\n"
        "    if word == ['drain']: break\n"
    )
    async with supervised([config()], behaving(source), lease=60) as supervisor:
        await eventually(lambda: supervisor.in_hand == 3, 20)
        pid = supervisor.pids["a"]
        supervisor.kill_jobs(frozenset({"one"}))
        supervisor.kill_jobs(frozenset({"one", "two"}))
        supervisor.renew(time.monotonic() + 90)
        await eventually(lambda: heard.exists() and "two" in heard.read_text(), 20)
        supervisor.kill_jobs(frozenset({"two"}))
        with anyio.fail_after(20):
            supervisor.drain()
            await supervisor.drained()
        assert (supervisor.pids["a"], alive(pid), supervisor.in_hand) == (pid, False, 0)
    assert heard.read_text().splitlines() == ["kill one", "kill two", "spare one", "drain"]


async def test_who_does_not_let_go_of_a_killed_job_is_killed(
    behaving: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    """A process that says nothing of a killed job ends with all below it, and the next one is told of it too."""
    heard = tmp_path / "heard"
    source = TOLD + (
        f"[open({str(heard)!r}, 'a').write(f'{{os.getpid()}} ' + ' '.join(word) + chr(10)) for word in words]"
    )
    async with supervised([config()], behaving(source), lease=60) as supervisor:
        await eventually(lambda: "a" in supervisor.ready, 20)
        pid, told = supervisor.pids["a"], time.monotonic()
        supervisor.kill_jobs(frozenset({"one"}))
        await eventually(lambda: not alive(pid), 20)
        assert time.monotonic() - told < 1
        await eventually(lambda: heard.exists() and len(heard.read_text().splitlines()) == 2, 20)
        second = supervisor.pids["a"]
    assert heard.read_text().splitlines() == [f"{pid} kill one", f"{second} kill one"]
    assert second != pid


async def test_whatever_is_held_is_drained(behaving: Callable[[str], dict[str, str]]) -> None:
    """What does not run because it is held has nothing to end; and while everything is held, nothing is started."""
    source = TOLD + "print('hand 2', flush=True); list(words)"
    async with supervised([config("a"), config("b")], behaving(source), lease=60) as supervisor:
        await eventually(lambda: supervisor.in_hand == 4, 20)
        pids = supervisor.pids
        supervisor.hold(None)
        await eventually(lambda: not any(alive(pid) for pid in pids.values()), 5)
        await eventually(lambda: (supervisor.ready, supervisor.in_hand) == (set(), 0), 5)
        with anyio.fail_after(5):
            supervisor.drain()
            await supervisor.drained()
        assert supervisor.pids == pids
