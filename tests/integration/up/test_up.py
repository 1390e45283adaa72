"""Teams that are kept up, over real processes: submitted to, watched, killed, brought up again, listed."""

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cli import Running, agent_pids, alive, descendants, interlock, kill, read_log, running
from tests.killable_broker import KillableBroker
from tests.oracle import Account, account_of
from tests.teams import digest_team, summary, write_items, write_team
from tests.waiting import eventually

from interlock.protocol.messages import JobSubmitted
from interlock.protocol.team import Budget
from interlock.testing import Answer, Call, ScriptedServer

pytestmark = pytest.mark.timeout(300)

_ITEMS = 60


def slowly(call: Call) -> Answer:
    """Answer after a moment, so that there is a middle of the job."""
    return summary(call, delay=0.15)


@pytest.fixture
def team(tmp_path: Path) -> Path:
    write_items(tmp_path, _ITEMS)
    return write_team(tmp_path, digest_team(parallel=8))


@asynccontextmanager
async def up(folder: Path, model: str, *arguments: str) -> AsyncIterator[Running]:
    """Run ``interlock up`` in ``folder`` until everything is ready."""
    async with running("up", *arguments, env={"INTERLOCK_MODEL_URL": model}, cwd=folder) as command:
        await command.until("is up\n")
        await command.until("node ")
        yield command


def whole(report: dict[str, Any]) -> bool:
    """Whether a report has the answer to every item."""
    found = [task["output"] for task in report["tasks"] if task["step"] == "summarise"]
    return found == [{"summary": f"item {n}"} for n in range(_ITEMS)]


async def account_of_job(folder: Path, job: str) -> Account:
    """Return what the log says of the items of a job."""
    entries = await read_log(folder / ".interlock")
    return account_of([entry for entry in entries if entry.message.job == job], "summarise")


async def test_a_team_that_is_up_does_what_is_submitted(tmp_path: Path, team: Path) -> None:
    """Jobs are done one after the other and side by side; the same id is the same job; SIGTERM ends all in order."""
    async with ScriptedServer(summary) as server, up(tmp_path, server.url, str(team)) as command:
        done = await interlock("submit", str(team), "go", "--watch", "--json", cwd=tmp_path)
        assert (done.status, done.report["status"]) == (0, "succeeded"), done.err
        assert whole(done.report)
        calls = len(server.calls)
        first = await interlock(
            "submit", str(team), "go", "--id", "mine", "--priority", "high", "--budget", "calls=500", cwd=tmp_path
        )
        assert first.out == "mine\n"
        again = await interlock("submit", str(team), "go", "--id", "mine", cwd=tmp_path)
        assert (again.status, again.out) == (0, "mine\n")
        assert "submitted before" in again.err
        other = await interlock("submit", str(team), "something else", "--id", "mine", cwd=tmp_path)
        assert (other.status, other.out) == (2, "")
        assert "was submitted before with another goal" in other.err
        watched = await interlock("watch", "mine", "--json", cwd=tmp_path)
        assert (watched.status, whole(watched.report)) == (0, True), watched.err
        assert len(server.calls) == 2 * calls
        nodes = json.loads((await interlock("nodes", "--json", cwd=tmp_path)).out)
        assert [{one["role"]: one["slots"] for one in node["serves"]} for node in nodes] == [
            {"manager": 0, "reader@digest": 8, "checker@digest": 8}
        ]
        assert "reader@digest" in (await interlock("nodes", cwd=tmp_path)).out
        below = descendants(command.process.pid)
        command.process.send_signal(signal.SIGTERM)
        ended = await command.finish()
    assert ended.status == 0, ended.err
    assert "job mine of digest began: go" in ended.err
    assert "job mine succeeded after" in ended.err
    assert "ended: nothing is left in hand" in ended.err
    assert not any(alive(pid) for pid in below)
    account = await account_of_job(tmp_path, "mine")
    assert (len(account.accepted), account.doubled) == (_ITEMS, [])
    [given] = [one.message for one in await read_log(tmp_path / ".interlock") if one.message.job == "mine"][:1]
    assert isinstance(given, JobSubmitted)
    assert (given.priority, given.budget) == ("high", Budget(calls=500))


