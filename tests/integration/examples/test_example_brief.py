"""The brief example, run for real: a chain of steps, a command and a judge, a budget that ends the job."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.integration.examples.standins import FOLDER, answers_of, run, shown_but_missing

from interlock.testing import Call, ScriptedServer

TEAM = FOLDER / "brief" / "team.yaml"


def what(call: Call) -> str:
    """Return which step a call belongs to."""
    text = call.conversation
    steps = {"You check an answer": "judge", "Plan a brief": "outline", "Write a brief": "draft", "Edit this": "edit"}
    return next(step for words, step in steps.items() if words in text)


async def test_it_runs_as_its_readme_says(tmp_path: Path) -> None:
    """The steps run one after the other, the edit again after the command refused it, and the README shows it."""
    async with ScriptedServer(answers_of("brief")) as server:
        done = await run(TEAM, server.url, cwd=tmp_path)
        order = [what(call) for call in server.calls]
        redo = server.calls[-2]
    assert done.status == 0, done.err
    assert order == ["outline", "draft", "edit", "judge", "edit", "judge"]
    assert "this sentence has 23 words, at most 22 are allowed" in redo.conversation
    outline, draft, edit = done.report["tasks"]
    assert outline["output"].keys() == {"answer", "points"}, "the reasoning is no part of it"
    assert draft["output"] in server.calls[2].conversation
    assert [verdict["verdict"] for verdict in edit["verdicts"]] == ["fail", "pass"]
    refused = [c["criterion"] for c in edit["verdicts"][0]["criteria"] if c["holds"] is not True]
    assert refused == ["style"]
    assert done.report["result"].splitlines()[0] == f"# {edit['output']['title']}"
    assert shown_but_missing("brief", done.err + done.report["result"]) == []


async def test_a_judge_that_is_not_convinced_fails_the_job(tmp_path: Path) -> None:
    """What the judge finds untrue is never accepted: the edit fails, and there is no result."""
    answer = answers_of("brief")

    def strict(call: Call) -> Any:
        if what(call) == "judge":
            assert call.schema
            fields = call.schema["properties"]
            assert isinstance(fields, dict)
            return {name: {"evidence": "It is vague.", "holds": False, "change": "Decide."} for name in fields}
        if what(call) == "edit":
            return {**answer(call), "title": f"Sunday opening, version {call.number}"}
        return answer(call)

    async with ScriptedServer(strict) as server:
        done = await run(TEAM, server.url, cwd=tmp_path)
    assert done.status == 1, done.err
    assert [task["status"] for task in done.report["tasks"]] == ["accepted", "accepted", "failed"]
    assert "It is vague." in done.report["tasks"][2]["reason"]
    assert done.report["result"] is None


async def test_the_budget_ends_it_and_the_command_is_found(tmp_path: Path) -> None:
    """In a copy of the example with a budget of 3 calls the edit is cancelled; without its script it does not begin."""
    copy = tmp_path / "copy"
    shutil.copytree(FOLDER / "brief", copy)
    team = copy / "team.yaml"
    team.write_text(team.read_text().replace("calls: 25", "calls: 3"))
    async with ScriptedServer(answers_of("brief")) as server:
        done = await run(team, server.url, cwd=tmp_path)
        assert len(server.calls) <= 4
        (copy / "style.py").unlink()
        refused = await run(team, server.url, cwd=tmp_path)
    assert done.status == 1, done.err
    assert "of 3 model calls" in done.report["reason"]
    assert [task["status"] for task in done.report["tasks"]] == ["accepted", "accepted", "cancelled"]
    assert (refused.status, refused.out) == (2, "")
    assert f"step 'edit': there is no file {copy / 'style.py'}" in refused.err


async def test_other_notes_and_another_question(tmp_path: Path) -> None:
    """Notes that are given reach the planner, in the order of their paths, with the question as the goal."""
    for name in ("b", "a"):
        (tmp_path / f"{name}.md").write_text(f"Note {name}.")
    async with ScriptedServer(json.dumps({"answer": "?", "points": []})) as server:
        done = await run(TEAM, server.url, "Why not?", "--input", "notes=*.md", cwd=tmp_path)
        first = server.calls[0]
    assert done.status == 1
    assert "answers this question: Why not?" in first.prompt
    assert first.prompt.index("Note a.") < first.prompt.index("Note b.")
    assert [task["status"] for task in done.report["tasks"]] == ["failed", "cancelled", "cancelled"]
