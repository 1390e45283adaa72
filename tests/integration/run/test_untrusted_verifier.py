"""A verifier that crashes, hangs or answers nonsense never leads to an accepted task."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.cli import Finished, agent_pids, interlock, read_log, running
from tests.oracle import account_of
from tests.teams import digest_team, item_of, summary, write_items, write_team

from interlock.testing import Answer, Call, Fail, Hang, HangUp, Malformed, Reply, ScriptedServer

_JUDGE = [{"judge": "The summary names its item."}]


def _team(folder: Path, criteria: list[dict[str, Any]], items: int, **step: Any) -> Path:
    write_items(folder, items)
    team = digest_team(criteria=criteria)
    team["plan"][0] |= step
    return write_team(folder, team)


def _is_judge(call: Call) -> bool:
    return "Judge c1" in call.prompt


async def _nothing_accepted(folder: Path, done: Finished) -> None:
    assert done.status == 1, done.err
    assert {task["status"] for task in done.report["tasks"]} <= {"failed", "cancelled"}
    account = account_of(await read_log(folder / ".interlock"), "summarise")
    assert not account.accepted


_MISBEHAVIOUR: tuple[Reply, ...] = (
    Answer("Certainly! It all looks fine to me."),
    Answer('{"c1": {"holds": "maybe", "evidence": "", "change": ""}}'),
    Answer('{"c2": {"holds": true, "evidence": "not asked for", "change": ""}}'),
    Answer("{}"),
    Malformed("<html>502</html>"),
    HangUp(),
    Fail(400),
    Hang(),
)


async def test_a_judge_without_a_clear_verdict_accepts_nothing(tmp_path: Path) -> None:
    """A judge that fails, hangs or answers nonsense, each in its own way, leaves every task unaccepted."""
    team = _team(tmp_path, _JUDGE, len(_MISBEHAVIOUR), timeout=2, attempts=1)

    def misbehave(call: Call) -> Reply:
        item = item_of(call)
        return _MISBEHAVIOUR[item] if _is_judge(call) and item is not None else summary(call)

    async with ScriptedServer(misbehave) as server:
        done = await interlock("run", str(team), "go", "--json", env={"INTERLOCK_MODEL_URL": server.url}, cwd=tmp_path)
    await _nothing_accepted(tmp_path, done)
    verdicts = [verdict for task in done.report["tasks"] for verdict in task["verdicts"]]
    assert [verdict["verdict"] for verdict in verdicts] == ["uncertain"] * len(_MISBEHAVIOUR)


@pytest.mark.timeout(360)
async def test_a_verifier_that_crashes_over_every_result_accepts_nothing(tmp_path: Path) -> None:
    """A result that kills its verifier again and again ends as uncertain, not as passed."""
    suicide = [{"command": ["sh", "-c", "kill -9 $PPID"]}]
    team = _team(tmp_path, suicide, 1, attempts=1)
    async with ScriptedServer(summary) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(team), "go", "--json", env=env, cwd=tmp_path) as command:
            done = await command.finish(seconds=240)  # twenty deaths, each of which is noticed after five seconds
    await _nothing_accepted(tmp_path, done)


async def test_a_verifier_that_stands_still_accepts_nothing(tmp_path: Path) -> None:
    """With the verifier stopped (SIGSTOP) the job ends at its deadline, with nothing accepted."""
    team = digest_team()
    team["budget"] = {"seconds": 6}
    write_items(tmp_path, 2)
    path = write_team(tmp_path, team)
    async with ScriptedServer(summary) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(path), "go", "--json", env=env, cwd=tmp_path) as command:
            await command.until("job digest-")
            while not (pids := agent_pids(command.process.pid, "checker")):
                await command.news.wait()
            os.kill(pids[0], signal.SIGSTOP)
            done = await command.finish()
    await _nothing_accepted(tmp_path, done)
    assert "out of time" in done.report["reason"]