async def test_what_was_killed_goes_on_where_it_was(tmp_path: Path, team: Path) -> None:
    """``kill -9`` of all in the middle of a job, and ``up`` again: the job ends whole, and nothing is in it twice."""
    async with ScriptedServer(slowly) as server:
        async with up(tmp_path, server.url, str(team)) as command:
            await interlock("submit", str(team), "go", "--id", "j", cwd=tmp_path)
            await server.until(lambda seen: len(seen.calls) >= _ITEMS // 3)
            below = descendants(command.process.pid)
            kill(command.process.pid)
            await command.process.wait()
        await eventually(lambda: not any(alive(pid) for pid in below), 10)
        async with up(tmp_path, server.url, str(team)) as command:
            await command.until("job j is open and goes on")
            done = await interlock("watch", "j", "--json", cwd=tmp_path)
            assert (done.status, whole(done.report)) == (0, True), done.err
        calls = len(server.calls)
    account = await account_of_job(tmp_path, "j")
    assert (len(account.accepted), account.doubled) == (_ITEMS, [])
    assert calls <= _ITEMS + 1 + 8, "only what was in hand is asked again"


async def test_an_order_ends_a_job_and_leaves_the_others(tmp_path: Path, team: Path) -> None:
    """A killed job is closed at once and asks no model any more; another job and the team go on."""
    stuck: set[str] = set()

    def answer(call: Call) -> Answer:
        if "slow" in call.conversation:
            stuck.add(call.conversation)
            return summary(call, delay=60)
        return summary(call)

    plan = digest_team(parallel=8)
    plan["plan"][0]["do"] = "Answer item {{ item.n }}. {{ goal }}"
    write_team(tmp_path, plan)
    async with ScriptedServer(answer) as server, up(tmp_path, server.url, str(team)) as command:
        await interlock("submit", str(team), "slow", "--id", "bad", cwd=tmp_path)
        await eventually(lambda: len(stuck) >= 8)
        workers = agent_pids(command.process.pid, "reader")
        killed = await interlock("kill", "--job", "bad", "--reason", "no", cwd=tmp_path)
        assert killed.status == 0, killed.err
        done = await interlock("watch", "bad", "--json", cwd=tmp_path)
        assert (done.status, done.report["status"]) == (4, "killed")
        assert len(stuck) == 8
        fine = await interlock("submit", str(team), "go", "--watch", "--json", cwd=tmp_path)
        assert (fine.status, whole(fine.report)) == (0, True), fine.err
        assert agent_pids(command.process.pid, "reader") == workers, "no process had to end for that"
        refused = await interlock("submit", str(team), "slow", "--id", "bad", cwd=tmp_path)
        assert refused.status == 4


async def test_an_order_holds_a_team_until_it_is_resumed(tmp_path: Path, team: Path) -> None:
    """The processes of a killed team end and its jobs are refused; resumed, it does the next job."""
    async with ScriptedServer(summary) as server, up(tmp_path, server.url, str(team)) as command:
        workers = agent_pids(command.process.pid, "reader")
        await interlock("kill", "--team", "digest", cwd=tmp_path)
        await eventually(lambda: not any(alive(pid) for pid in workers), 5)
        refused = await interlock("submit", str(team), "go", cwd=tmp_path)
        assert (refused.status, refused.out) == (4, "")
        await interlock("resume", "--team", "digest", cwd=tmp_path)
        await command.until("reader@digest is resumed")
        done = await interlock("submit", str(team), "go", "--watch", "--json", cwd=tmp_path)
        assert (done.status, whole(done.report)) == (0, True), done.err


async def test_what_cannot_be_is_said_in_a_line(tmp_path: Path, team: Path) -> None:
    """Nothing is watched where nobody is up; a job waits for who will be; no machine is listed that is not there."""
    nobody = await interlock("submit", str(team), "go", "--watch", cwd=tmp_path)
    assert (nobody.status, nobody.out) == (2, "")
    assert "nothing is up on" in nobody.err
    submitted = await interlock("submit", str(team), "go", "--id", "early", cwd=tmp_path)
    assert (submitted.status, submitted.out) == (0, "early\n")
    assert "no manager is up now" in submitted.err
    assert (await interlock("watch", "early", cwd=tmp_path)).status == 2
    unknown = await interlock("watch", "nosuch", cwd=tmp_path)
    assert (unknown.status, "no job 'nosuch'" in unknown.err) == (2, True)
    assert "no machine is up" in (await interlock("nodes", cwd=tmp_path)).err
    unnamed = await interlock("worker", str(team), cwd=tmp_path)
    assert (unnamed.status, "--nats URL" in unnamed.err) == (2, True)
    twice = await interlock("up", str(team), str(team), cwd=tmp_path)
    assert (twice.status, "two of the team files define the team digest" in twice.err) == (2, True)
    async with ScriptedServer(summary) as server, up(tmp_path, server.url, str(team)):
        done = await interlock("watch", "early", "--json", cwd=tmp_path)
        assert (done.status, whole(done.report)) == (0, True), done.err


async def test_who_cannot_hear_of_orders_rests(tmp_path: Path, team: Path, killable_broker: KillableBroker) -> None:
    """Cut off for longer than its guard, a machine ends all that it runs, and goes on once the broker is back."""
    key = str(tmp_path / "killable" / "keys" / "operator.nk")
    there = ("--nats", killable_broker.address.url, "--nats-keys", key)
    async with (
        ScriptedServer(slowly) as server,
        up(tmp_path, server.url, str(team), "--guard", "strict", *there) as command,
    ):
        await interlock("submit", str(team), "go", "--id", "j", *there, cwd=tmp_path)
        await server.until(lambda seen: len(seen.calls) >= 8)
        workers = agent_pids(command.process.pid, "")
        await killable_broker.kill()
        await command.until("stopped by itself")
        await eventually(lambda: not any(alive(pid) for pid in workers), 5)
        await killable_broker.restart()
        await command.until("orders can be heard again")
        done = await interlock("watch", "j", "--json", *there, cwd=tmp_path)
        assert done.status == 0, done.err
        assert whole(done.report)
        command.process.send_signal(signal.SIGTERM)
        assert (await command.finish()).status == 0
