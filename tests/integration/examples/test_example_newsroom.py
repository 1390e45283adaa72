"""The newsroom example, run for real: its manager plans, is corrected, answers, refuses, and asks where it has to."""

import json
from pathlib import Path

from tests.cli import interlock, read_log, running
from tests.integration.examples.standins import FOLDER, answers_of, run, shown_but_missing

from interlock.protocol.messages import PlanAccepted, PlanProposed, PlanRejected
from interlock.testing import ScriptedServer

TEAM = FOLDER / "newsroom" / "team.yaml"
GOAL = "Write a notice about the mill bridge"


async def test_it_runs_as_its_readme_says(tmp_path: Path) -> None:
    """The wrong plan never runs, the corrected one does, with its tools, and the README shows it."""
    async with ScriptedServer(answers_of("newsroom")) as server:
        done = await run(TEAM, server.url, GOAL, cwd=tmp_path)
    assert done.status == 0, done.err
    facts, notice = done.report["tasks"]
    assert (facts["agent"], notice["agent"], notice["attempts"]) == ("researcher", "writer", 2)
    assert [action["tool"] for action in facts["actions"]] == ["files.list", "files.read"]
    assert done.report["result"].startswith("The council closed the mill bridge")
    assert shown_but_missing("newsroom", done.err) == []
    log = [entry.message for entry in await read_log(tmp_path / ".interlock")]
    plans = [one for one in log if isinstance(one, PlanProposed | PlanRejected | PlanAccepted)]
    assert [one.kind for one in plans] == ["plan.proposed", "plan.rejected", "plan.proposed", "plan.accepted"]
    wrong, _, right, accepted = plans
    assert isinstance(wrong, PlanProposed)
    assert [step.agent for step in wrong.steps] == ["reporter", "writer"]
    assert isinstance(right, PlanProposed)
    assert isinstance(accepted, PlanAccepted)
    assert [step.step for step in accepted.steps] == [step.step for step in right.steps] == ["facts", "notice"]
    assert accepted.steps[1].verify.criteria == right.steps[1].verify.criteria


async def test_questions_are_answered_and_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    """A direct question has its answer without a task; what nobody can do ends the job with the reason."""
    async with ScriptedServer(answers_of("newsroom")) as server:
        answered = await run(TEAM, server.url, "What is a notice?", cwd=tmp_path)
        refused = await run(TEAM, server.url, "Print the notice and put it up", cwd=tmp_path)
        assert len(server.calls) == 2
    assert (answered.status, answered.report["tasks"]) == (0, [])
    assert answered.report["result"] == "A notice is a short text that tells people what has changed."
    assert (refused.status, refused.report["result"]) == (1, None)
    assert "No agent of the team can print" in refused.report["reason"]


async def _open_question(folder: Path) -> dict[str, str]:
    """Return the question that is open, once one is."""
    while True:
        asked = await interlock("questions", "--json", cwd=folder)
        found: list[dict[str, str]] = json.loads(asked.out) if asked.status == 0 else []
        if found:
            return found[0]


async def test_a_person_may_change_the_plan(tmp_path: Path) -> None:
    """With --approve-plan nothing runs before a yes; what else is said goes to the manager, which plans anew."""
    async with (
        ScriptedServer(answers_of("newsroom")) as server,
        running("run", str(TEAM), GOAL, "--approve-plan", env={"INTERLOCK_MODEL_URL": server.url}, cwd=tmp_path) as job,
    ):
        for number, text in enumerate(("Ask the council, too", "yes"), 1):
            await job.until("waits for your answer" if number == 1 else "the answer is Ask the council, too")
            question = await _open_question(tmp_path)
            assert "facts by researcher" in question["text"]
            assert all("You are the manager" in call.conversation for call in server.calls)
            done = await interlock("answer", question["job"], question["id"], text, cwd=tmp_path)
            assert done.status == 0, done.err
        finished = await job.finish()
        planned = [call for call in server.calls if "You are the manager" in call.conversation]
    assert finished.status == 0, finished.err
    assert len(planned) == 3
    assert "Ask the council, too" in planned[2].prompt
