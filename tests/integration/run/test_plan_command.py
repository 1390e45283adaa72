"""``interlock plan``: asks a manager over real HTTP, repairs, shows a table and a graph, and runs nothing."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.cli import Finished, interlock
from tests.teams import write_team

from interlock.testing import Call, Fail, ScriptedServer

TEAM: dict[str, Any] = {
    "interlock": 1,
    "team": "office",
    "description": "Sum up what comes in",
    "agents": {
        "boss": {"kind": "manager", "prompt": "You run a small office."},
        "reader": {"kind": "worker", "description": "Reads documents"},
        "writer": {"kind": "worker", "description": "Writes letters"},
        "checker": {"kind": "verifier"},
    },
    "inputs": {"documents": {"type": "files", "required": False}, "tone": {"default": "plain"}},
    "limits": {"plans": 2},
}
WORDS = [{"kind": "words", "field": "", "value": "5-40"}]


def step(name: str, agent: str, do: str, **changes: Any) -> dict[str, Any]:
    """Return a step as the manager's model writes it."""
    rest: dict[str, Any] = {"needs": [], "for_each": "", "output": [], "criteria": WORDS}
    return {"step": name, "agent": agent, "do": do, **rest, **changes}


GOOD: dict[str, Any] = {
    "makes": "plan",
    "text": "",
    "steps": [
        step("sum_up", "reader", "Sum up {{ item.text }}", for_each="{{ inputs.documents }}"),
        step("letter", "writer", "Write a {{ inputs.tone }} letter of {{ steps.sum_up.outputs }}"),
    ],
}
BAD: dict[str, Any] = {
    "makes": "plan",
    "text": "",
    "steps": [step("sum_up", "reeder", "Sum it up"), step("b", "writer", "{{ x }}")],
}


async def plan(folder: Path, url: str, *arguments: str, team: dict[str, Any] | None = None) -> Finished:
    """Run the command on a team and a document of its own."""
    (folder / "a.txt").write_text("Nobody shall read this.")
    path = write_team(folder, team or TEAM)
    return await interlock("plan", str(path), *arguments, env={"INTERLOCK_MODEL_URL": url}, cwd=folder)


async def test_a_plan_is_shown_and_nothing_runs(tmp_path: Path) -> None:
    """The table has steps, agents, needs, items and criteria, the graph what leads where; one model call was made."""
    async with ScriptedServer(GOOD) as server:
        done = await plan(tmp_path, server.url, "Write to Ann", "--input", "documents=*.txt")
    assert (done.status, done.err) == (0, "")
    head, first, second, _, *graph = done.out.splitlines()
    assert head.split("  ")[0] == "step"
    assert first.split() == ["sum_up", "reader", "-", "inputs.documents", "words", "its", "agent's"]
    assert second.split() == ["letter", "writer", "sum_up", "-", "words", "its", "agent's"]
    assert graph[:2] == ["sum_up -> letter", "letter -> (result)"]
    assert "  - between 5 and 40 words" in graph
    [call] = server.calls
    assert call.schema is not None
    assert "The goal: Write to Ann" in call.prompt
    assert "Nobody shall read this" not in call.conversation
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "team.yaml"], "there is no log, and no job"  # noqa: PTH208 -- ASYNC240 refuses the other way


async def test_a_bad_plan_is_repaired(tmp_path: Path) -> None:
    """What is wrong goes back by name, once, with more heat and another seed; JSON has the steps as team files do."""

    def answer(call: Call) -> Any:
        return GOOD if "cannot be used" in call.prompt else BAD

    async with ScriptedServer(answer) as server:
        done = await plan(tmp_path, server.url, "Write to Ann", "--json")
    assert done.status == 0, done.err
    report = done.report
    assert report["rejected"] == [
        [
            "step sum_up: agent: there is no agent 'reeder': did you mean 'reader'?",
            "step b: do: there is no variable 'x'; variables: goal, inputs, steps",
        ]
    ]
    assert report["usage"]["calls"] == 2
    assert [one["step"] for one in report["steps"]] == ["sum_up", "letter"]
    assert report["steps"][1]["needs"] == ["sum_up"]
    first, second = server.calls
    assert all(f"- {reason}" in second.prompt for reason in report["rejected"][0])
    assert first.body["seed"] != second.body["seed"]
    assert float(str(first.body["temperature"])) < float(str(second.body["temperature"]))


async def test_tries_run_out(tmp_path: Path) -> None:
    """After limits.plans proposals that are wrong, unreadable or missing there is no plan, and the reasons are told."""
    async with ScriptedServer(BAD) as server:
        done = await plan(tmp_path, server.url, "Write to Ann")
        assert len(server.calls) == 2
    assert (done.status, done.out) == (1, "")
    assert "no plan came of 2 tries" in done.err
    assert done.err.count("  - step sum_up: agent: there is no agent 'reeder'") == 2
    async with ScriptedServer(lambda call: "I would rather not." if call.number == 1 else Fail(400)) as server:
        done = await plan(tmp_path, server.url, "Write to Ann", "--json")
    assert done.status == 1
    assert done.report["makes"] is None
    assert "this is no JSON object" in done.report["rejected"][0][0]
    assert "the manager's model gave no answer" in done.report["rejected"][1][0]


@pytest.mark.parametrize(
    ("makes", "status", "out", "err"),
    [
        ("answer", 0, "Four.\n", "needs no plan"),
        ("refusal", 1, "", "cannot do this: Four."),
        ("question", 1, "", "the manager has a question; put the answer into the goal: Four."),
    ],
)
async def test_what_is_no_plan_is_told(tmp_path: Path, makes: str, status: int, out: str, err: str) -> None:
    """A direct answer goes to standard output; a refusal and a question leave without a plan."""
    async with ScriptedServer({"makes": makes, "text": "Four.", "steps": []}) as server:
        done = await plan(tmp_path, server.url, "What is two and two?")
    assert (done.status, done.out) == (status, out)
    assert err in done.err


async def test_wrong_usage_is_told(tmp_path: Path) -> None:
    """An input that there is not, a broken file, and a model that is nowhere, are told before anything is asked."""
    async with ScriptedServer(GOOD) as server:
        wrong = await plan(tmp_path, server.url, "Write", "--input", "documnets=a.txt")
        broken = await plan(tmp_path, server.url, "Write", team={**TEAM, "plan": []})
        assert server.calls == []
    assert (wrong.status, wrong.out) == (2, "")
    assert "documnets" in wrong.err
    assert broken.status == 2
    assert "'plan' has no steps" in broken.err
    away = await plan(tmp_path, "http://127.0.0.1:9/v1", "Write")
    assert away.status == 1
    assert "127.0.0.1:9" in away.err


async def test_a_plan_in_the_file_is_shown(tmp_path: Path) -> None:
    """Of a team that has a plan just that is shown, and no model is asked."""
    steps = [{"step": "a", "agent": "reader", "do": "x", "output": {"text": "string"}, "tools": []}]
    async with ScriptedServer(GOOD) as server:
        done = await plan(tmp_path, server.url, "--json", team={**TEAM, "plan": steps})
        assert server.calls == []
    assert (done.status, json.loads(done.out)["steps"]) == (0, [{**steps[0], "tools": []}])
    assert "has a plan" in done.err
