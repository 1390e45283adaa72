"""A manager without a plan: it proposes, judges, asks and gives up as the log says, and makes plans anew."""

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.agents.planned import Planned, plan_step, planned
from tests.unit.protocol.story import NOW

from interlock.protocol.base import Usage
from interlock.protocol.commands import Propose
from interlock.protocol.decide import wakes_at
from interlock.protocol.machine import fold
from interlock.protocol.messages import PlanAccepted, PlanProposed, PlanRejected, QuestionAnswered
from interlock.protocol.retries import retry_objection
from interlock.protocol.team import Budget, Step

BAD = plan_step("a", agent="nobody")


def test_what_was_proposed_is_accepted_and_followed() -> None:
    """A job without a plan begins with a proposal, follows it once it is accepted, and counts what it cost."""
    story = planned()
    assert story.wanted == Propose(answers=1, version=1)
    story.propose(plan_step("b", "write {{ steps.a.output }}"), plan_step("a"), usage=Usage(calls=1, prompt_tokens=9))
    accepted = story.last(PlanAccepted)
    assert (accepted.version, accepted.result_steps) == (1, ("b",))
    assert [step.needs for step in accepted.steps] == [("a",), ()]
    story.attempt("a")
    story.attempt("b")
    assert story.closed.status == "succeeded"
    assert story.closed.usage == Usage(calls=1, prompt_tokens=9)


def test_what_is_wrong_goes_back_by_name_until_the_tries_are_used_up() -> None:
    """Each rejection is the reason of the next proposal; after the last the job fails and says why."""
    story = planned(limits={"plans": 2})
    story.propose(BAD)
    assert story.wanted is not None
    assert (story.wanted.tries, story.wanted.version) == (1, 1)
    assert story.wanted.reasons == story.rejected[0]
    assert "nobody" in story.wanted.reasons[0]
    story.propose(unreadable="no JSON")
    assert story.closed.status == "failed"
    assert story.closed.reason == "no plan came of 2 tries; the last was rejected: no JSON"
    assert story.state.proposals == 2
    assert [one.reasons for one in story.state.rejections] == story.rejected


def test_a_plan_that_is_repaired_is_followed() -> None:
    """A rejected proposal costs a try and nothing else."""
    story = planned()
    story.propose(BAD)
    story.propose(plan_step("a"))
    story.attempt("a")
    assert story.closed.status == "succeeded"
    assert story.state.tries == 0


def test_an_answer_needs_no_steps() -> None:
    """What needs no work is the job's result as it is."""
    story = planned()
    story.propose(makes="answer", text="4")
    assert (story.closed.status, story.closed.result) == ("succeeded", "4")
    assert not story.state.tasks


def test_an_answer_that_used_up_the_budget_counts() -> None:
    """What was paid for is given."""
    story = planned(budget=Budget(calls=1))
    story.propose(makes="answer", text="4", usage=Usage(calls=1))
    assert (story.closed.status, story.closed.result) == ("succeeded", "4")


def test_what_cannot_be_done_is_said() -> None:
    """A refusal ends the job as failed, with the reason, before anybody was assigned anything."""
    story = planned()
    story.propose(makes="refusal", text="no agent can fly")
    assert (story.closed.status, story.closed.reason) == ("failed", "no agent can fly")


def test_a_question_leads_to_the_next_proposal() -> None:
    """What a person answers to the manager is known when it proposes again, and costs no try."""
    story = planned()
    story.propose(makes="question", text="Which year?")
    asked = story.asked_now
    assert (asked.about, asked.text, asked.by) == ("input", "Which year?", "boss@t")
    assert story.wanted is None
    story.reply("2024")
    assert story.wanted == Propose(answers=4, version=1)
    assert [(one.asked.text, one.answer and one.answer.answer) for one in story.state.answers] == [
        ("Which year?", "2024")
    ]
    story.propose(plan_step("a"))
    story.attempt("a")
    assert story.closed.status == "succeeded"


def test_nobody_answers() -> None:
    """When the time for an answer is over it counts as a no; the manager wakes for that and goes on."""
    story = planned()
    story.propose(makes="question", text="Which year?")
    assert wakes_at(story.state) == story.asked_now.expires == NOW + timedelta(hours=1)
    story.now = NOW + timedelta(hours=1)
    story.go_on()
    said = story.last(QuestionAnswered)
    assert (said.answer, said.by_default) == ("no", True)
    assert story.wanted is not None
    assert wakes_at(story.state) is None


def test_questions_come_to_an_end() -> None:
    """A model that asks and asks is told to plan with what it knows, and that counts as a try."""
    story = planned(limits={"plans": 1})
    story.propose(makes="question", text="Which year?")
    story.reply("2024")
    story.propose(makes="question", text="Which month?")
    assert story.closed.status == "failed"
    assert "there may be no more" in story.closed.reason


