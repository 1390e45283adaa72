"""Tasks that wait for a person, plans that are rejected, and effects: what a manager decides and what is known."""

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.protocol.story import NOW, Story, step

from interlock.protocol.commands import NO, AnswerByDefault, Assign
from interlock.protocol.decide import wakes_at
from interlock.protocol.ledger import fold_records
from interlock.protocol.messages import JobClosed, PlanRejected
from interlock.protocol.state import EffectStatus, Phase
from interlock.protocol.team import Budget, Handover


def closed(story: Story) -> JobClosed:
    assert story.state.closed is not None, "the job goes on"
    assert story.state.refused == 0
    return story.state.closed


def status_of(story: Story, key: str = "k") -> EffectStatus:
    return story.state.effects[key].status


def test_an_attempt_that_asks_waits_and_goes_on_with_the_answer() -> None:
    """Nobody is assigned the task before the answer; then the same attempt goes on, once, from that answer."""
    story = Story((step("s"),)).go_on()
    story.attempt("s", "fail", "first")
    story.ask("s")
    assert story.decide() == ()
    assert story.task("s").phase is Phase.ASKED
    assert story.state.asking == {"s"}
    story.answer("s", "yes")
    (command,) = story.decide()
    assert isinstance(command, Assign)
    assert (command.attempt, command.agent, command.resumes) == (2, "w", story.task("s").head)
    assert [one.attempt for one in command.feedback] == [1], "it is told again what the attempt before met"
    story.go_on()
    assert story.decide() == ()
    assert story.assigned("s").resumes == story.task("s").head - 1
    story.attempt("s", "pass")
    assert closed(story).status == "succeeded"
    assert len(story.task("s").attempts) == 2


def test_an_attempt_goes_on_with_another_agent_only_after_a_handover() -> None:
    """Who took over and asked is the one that goes on."""
    story = Story((step("s", attempts=1, handover=Handover(agent="w2")),)).go_on()
    story.attempt("s", "fail")
    story.ask("s")
    story.answer("s")
    (command,) = story.decide()
    assert isinstance(command, Assign)
    assert (command.attempt, command.agent) == (2, "w2")


@pytest.mark.parametrize(("default", "answer"), [("no", "no"), ("", ""), ("later", "later"), (None, NO)])
def test_a_question_that_nobody_answers_in_time_gets_its_default(default: str | None, answer: str) -> None:
    """Not before its time is over; without a default a no."""
    story = Story((step("s"),)).go_on()
    story.ask("s", default=default, expires=NOW + timedelta(seconds=60))
    story.now += timedelta(seconds=59)
    assert story.decide() == ()
    assert wakes_at(story.state) == NOW + timedelta(seconds=60)
    story.now += timedelta(seconds=1)
    assert story.decide() == (AnswerByDefault("s", 1, story.task("s").head, "q", answer),)
    story.go_on()
    assert story.task("s").question is not None
    assert wakes_at(story.state) is None
    story.attempt("s", "pass")
    assert closed(story).status == "succeeded"


def test_time_wakes_for_the_first_of_all_deadlines() -> None:
    """The job's own, or that of a question that is still open."""
    story = Story((step("s", items=True),), {"s": 3}, budget=Budget(seconds=100)).go_on()
    assert wakes_at(story.state) == NOW + timedelta(seconds=100)
    story.ask("s:0", expires=NOW + timedelta(seconds=30))
    story.ask("s:1", expires=NOW + timedelta(seconds=20))
    story.ask("s:2")
    assert wakes_at(story.state) == NOW + timedelta(seconds=20)
    story.answer("s:1")
    assert wakes_at(story.state) == NOW + timedelta(seconds=30)
    story.ask("s:0", expires=NOW + timedelta(seconds=200))
    assert wakes_at(story.state) == NOW + timedelta(seconds=30), "a second question in between is refused"


def test_a_stop_ends_a_task_that_waits_for_a_person() -> None:
    """A question holds up no kill, and its late answer changes nothing."""
    story = Story((step("s"),)).go_on()
    story.ask("s")
    story.killed = "stop"
    story.go_on()
    assert (story.task("s").outcome, story.state.asking) == ("cancelled", frozenset())
    assert closed(story).status == "killed"


