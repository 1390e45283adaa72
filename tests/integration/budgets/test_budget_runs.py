"""Jobs with budgets, as they run: real processes, some of them killed, and a model server that counts."""

import random
from pathlib import Path
from typing import Any

import pytest
from tests.cli import Finished, agent_pids, interlock, kill, running
from tests.teams import digest_team, item_of, write_items, write_team

from interlock.testing import Answer, Call, ScriptedServer

pytestmark = pytest.mark.timeout(240)

_CRITERIA = [{"check": "contains", "field": "summary", "all": ["item"]}, {"judge": "It is about its item."}]


def _answers(call: Call) -> Answer:
    """Answer workers and judges, late enough that many requests are under way when a process dies."""
    if _is_judged(call):
        return Answer({"c1": {"evidence": "it is", "holds": True, "change": ""}}, delay=0.1)
    return Answer({"summary": f"item {item_of(call)}"}, delay=0.1, prompt_tokens=60, completion_tokens=40)


def _is_judged(call: Call) -> bool:
    return call.schema is not None and "c1" in str(call.schema)


def _team(folder: Path, items: int, budget: dict[str, Any], **more: Any) -> Path:
    """Write a team of one step that is judged, with 64 items at work at once."""
    write_items(folder, items)
    team = digest_team(parallel=64, criteria=more.pop("criteria", _CRITERIA))
    team["plan"] = [team["plan"][0] | more]
    return write_team(folder, {**team, "budget": budget})


async def _with_deaths(server: ScriptedServer, team: Path, after: list[int], seed: int) -> Finished:
    """Run a team and kill a worker or a verifier each time that the server has seen so many calls."""
    choose = random.Random(seed)  # noqa: S311 -- a schedule that can be had again, and no secret
    arguments = ("run", str(team), "go", "--json", "--workers", "3")
    async with running(*arguments, env={"INTERLOCK_MODEL_URL": server.url}, cwd=team.parent) as command:
        for enough in after:
            await server.until(lambda one, enough=enough: len(one.calls) >= enough)  # type: ignore[misc]  # its default
            agents = [agent_pids(command.process.pid, name) for name in ("reader", "checker")]
            if alive := [pid for pids in agents for pid in pids]:
                kill(choose.choice(alive))
        return await command.finish()


@pytest.mark.parametrize("seed", [1, 2])
async def test_64_at_once_and_a_budget_of_100_calls_never_send_101(tmp_path: Path, seed: int) -> None:
    """Whatever dies in between, the server sees no more than 100 requests, and what was accepted stands."""
    team = _team(tmp_path, 150, {"calls": 100})
    async with ScriptedServer(_answers) as server:
        done = await _with_deaths(server, team, [20, 45, 70, 90], seed)
        asked = list(server.calls)
    assert len(asked) <= 100
    assert (done.status, done.report["status"]) == (3, "partial"), done.err
    assert "out of budget: " in done.report["reason"]
    tasks = done.report["tasks"]
    assert {task["status"] for task in tasks} == {"accepted", "cancelled"}
    assert sum(map(_is_judged, asked)) >= len([t for t in tasks if t["status"] == "accepted"])
    assert done.err.count("SIGKILL") == 4, done.err


async def test_without_deaths_all_of_the_budget_is_used_and_what_is_paid_for_is_finished(tmp_path: Path) -> None:
    """100 calls are 100 requests, and no answer of them is thrown away: each is in the report's usage."""
    team = _team(tmp_path, 150, {"calls": 100})
    async with ScriptedServer(_answers) as server:
        done = await interlock("run", str(team), "go", "--json", env={"INTERLOCK_MODEL_URL": server.url}, cwd=tmp_path)
        assert len(server.calls) == 100
    assert done.status == 3, done.err
    assert done.report["usage"]["calls"] == 100