def test_an_answer_to_another_question_is_none() -> None:
    """Only the question that is open can be answered."""
    story = planned()
    story.propose(makes="question", text="Which year?")
    story.reply("2024", question="q-other")
    assert story.state.refused == 1
    assert story.wanted is None
    story.reply("2024")
    assert story.wanted is not None


def test_a_person_says_yes() -> None:
    """Where plans are approved nothing begins before the yes, and the plan that was shown is followed."""
    story = planned(approve=True)
    story.propose(plan_step("a", for_each=["x", "y"]))
    asked = story.asked_now
    assert (asked.about, asked.options, asked.default) == ("plan", ("yes", "no"), "no")
    assert "1. a by w, for each of a list: x" in asked.text
    assert not story.state.tasks
    story.reply("yes")
    assert story.state.version == 1
    assert sorted(story.state.tasks) == ["a:0", "a:1"]


def test_a_person_says_no() -> None:
    """A plain no ends the job."""
    story = planned(approve=True)
    story.propose(plan_step("a"))
    story.reply("no")
    assert (story.closed.status, story.closed.reason) == ("failed", "a person said no to the plan")


@pytest.mark.parametrize(("answer", "note"), [("in one step only", ""), ("no", "in one step only")])
def test_a_person_wants_another_plan(answer: str, note: str) -> None:
    """Words are what the next proposal is told; that plan needs a yes of its own."""
    story = planned(approve=True)
    story.propose(plan_step("a"), plan_step("b"))
    story.reply(answer, note)
    assert story.wanted is not None
    assert story.wanted.reasons == ("a person wants the plan to be another one: in one step only",)
    story.propose(plan_step("a"))
    assert story.state.version == 0
    story.reply("yes")
    assert story.state.order == ("a",)


def failing(**more: Any) -> Planned:
    """Return a job of which one step was accepted and the next one failed for good."""
    story = planned(**more)
    story.propose(plan_step("a"), plan_step("b", needs=["a"]), plan_step("c", needs=["b"]))
    story.attempt("a")
    story.attempt("b", "fail")
    return story


def test_a_new_version_keeps_what_was_accepted() -> None:
    """Where a step failed for good the plan is made anew: what was accepted stands, what failed is left in the log."""
    story = failing()
    assert story.wanted is not None
    assert (story.wanted.version, story.wanted.why) == (2, "b: words: evidence 1")
    story.propose(plan_step("a"), plan_step("d", needs=["a"]), text="d instead of b")
    assert story.state.version == 2
    assert story.state.order == ("a", "d")
    assert set(story.state.dropped) == {"b", "c"}
    assert story.task("a").outcome == "accepted"
    assert len(story.task("a").attempts) == 1
    assert story.task("b").outcome == "failed"
    assert [(one.version, one.why) for one in story.state.plans] == [(1, ""), (2, "d instead of b")]
    story.attempt("d")
    assert story.closed.status == "succeeded"
    assert fold(story.log) == story.state


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ((plan_step("d"),), "a"),
        ((plan_step("a", "y"), plan_step("d")), "a"),
        ((plan_step("a"), plan_step("b", needs=["a"], attempts=2)), "b"),
    ],
    ids=["what was accepted is dropped", "what was accepted is changed", "what failed is changed under its name"],
)
def test_a_new_version_changes_nothing_of_the_last(steps: tuple[Step, ...], reason: str) -> None:
    """A version that drops what was accepted, or changes a step under its name, is rejected."""
    story = failing()
    story.propose(*steps)
    assert story.state.version == 1
    assert any(f"step {reason}" in one for one in story.rejected[-1])


def test_names_are_never_used_again() -> None:
    """A step that a version dropped cannot come back under its name: its chains are over."""
    story = failing()
    story.propose(plan_step("a"), plan_step("d"))
    story.attempt("d", "fail")
    story.propose(plan_step("a"), plan_step("b"))
    assert any("step b" in one for one in story.rejected[-1])


def test_new_versions_come_to_an_end() -> None:
    """After ``limits.replans`` new versions the job ends with what it has."""
    story = failing(limits={"replans": 1})
    story.propose(plan_step("a"), plan_step("d", needs=["a"]))
    story.attempt("d", "fail")
    assert (story.closed.status, story.state.version) == ("failed", 2)


def test_what_an_earlier_version_failed_at_is_no_reason_for_another() -> None:
    """A step that failed and is kept leads to no further version by itself."""
    story = failing()
    story.propose(plan_step("a"), plan_step("b", needs=["a"]), plan_step("d", needs=["a"]))
    story.attempt("d")
    assert (story.closed.status, story.state.version) == ("partial", 2)


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ({"makes": "refusal", "text": "there is no other way"}, "there is no other way"),
        ({"unreadable": "no JSON"}, "no plan came of 1 tries; the last was rejected: no JSON"),
    ],
)
def test_without_a_new_version_the_job_ends_as_it_would_have(outcome: dict[str, str], reason: str) -> None:
    """Where no new version comes about the job closes with what stands, and says both reasons."""
    story = failing(limits={"plans": 1})
    story.propose(**outcome)
    assert story.closed.status == "failed"
    assert story.closed.reason.startswith("b: 1 of 1 not accepted; c:")
    assert story.closed.reason.endswith(reason)


