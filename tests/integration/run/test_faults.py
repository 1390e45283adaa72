"""What happens to a run when something of it dies, or cannot work at all."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path

import anyio
from tests.cli import agent_pids, alive, broker_pid, command_lines, descendants, interlock, kill, read_log, running
from tests.oracle import account_of
from tests.teams import digest_team, summary, write_items, write_team
from tests.waiting import eventually

from interlock.observability.tracing import Tracing
from interlock.protocol.messages import TaskClosed
from interlock.runtime.address import BrokerAddress
from interlock.runtime.broker import embedded_broker, running_broker
from interlock.runtime.bus import Bus
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.credentials import parties_of
from interlock.runtime.place import NAMESPACE
from interlock.runtime.teamfile import load_team
from interlock.testing import Answer, Call, Hang, ScriptedServer

_ITEMS = 240


def _slowly(call: Call) -> Answer:
    return summary(call, delay=0.05)


async def test_broker_manager_and_verifier_may_all_be_killed(tmp_path: Path) -> None:
    """``kill -9`` of the broker, the manager and the verifier, one after the other: nothing is lost or done twice."""
    write_items(tmp_path, _ITEMS)
    team = write_team(tmp_path, digest_team(parallel=16))
    async with ScriptedServer(_slowly) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(team), "go", "--json", env=env, cwd=tmp_path) as command:
            for victim in (broker_pid, _manager, _verifier):
                enough = len(server.calls) + _ITEMS // 5
                await server.until(partial(_was_called, enough))
                kill(victim(command.process.pid))
            done = await command.finish()
    assert done.status == 0, done.err
    outputs = [task["output"] for task in done.report["tasks"] if task["step"] == "summarise"]
    assert outputs == [{"summary": f"item {n}"} for n in range(_ITEMS)]
    account = account_of(await read_log(tmp_path / ".interlock"), "summarise")
    assert len(account.accepted) == _ITEMS
    assert not account.doubled
    assert account.peak <= 16
    assert "Traceback" not in done.err
    for told in ("the broker (process", "manager ended with SIGKILL", "checker-1 ended with SIGKILL"):
        assert told in done.err


def _was_called(times: int, server: ScriptedServer) -> bool:
    return len(server.calls) >= times


def _manager(pid: int) -> int:
    return agent_pids(pid, "manager")[0]


def _verifier(pid: int) -> int:
    return agent_pids(pid, "checker")[0]


async def test_two_managers_on_a_broker_elsewhere(tmp_path: Path) -> None:
    """``--nats`` with keys, two managers at once, inputs of a megabyte: nothing twice, no secret to be seen."""
    write_items(tmp_path, 100)
    team = digest_team(parallel=16)
    team["inputs"] = {"library": {"type": "files"}}
    team["plan"][1]["do"] += " and {{ inputs.library[0].text | length }} characters"
    (tmp_path / "library.txt").write_text("0123456789abcdef" * 65536)
    path = write_team(tmp_path, team)
    broker = embedded_broker(tmp_path / "elsewhere", parties=parties_of([load_team(path).team]))
    async with ScriptedServer(_while_managers_start) as server, broker as address:
        keys = tmp_path / "elsewhere" / "keys"
        env = {"INTERLOCK_MODEL_URL": server.url, "INTERLOCK_NATS": address.url, "INTERLOCK_NATS_KEYS": str(keys)}
        env |= {"INTERLOCK_LOG": "debug"}
        arguments = ("run", str(path), "go", "--json", "--input", "library=library.txt")
        async with _second_manager(address), running(*arguments, env=env, cwd=tmp_path) as command:
            await command.until("job digest-")
            seen = command_lines(command.process.pid)
            done = await command.finish()
        log = await read_log(address)
        listed = await interlock("jobs", env=env, cwd=tmp_path)
    assert done.status == 0, done.err
    account = account_of(log, "summarise")
    assert len(account.accepted) == 100
    assert not account.doubled
    deciders = {entry.message.id.startswith("second-") for entry in log if isinstance(entry.message, TaskClosed)}
    assert deciders == {True, False}, "both took part"
    assert "and 1048576 characters" in server.calls[-1].prompt
    assert done.report["job_id"] in listed.out
    assert not (tmp_path / ".interlock").exists()
    secrets = [path.read_text().strip() for path in keys.glob("*.nk")]
    assert len(secrets) == 4
    assert len(seen) >= 4
    assert not any(secret in text for secret in secrets for text in (*seen, done.err, done.out))


def _while_managers_start(call: Call) -> Answer:
    return summary(call, delay=0.3)


@asynccontextmanager
async def _second_manager(address: BrokerAddress) -> AsyncIterator[None]:
    numbers = count()
    async with Bus.connect(address, NAMESPACE, "second manager") as bus, anyio.create_task_group() as group:
        group.start_soon(Coordinator(bus, Tracing(), new_id=lambda: f"second-{next(numbers)}").run)
        yield
        group.cancel_scope.cancel()


async def test_agents_that_cannot_start_end_the_run(tmp_path: Path) -> None:
    """A broken environment of the workers is told in a line; exit 1, and the job is killed in the log."""
    write_items(tmp_path, 1)
    team = write_team(tmp_path, digest_team())
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "aiohttp.py").write_text("raise ImportError('no such luck')")
    source = Path(__file__).parents[3] / "src"
    async with ScriptedServer("never asked") as server:
        env = {"INTERLOCK_MODEL_URL": server.url, "PYTHONPATH": f"{tmp_path / 'broken'}:{source}"}
        done = await interlock("run", str(team), "go", "--json", "--workers", "1", env=env, cwd=tmp_path)
    assert (done.status, done.out) == (1, "")
    last = done.err.splitlines()[-1]
    assert last.startswith("interlock: reader-1 ended 3 times in a row, the last time with exit status 1")
    assert "no such luck" in last
    assert "Traceback" not in done.err
    listed = await interlock("jobs", cwd=tmp_path)
    assert "killed" in listed.out


async def test_early_ctrl_c_and_a_folder_in_use(tmp_path: Path) -> None:
    """Ctrl-C before any agent is ready ends all within a second; a folder in use is told, and can be read."""
    write_items(tmp_path, 1)
    team = str(write_team(tmp_path, digest_team()))
    async with ScriptedServer(Hang()) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", team, "go", "--json", env=env, cwd=tmp_path) as command:
            await command.until("job digest-")
            family = descendants(command.process.pid)
            command.process.send_signal(signal.SIGINT)
            early = await command.finish()
        assert early.status == 4, early.err
        assert early.report["reason"] == "interrupted by SIGINT"
        assert not [pid for pid in family if alive(pid)]

        async with running("run", team, "go", "--json", env=env, cwd=tmp_path) as command:
            await server.until(lambda seen: bool(seen.calls))
            refused = await interlock("run", team, "go", env=env, cwd=tmp_path)
            assert refused.status == 1
            assert str(command.process.pid) in refused.err
            assert "Traceback" not in refused.err
            listed = await interlock("jobs", cwd=tmp_path)
            assert "running" in listed.out
            family = descendants(command.process.pid)
            began = anyio.current_time()
            command.process.send_signal(signal.SIGTERM)
            done = await command.finish()
            took = anyio.current_time() - began
        assert done.status == 4
        assert done.report["reason"] == "interrupted by SIGTERM"
        assert not [pid for pid in family if alive(pid)]
        assert took < 3, "a second, and some for a machine that has a lot else to do"
        assert running_broker(tmp_path / ".interlock") is None


async def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    """Asked twice, the command is gone at once and takes everything with it, also agents that do not listen."""
    write_items(tmp_path, 1)
    team = str(write_team(tmp_path, digest_team()))
    async with ScriptedServer(Hang()) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", team, "go", "--json", env=env, cwd=tmp_path) as command:
            await server.until(lambda seen: bool(seen.calls))
            family = descendants(command.process.pid)
            for pid in agent_pids(command.process.pid, ""):
                os.kill(pid, signal.SIGSTOP)
            command.process.send_signal(signal.SIGINT)
            await anyio.sleep(0.05)  # two signals at once would be one
            command.process.send_signal(signal.SIGINT)
            done = await command.finish()
        assert (done.status, done.out) == (4, "")
        await eventually(lambda: not any(alive(pid) for pid in family), 5)


async def test_nobody_reads_the_report(tmp_path: Path) -> None:
    """With the reader of the output gone (``| head -1``) the job runs to its end and nothing complains."""
    write_items(tmp_path, 1)
    team = str(write_team(tmp_path, digest_team()))
    async with ScriptedServer(summary) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", team, "go", "--json", env=env, cwd=tmp_path) as command:
            assert command.process.stdout is not None
            await command.process.stdout.aclose()
            done = await command.finish()
    assert done.status == 0
    assert "Error" not in done.err
    assert "Traceback" not in done.err