def test_an_answer_follows_what_does_not_belong_there() -> None:
    """A stray entry, such as an answer to another question, neither ends the wait nor the attempt after it."""
    story = Story((step("s"),)).go_on()
    story.ask("s")
    story.answer("s", "yes", "another")
    assert story.decide() == ()
    story.answer("s", "yes")
    answered = story.task("s").head
    story.answer("s", "no")
    (command,) = story.decide()
    assert isinstance(command, Assign)
    assert (command.resumes, command.answers) == (answered, answered + 1)
    story.go_on()
    story.attempt("s", "pass")
    assert story.state.closed is not None
    assert (story.state.refused, story.state.closed.status) == (2, "succeeded")


@pytest.mark.parametrize("accepted", [False, True])
def test_a_rejected_plan_ends_the_job(accepted: bool) -> None:
    """Before anything of it runs, or with what there is by then, and the reason names what it breaks."""
    story = Story((step("s"),))
    if accepted:
        story.go_on()
    head = story.state.head
    story.tell(PlanRejected(id="p", ns="n", job="j", at=NOW, answers=head, version=1, reasons=("never X", "never Y")))
    story.go_on()
    assert (closed(story).status, closed(story).reason) == ("failed", "the plan is rejected: never X; never Y")
    assert [task.outcome for task in story.state.tasks.values()] == (["cancelled"] if accepted else [])


EFFECTS = [
    ("i", EffectStatus.INTENDED),
    ("id", EffectStatus.DONE),
    ("if", EffectStatus.FAILED),
    ("iu", EffectStatus.IN_DOUBT),
    ("iud", EffectStatus.DONE),
    ("idu", EffectStatus.DONE),
    ("idf", EffectStatus.DONE),
    ("ifi", EffectStatus.INTENDED),
    ("idi", EffectStatus.DONE),
    ("iif", EffectStatus.FAILED),
]


@pytest.mark.parametrize(("told", "status"), EFFECTS)
def test_what_is_known_of_an_effect(told: str, status: EffectStatus) -> None:
    """The newest word counts, but what is done stays done; the ledger of the task says the same as the job's state."""
    story = Story((step("s"),)).go_on()
    for word in told:
        match word:
            case "i":
                story.intend("s")
            case "d":
                story.record("s", "done")
            case "f":
                story.record("s", "failed")
            case _:
                story.record("s", "in_doubt")
    assert status_of(story) is status
    assert fold_records(entry.message for entry in story.log)["k"].status is status
    assert story.state.refused == 0


def test_who_reports_late_does_not_speak_for_a_later_intent() -> None:
    """A worker that was stopped before its effect says so only now: whoever began it again since may be at it."""
    story = Story((step("s"),)).go_on()
    story.intend("s")
    head = story.task("s").head
    story.intend("s")
    story.record("s", "failed", answers=head)
    assert status_of(story) is EffectStatus.INTENDED
    assert fold_records(entry.message for entry in story.log)["k"].status is EffectStatus.INTENDED
    story.record("s", "done", answers=head)
    assert status_of(story) is EffectStatus.DONE


@pytest.mark.parametrize("fields", [{"by": "v@t"}, {"attempt": 2}, {"answers": 1}], ids=str)
def test_nobody_else_announces_an_effect(fields: dict[str, Any]) -> None:
    """Another role, an attempt that is not current and who has not read on begin nothing."""
    story = Story((step("s"),)).go_on()
    story.intend("s", **fields)
    assert dict(story.state.effects) == {}
    assert story.state.refused == 1


def test_an_effect_of_another_task_is_not_taken_over() -> None:
    """A key belongs to the task that announced it first, and only its workers tell what came of it."""
    story = Story((step("s", items=True),), {"s": 2}).go_on()
    story.intend("s:0")
    story.intend("s:1")
    story.record("s:1", "done")
    story.record("s:0", "done", by="x@t")
    assert story.state.refused == 1
    assert (story.state.effects["k"].task, status_of(story)) == ("s:0", EffectStatus.INTENDED)


def test_what_happened_is_recorded_after_the_job_is_over() -> None:
    """A report of an effect is always taken."""
    story = Story((step("s"),)).go_on()
    story.intend("s")
    story.killed = "stop"
    story.go_on()
    assert story.state.closed is not None
    story.record("s", "done")
    assert status_of(story) is EffectStatus.DONE