@pytest.mark.parametrize("on_failure", ["fail", "replan"])
def test_a_plan_in_the_file_is_made_anew_only_where_it_says_so(on_failure: str) -> None:
    """The person's plan stays what it is unless the step that failed says ``replan``."""
    step = {"step": "a", "agent": "w", "do": "x", "attempts": 1, "verify": {"by": "v"}, "on_failure": on_failure}
    story = planned(plan=(step,))
    assert story.state.version == 1
    story.attempt("a", "fail")
    assert (story.wanted is not None) == (on_failure == "replan")
    assert (story.state.closed is None) == (on_failure == "replan")


def test_a_spent_budget_ends_the_job_with_what_it_has() -> None:
    """Once a result says that a budget of the job ran out nothing is begun any more, and what passed stands."""
    story = planned(limits={"parallel": 1})
    story.propose(plan_step("a", for_each=["x", "y"]), plan_step("b", for_each=["z"]))
    story.attempt("a:0")
    story.result("a:1", status="gave_up", spent="100 of 100 calls of job j are used", reason="no calls left")
    story.verdict("a:1", "fail")
    story.go_on()
    assert story.closed.status == "partial"
    assert story.closed.reason == "out of budget: 100 of 100 calls of job j are used"
    assert {name: task.outcome for name, task in story.state.tasks.items()} == {
        "a:0": "accepted",
        "a:1": "cancelled",
        "b:0": "cancelled",
    }
    assert retry_objection(story.state, ["b:0"]).startswith("the job would be stopped again at once")


def test_a_spent_budget_of_a_step_is_not_the_jobs() -> None:
    """Where only the step's budget ran out the others go on."""
    story = planned()
    story.propose(plan_step("a"), plan_step("b"))
    story.result("a", status="gave_up", spent="1 of 1 calls of step a are used", spent_of="step", reason="none left")
    story.go_on()
    assert story.state.closed is None
    assert story.state.spent == ""


def test_a_budget_that_runs_out_over_the_plan_ends_the_job() -> None:
    """Then nothing was proposed, and no more is asked."""
    story = planned()
    story.propose(unreadable="spent", spent="1 of 1 calls of job j are used")
    assert (story.closed.status, story.closed.reason) == ("failed", "out of budget: 1 of 1 calls of job j are used")
    assert story.state.proposals == 0


def test_putting_back_forgets_what_was_proposed_in_view_of_the_failure() -> None:
    """A proposal for a new version is dropped with its question when an operator puts the failed task back."""
    story = failing(approve=False)
    story.propose(makes="question", text="Why?")
    assert story.asked_now.text == "Why?"
    story.retry("b")
    assert (story.state.proposed, story.state.question) == (None, None)
    story.go_on()
    story.attempt("b")
    story.attempt("c")
    assert (story.closed.status, story.state.version) == ("succeeded", 1)


def test_a_task_of_a_step_that_was_dropped_is_not_put_back() -> None:
    """Nobody would do it: the plan does not have it any more."""
    story = failing()
    story.propose(plan_step("a"), plan_step("d", needs=["a"]))
    story.attempt("d", "fail")
    assert retry_objection(story.state, ["b"]) == "b belongs to a step that the plan does not have any more"
    before = story.state
    story.tell(story.log[-1].message.model_copy(update={"task": "b"}))
    assert story.state.refused == before.refused + 1


def test_a_kill_ends_planning() -> None:
    """A job that is killed while its plan is made, or while a person is asked, ends at once."""
    for story in (planned(), planned(approve=True)):
        if story.approve:
            story.propose(plan_step("a"))
        story.killed = "stop"
        story.go_on()
        assert story.wanted is None
        assert story.closed.status == "killed"


def test_nobody_else_makes_the_plan() -> None:
    """A plan that was not proposed, or is not the one that was, is refused; and so is a second proposal."""
    story = planned()
    proposal = story.proposal(plan_step("a"))
    plan = PlanAccepted(
        id="x", ns="n", job="j", at=NOW, answers=1, version=1, steps=(plan_step("a"),), result_steps=("a",)
    )
    story.tell(plan)
    assert (story.state.version, story.state.refused) == (0, 1)
    story.tell(proposal.model_copy(update={"answers": story.state.head}))
    story.tell(plan.model_copy(update={"answers": story.state.head, "steps": (plan_step("a", "y"),)}))
    assert (story.state.version, story.state.refused) == (0, 2)
    story.tell(proposal.model_copy(update={"answers": story.state.head}))
    assert (story.state.proposals, story.state.refused) == (1, 3)
    story.go_on()
    assert story.state.version == 1
    assert not any(isinstance(one.message, PlanRejected) for one in story.log)
    assert isinstance(story.log[2].message, PlanProposed)
