"""Jobs with budgets, as they run: real processes, some of them killed, and a model server that counts."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tests.cli import Finished, agent_pids, broker_pid, interlock, kill, running
from tests.teams import digest_team, item_of, write_items, write_team

from interlock.testing import Answer, Call, ScriptedServer

pytestmark = pytest.mark.timeout(240)

_CRITERIA: list[dict[str, Any]] = [
    {"check": "contains", "field": "summary", "all": ["item"]},
    {"judge": "It is about its item."},
]


def _answers(call: Call) -> Answer:
    """Answer workers and judges, late enough that many requests are under way when a process dies."""
    if _is_judged(call):
        return Answer({"c1": {"evidence": "it is", "holds": True, "change": ""}}, delay=0.02)
    return Answer({"summary": f"item {item_of(call)}"}, delay=0.1, prompt_tokens=60, completion_tokens=40)


def _is_judged(call: Call) -> bool:
    return call.schema is not None and "c1" in str(call.schema)


def _team(folder: Path, items: int, budget: dict[str, Any], **more: Any) -> Path:
    """Write a team of one step that is judged, with 64 items at work at once."""
    write_items(folder, items)
    team = digest_team(parallel=64, criteria=more.pop("criteria", _CRITERIA))
    team["plan"] = [team["plan"][0] | more]
    return write_team(folder, {**team, "budget": budget})


async def _with_deaths(server: ScriptedServer, team: Path, deaths: list[tuple[int, str]], seed: int) -> Finished:
    """Run a team and kill a process of a kind each time that the server has seen so many calls."""
    choose = random.Random(seed)  # noqa: S311 -- a schedule that can be had again, and no secret
    arguments = ("run", str(team), "go", "--json", "--workers", "3")
    async with running(*arguments, env={"INTERLOCK_MODEL_URL": server.url}, cwd=team.parent) as command:
        for enough, kind in deaths:
            await server.until(lambda one, enough=enough: len(one.calls) >= enough)  # type: ignore[misc]  # its default
            pid = command.process.pid
            if alive := [broker_pid(pid)] if kind == "broker" else agent_pids(pid, kind):
                kill(choose.choice(alive))
        return await command.finish()


@pytest.mark.parametrize(("seed", "second"), [(1, "reader"), (2, "broker")], ids=["agents", "the broker too"])
async def test_64_at_once_and_a_budget_of_100_calls_never_send_101(tmp_path: Path, seed: int, second: str) -> None:
    """Whatever dies in between, the server sees no more than 100 requests, and what was accepted stands."""
    team = _team(tmp_path, 150, {"calls": 100})
    async with ScriptedServer(_answers) as server:
        # The checker first: what it was answered is lost with it, and too little may be left for another judgement.
        deaths = [(30, "reader"), (66, "checker"), (78, second), (88, "reader")]
        done = await _with_deaths(server, team, deaths, seed)
        asked = list(server.calls)
    assert len(asked) <= 100, done.err
    tasks = done.report["tasks"]
    assert {task["status"] for task in tasks} <= {"accepted", "cancelled"}
    accepted = sum(task["status"] == "accepted" for task in tasks)
    ends = (3, "partial") if accepted else (1, "failed")  # on a busy machine the deaths may have cost all of it
    assert (done.status, done.report["status"]) == ends, done.err
    assert "out of budget: " in done.report["reason"]
    assert sum(map(_is_judged, asked)) >= accepted
    assert done.err.count("SIGKILL") >= 2, done.err
    assert ("the broker (process" in done.err) == (second == "broker")


async def test_without_deaths_all_of_the_budget_is_used_and_what_is_paid_for_is_finished(tmp_path: Path) -> None:
    """100 calls are 100 requests, and no answer of them is thrown away: each is in the report's usage."""
    team = _team(tmp_path, 150, {"calls": 100})
    async with ScriptedServer(_answers) as server:
        done = await interlock("run", str(team), "go", "--json", env={"INTERLOCK_MODEL_URL": server.url}, cwd=tmp_path)
        assert len(server.calls) == 100
    assert (done.status, done.report["status"]) == (3, "partial"), done.err
    assert done.report["usage"]["calls"] == 100


@pytest.mark.parametrize(("team_s", "job_s", "sent"), [(100, 10, 10), (8, 10, 8)], ids=["the job's", "the team's"])
async def test_a_job_s_own_budget_narrows_the_team_s(tmp_path: Path, team_s: int, job_s: int, sent: int) -> None:
    """What is given with the job counts where the team file does not allow less."""
    team = _team(tmp_path, 30, {"calls": team_s})
    arguments = ("run", str(team), "go", "--json", "--budget", f"calls={job_s}")
    async with ScriptedServer(_answers) as server:
        done = await interlock(*arguments, env={"INTERLOCK_MODEL_URL": server.url}, cwd=tmp_path)
        assert len(server.calls) == sent
    assert f"{sent} of {sent} model calls" in done.report["reason"]


