"""``interlock kill`` and ``interlock resume`` on real jobs: what must stop stops, and stays so."""

import os
import signal
from pathlib import Path

import pytest
from tests.cli import Running, agent_pids, alive, descendants, interlock, running
from tests.teams import digest_team, item_of, summary, write_items, write_team
from tests.waiting import eventually

from interlock.protocol.control import AgentScope
from interlock.runtime.killswitch import command
from interlock.runtime.place import Place, open_log
from interlock.testing import Answer, Call, Hang, Reply, ScriptedServer

_STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0 and os.fork() == 0:
    os.setsid()
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
time.sleep(600)
"""
"""Three that ignore SIGTERM; one of them leaves its session. It never ends, so nothing but the kill ends them."""

_LASTING = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
open(sys.argv[1], "a").write(f"{os.getpid()}\\n{child.pid}\\n")
time.sleep(600)
"""
"""A check that does not end, with a child in a session of its own."""


async def _gone(pids: list[int]) -> None:
    await eventually(lambda: not any(alive(pid) for pid in pids), 5)


async def _pids(path: Path, count: int) -> list[int]:
    await eventually(lambda: len(_written(path)) >= count, 30)
    return _written(path)


def _written(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


async def _agents(command: Running, name: str) -> list[int]:
    await eventually(lambda: bool(agent_pids(command.process.pid, name)), 30)
    return agent_pids(command.process.pid, name)


async def test_a_kill_reaches_whoever_does_not_listen(tmp_path: Path) -> None:
    """A stopped worker, a call to the model and children in sessions of their own that ignore SIGTERM: all end."""
    script, pids = tmp_path / "stubborn.py", tmp_path / "pids"
    script.write_text(_STUBBORN)
    check = {"command": ["python3", str(script), str(pids)]}
    write_items(tmp_path, 3)
    team = write_team(tmp_path, digest_team(criteria=[check]))

    def answer(call: Call) -> Reply:
        return Hang() if item_of(call) == 1 else summary(call)

    async with ScriptedServer(answer) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(team), "go", "--json", env=env, cwd=tmp_path) as job:
            stubborn = await _pids(pids, 2)
            family = [*descendants(job.process.pid), *stubborn]
            os.kill((await _agents(job, "reader"))[0], signal.SIGSTOP)
            killed = await interlock("kill", "--team", "digest", "--reason", "it went wrong", cwd=tmp_path)
            done = await job.finish()
        await server.until(lambda seen: bool(seen.clients_left))
    await _gone(family)
    assert killed.status == 0, killed.err
    assert "team digest killed by order 1: it went wrong" in killed.out
    assert done.report["job_id"] in killed.out
    assert done.status == 4, done.err
    assert done.report["status"] == "killed"
    assert "it went wrong" in done.report["reason"]
    assert done.report["tasks"][1]["status"] == "cancelled"


async def test_a_check_does_not_outlive_its_verifier(tmp_path: Path) -> None:
    """Killed by somebody else, a verifier takes its check and the daemons of that along; the next one checks anew."""
    script, pids = tmp_path / "lasting.py", tmp_path / "pids"
    script.write_text(_LASTING)
    write_items(tmp_path, 1)
    team = write_team(tmp_path, digest_team(criteria=[{"command": ["python3", str(script), str(pids)]}]))
    async with ScriptedServer(summary) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(team), "go", "--json", env=env, cwd=tmp_path) as job:
            checks = await _pids(pids, 2)
            os.kill((await _agents(job, "checker"))[0], signal.SIGKILL)
            await _gone(checks)
            again = (await _pids(pids, 4))[2:]
            killed = await interlock("kill", "--all", cwd=tmp_path)
            done = await job.finish()
    await _gone(again)
    assert killed.status == 0, killed.err
    assert done.status == 4, done.err


async def test_what_is_killed_stays_killed_until_it_is_resumed(tmp_path: Path) -> None:
    """A killed team runs no job after every process and the broker were started anew; a resume lets it."""
    write_items(tmp_path, 1)
    team = write_team(tmp_path, digest_team())
    killed = await interlock("kill", "--team", "digest", cwd=tmp_path)
    assert killed.status == 0, killed.err
    async with ScriptedServer(summary) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        refused = await interlock("run", str(team), "go", "--json", env=env, cwd=tmp_path)
        assert (refused.status, refused.out) == (4, "")
        assert "team digest killed by order 1" in refused.err
        assert not server.calls
        everything = await interlock("resume", "--all", cwd=tmp_path)
        assert everything.status == 0, everything.err
        still = await interlock("run", str(team), "go", env=env, cwd=tmp_path)
        assert still.status == 4, "resuming another scope lifts nothing"
        resumed = await interlock("resume", "--team", "digest", cwd=tmp_path)
        assert "team digest resumed by order 3" in resumed.out
        done = await interlock("run", str(team), "go", "--json", env=env, cwd=tmp_path)
    assert done.status == 0, done.err


async def test_a_killed_agent_waits_for_its_resume(tmp_path: Path) -> None:
    """With one agent killed its processes are gone and its tasks wait; resumed, the job goes on to its end."""
    write_items(tmp_path, 40)
    team = write_team(tmp_path, digest_team(parallel=2))

    def slowly(call: Call) -> Answer:
        return summary(call, delay=0.2)

    async with ScriptedServer(slowly) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(team), "go", "--json", env=env, cwd=tmp_path) as job:
            await server.until(lambda seen: bool(seen.calls))
            readers = await _agents(job, "reader")
            async with open_log(Place(tmp_path / ".interlock"), "test") as bus:
                await command(bus, AgentScope(team="digest", agent="reader"), stop=True)
            await _gone(readers)
            await eventually(lambda: not agent_pids(job.process.pid, "reader"), 5)
            seen = len(server.calls)
            assert agent_pids(job.process.pid, "checker")
            assert len(server.calls) == seen < 41
            resumed = await interlock("resume", "--agent", "reader@digest", cwd=tmp_path)
            assert "agent reader@digest resumed by order 2" in resumed.out
            done = await job.finish()
    assert done.status == 0, done.err
    assert len(done.report["tasks"]) == 41


async def test_a_job_that_nobody_runs_is_closed_by_the_kill(tmp_path: Path) -> None:
    """A job whose command died is open in the log; killing it closes it there."""
    write_items(tmp_path, 1)
    team = write_team(tmp_path, digest_team())
    async with ScriptedServer(Hang()) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(team), "go", env=env, cwd=tmp_path) as job:
            await server.until(lambda seen: bool(seen.calls))
            job.process.kill()
            await job.process.wait()
    (name,) = [line.split()[0] for line in (await interlock("jobs", cwd=tmp_path)).out.splitlines()]
    killed = await interlock("kill", "--job", name, cwd=tmp_path)
    assert killed.status == 0, killed.err
    shown = await interlock("show", name, "--json", cwd=tmp_path)
    assert shown.report["status"] == "killed"
    missing = await interlock("kill", "--job", "digest-none", cwd=tmp_path)
    assert missing.status == 2
    assert name in missing.err


@pytest.mark.parametrize("scope", [("--team", "a b"), ("--agent", "reader"), ("--job", "*"), ()])
async def test_a_scope_that_is_none_is_wrong_usage(tmp_path: Path, scope: tuple[str, ...]) -> None:
    """A scope that cannot be meant is refused before anything is written."""
    done = await interlock("kill", *scope, cwd=tmp_path)
    assert (done.status, done.out) == (2, "")
    assert not (tmp_path / ".interlock").exists()


async def test_agents_stop_by_themselves_when_nobody_can_tell(tmp_path: Path) -> None:
    """With the broker frozen and the strict guard, every agent ends although no order could be heard."""
    write_items(tmp_path, 1)
    team = write_team(tmp_path, digest_team())
    async with ScriptedServer(Hang()) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        arguments = ("run", str(team), "go", "--json", "--guard", "strict")
        async with running(*arguments, env=env, cwd=tmp_path) as job:
            await server.until(lambda seen: bool(seen.calls))
            agents = [pid for name in ("manager", "reader", "checker") for pid in agent_pids(job.process.pid, name)]
            (broker,) = [pid for pid in descendants(job.process.pid) if _is_broker(pid)]
            os.kill(broker, signal.SIGSTOP)
            try:
                await _gone(agents)
            finally:
                os.kill(broker, signal.SIGCONT)
            done = await job.finish()
    assert done.status == 4, done.err
    assert "stopped by itself" in done.report["reason"]


def _is_broker(pid: int) -> bool:
    return b"nats-server" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