async def test_tokens_are_never_overdrawn(tmp_path: Path) -> None:
    """What all answers cost, those that nobody received included, is within the budget."""
    team = _team(tmp_path, 150, {"tokens": 30_000}, criteria=_CRITERIA[:1])
    written = json.loads(team.read_text())
    team.write_text(json.dumps({**written, "model": {"max_tokens": 256, "timeout": 3}}))
    async with ScriptedServer(_dear) as server:
        done = await _with_deaths(server, team, [(15, "reader")], seed=3)
        asked = len(server.calls)
    assert asked * _DEAR <= 30_000
    assert (done.status, done.report["status"]) == (3, "partial"), done.err
    assert "out of budget: " in done.report["reason"]
    used = done.report["usage"]["prompt_tokens"] + done.report["usage"]["completion_tokens"]
    assert used in range(_DEAR, asked * _DEAR + 1, _DEAR), "whole answers, and no more than were asked for"


_DEAR = 500
"""Tokens of one call."""


def _dear(call: Call) -> Answer:
    return Answer({"summary": f"item {item_of(call)}"}, delay=0.1, prompt_tokens=400, completion_tokens=100)


async def test_a_step_out_of_calls_or_time_ends_alone(tmp_path: Path) -> None:
    """The other steps go on, the job is partial, and each task says what its step ran out of."""
    write_items(tmp_path, 20)
    team = digest_team(parallel=64, criteria=_CRITERIA[:1], attempts=1)
    each = team["plan"][0]
    few = {**each, "step": "few", "budget": {"calls": 7}}
    slow = {**each, "step": "slow", "do": "Slowly. Answer item {{ item.n }}.", "budget": {"seconds": 2}}
    path = write_team(tmp_path, {**team, "plan": [few, slow, each]})
    async with ScriptedServer(_slowly) as server:
        done = await interlock("run", str(path), "go", "--json", env={"INTERLOCK_MODEL_URL": server.url}, cwd=tmp_path)
        slow_calls = sum("Slowly" in call.conversation for call in server.calls)
        assert len(server.calls) == 7 + slow_calls + 20
    assert (done.status, done.report["status"]) == (3, "partial"), done.err
    tasks = {
        step: [one for one in done.report["tasks"] if one["step"] == step] for step in ("few", "slow", "summarise")
    }
    assert [one["status"] for one in tasks["few"]].count("accepted") == 7
    short = [one["reason"] for one in tasks["few"] if one["status"] == "failed"]
    assert len(short) == 13
    assert all(one.startswith("out of budget: 7 of 7 calls of step few of job") for one in short)
    assert {one["status"] for one in tasks["slow"]} == {"failed"}
    assert all(one["reason"].startswith("out of time: step slow had to be over by") for one in tasks["slow"])
    assert {one["status"] for one in tasks["summarise"]} == {"accepted"}


def _slowly(call: Call) -> Answer:
    return Answer({"summary": f"item {item_of(call)}"}, delay=30 if "Slowly" in call.conversation else 0)


async def test_teams_within_a_team_pay_from_its_budget(tmp_path: Path) -> None:
    """Three jobs that would need 30 calls below one with a budget of 12: 12 requests, and it is partial."""
    inner: dict[str, Any] = digest_team(parallel=4, criteria=_CRITERIA[:1])
    inner["plan"] = [{**inner["plan"][0], "for_each": list(range(10)), "do": "Answer item {{ item }}."}]
    (tmp_path / "inner.yaml").write_text(json.dumps({**inner, "team": "inner"}))
    outer: dict[str, Any] = digest_team(parallel=4)
    outer["agents"]["group"] = {"kind": "team", "team": "inner.yaml"}
    words = {"criteria": [{"check": "words", "max": 99}]}
    each = {"agent": "group", "do": "Do {{ item }}.", "attempts": 1, "verify": words}
    plan = [
        {"step": "before", "agent": "reader", "do": "Answer item 5.", "output": {"summary": "string"}},
        {"step": "groups", "for_each": ["a", "b", "c"], "needs": ["before"], **each},
    ]
    team = write_team(tmp_path, {**outer, "plan": plan, "budget": {"calls": 12}, "result": "{{ steps.before.output }}"})
    async with ScriptedServer(_dear) as server:
        done = await interlock("run", str(team), "go", "--json", env={"INTERLOCK_MODEL_URL": server.url}, cwd=tmp_path)
        assert len(server.calls) == 12, done.err
    assert (done.status, done.report["status"]) == (3, "partial"), done.err
    assert done.report["usage"]["calls"] == 12
    assert "out of budget: " in done.report["reason"]
