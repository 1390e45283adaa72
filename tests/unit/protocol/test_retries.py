"""What is put back, what is made again with it, and what is not put back at all."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.protocol.story import NOW, Story, step

from interlock.protocol.base import Usage
from interlock.protocol.commands import Assign, CloseTask, ExpandStep
from interlock.protocol.machine import evolve, fold, settle
from interlock.protocol.messages import PlanRejected
from interlock.protocol.retries import retry_objection
from interlock.protocol.state import EffectStatus, JobState, Phase
from interlock.protocol.team import Budget, Handover, Step

ITEMS = (step("a", items=True, attempts=2), step("b", needs=("a",), attempts=2))
FAN_OUT = (step("a", attempts=1), step("b", items=True, needs=("a",), attempts=1), step("c", needs=("b",)))


def fail(story: Story, task: str) -> None:
    """Let every attempt of a task fail, as often as it is tried."""
    while story.task(task).phase is not Phase.CLOSED:
        story.attempt(task, "fail")


def over(story: Story, status: str) -> None:
    assert story.state.closed is not None, "the job goes on"
    assert story.state.closed.status == status
    assert story.state.refused == 0


def with_failed_item(steps: tuple[Step, ...] = ITEMS) -> Story:
    """Return a job of two items that is over, one of which failed."""
    story = Story(steps, {"a": 2}).go_on()
    fail(story, "a:0")
    story.attempt("a:1")
    return story


def test_a_failed_item_of_a_closed_job_is_put_back_and_the_job_ends_anew() -> None:
    """The job is open again, makes the item and what needs it, and is closed with what came of it."""
    story = with_failed_item()
    story.attempt("b")
    over(story, "partial")
    story.retry("a:0", reason="repaired")
    assert story.state.closed is None
    assert story.task("a:0").phase is Phase.RETRIED
    assert (story.state.steps["a"].failed, story.state.open) == (0, 0)
    story.go_on()
    assert story.assigned("a:0").attempt == 3
    assert story.task("b").phase is Phase.RETRIED, "it was made without the item, and waits for it"
    story.attempt("a:0")
    assert story.assigned("b").attempt == 2
    story.attempt("b")
    over(story, "succeeded")
    assert story.state.steps["a"].accepted == 2


def test_only_attempts_since_the_retry_count_and_all_that_was_objected_is_told() -> None:
    """The item has all its attempts again, and a worker knows what was wrong with each before."""
    story = with_failed_item()
    story.attempt("b")
    story.retry("a:0")
    story.go_on()
    assert [one.attempt for one in story.assigned("a:0").feedback] == [1, 2]
    story.attempt("a:0", "fail")
    assert story.assigned("a:0").attempt == 4
    assert [one.attempt for one in story.assigned("a:0").feedback] == [1, 2, 3]
    story.attempt("a:0", "fail")
    assert story.task("a:0").outcome == "failed"
    assert len(story.task("a:0").attempts) == 4


def test_what_was_said_before_the_retry_is_no_going_in_circles() -> None:
    """The same output and the same objections as before the retry do not end the task."""
    story = Story((step("s", attempts=3),)).go_on()
    story.attempt("s", "fail", output="same", evidence="no")
    story.attempt("s", "fail", output="same", evidence="no")
    assert story.task("s").outcome == "failed", "it goes in circles"
    story.retry("s")
    story.go_on()
    story.attempt("s", "fail", output="same", evidence="no")
    assert story.task("s").outcome is None
    story.attempt("s", "fail", output="same", evidence="no")
    assert story.task("s").outcome == "failed"


def test_the_agent_of_the_step_begins_again_after_a_handover() -> None:
    """Who took over is the last to try, not the first after a retry."""
    steps = (step("s", attempts=1, handover=Handover(agent="w2")),)
    story = Story(steps).go_on()
    fail(story, "s")
    assert story.assigned("s").role == "w2@t"
    story.retry("s")
    story.go_on()
    assert (story.assigned("s").role, story.assigned("s").attempt) == ("w@t", 3)
    story.attempt("s", "fail")
    assert (story.assigned("s").role, story.assigned("s").attempt) == ("w2@t", 4)


def test_an_item_of_an_open_job_is_put_back_and_comes_last() -> None:
    """It waits for a place like any other task, behind those that never began."""
    story = Story(ITEMS, {"a": 4}, parallel=1).go_on()
    fail(story, "a:0")
    story.retry("a:0")
    begun = []
    for _ in range(4):
        (task,) = [one.id for one in story.go_on().state.open_tasks()]
        begun.append(task)
        story.attempt(task)
    assert begun == ["a:1", "a:2", "a:3", "a:0"]
    assert story.state.queue == ("a", "b")


def test_a_task_that_never_began_may_be_put_back() -> None:
    """Its first attempt is number one."""
    story = Story((step("s"), step("t")))
    story.carry_out(*story.decide())
    story.carry_out(CloseTask("s", 0, 0, "failed", reason="it could not be put into words"))
    story.go_on()
    story.retry("s")
    story.go_on()
    assert story.assigned("s").attempt == 1
    story.attempt("s")
    story.attempt("t")
    over(story, "succeeded")


def test_a_blocked_chain_is_made_after_its_need() -> None:
    """What was cancelled for want of its need runs once the need delivers, and is cancelled again if it does not."""
    story = Story((step("a", attempts=1), step("b", needs=("a",)), step("c", needs=("b",)))).go_on()
    fail(story, "a")
    over(story, "failed")
    story.retry("a")
    story.go_on()
    story.attempt("a", "fail")
    over(story, "failed")
    assert [story.task(name).outcome for name in "abc"] == ["failed", "cancelled", "cancelled"]
    story.retry("a")
    for name in "abc":
        story.go_on().attempt(name)
    over(story, "succeeded")


def test_a_step_with_items_is_counted_again_after_its_need() -> None:
    """None of its items was accepted: it is expanded anew, and may have others."""
    story = Story(FAN_OUT, {"b": 2}).go_on()
    story.attempt("a")
    fail(story, "b:0")
    fail(story, "b:1")
    over(story, "failed")
    story.retry("b:0")
    story.go_on()
    story.attempt("b:0")
    assert story.task("c").phase is Phase.ASSIGNED
    blocked = Story(FAN_OUT, {"b": 2}).go_on()
    fail(blocked, "a")
    over(blocked, "failed")
    assert blocked.state.steps["b"].blocked
    blocked.retry("a")
    blocked.go_on()
    blocked.attempt("a")
    assert blocked.state.steps["b"].size == 2
    for name in ("b:0", "b:1", "c"):
        blocked.attempt(name)
    over(blocked, "succeeded")


def test_items_of_a_step_that_is_counted_again_begin_anew_at_the_ends_of_their_chains() -> None:
    """They may be other items: nothing of the old ones is told, and fewer of them are fewer tasks."""
    steps = (step("a", items=True, attempts=1), step("b", items=True, needs=("a",), attempts=1))
    story = Story(steps, {"a": 2, "b": 2}).go_on()
    fail(story, "a:0")
    story.attempt("a:1")
    story.intend("b:0")
    fail(story, "b:0")
    fail(story, "b:1")
    head = story.task("b:0").head
    story.items["b"] = 1
    story.retry("a:0")
    story.go_on().attempt("a:0")
    assert story.assigned("b:0").attempt == 1
    assert story.assigned("b:0").answers == head
    assert story.assigned("b:0").feedback == ()
    story.record("b:0", "in_doubt")
    assert story.state.effects["k"].status is EffectStatus.IN_DOUBT
    story.attempt("b:0")
    over(story, "succeeded")


def test_a_stop_closes_what_was_put_back() -> None:
    """A kill before it is assigned cancels it, and the job ends."""
    story = with_failed_item()
    story.attempt("b")
    story.retry("a:0")
    story.killed = "stop"
    story.go_on()
    over(story, "killed")
    assert (story.task("a:0").outcome, story.task("b").outcome) == ("cancelled", "cancelled")
    assert story.state.queue == ("a", "b"), "no item is left in it"


def test_what_is_written_out_of_turn_does_not_fail_what_was_put_back() -> None:
    """A task that waits to be assigned again goes on doing so, from the new head of its chain."""
    story = with_failed_item()
    story.attempt("b")
    story.retry("a:0")
    late = story.log[4].message.model_copy(update={"task": "a:0", "answers": story.task("a:0").head})
    story.tell(late)
    assert story.state.refused == 1
    assert story.task("a:0").phase is Phase.RETRIED
    (command,) = story.decide()
    assert isinstance(command, Assign)
    assert command.answers == len(story.log)


def refused(story: Story, *tasks: str, because: str) -> None:
    """Check that an entry that would put ``tasks`` back changes nothing, and that it is said why."""
    before = story.state
    story.retry(*tasks)
    assert story.state == replace(before, refused=before.refused + 1, head=len(story.log))
    assert because in retry_objection(before, tasks, story.now)


def test_what_did_not_fail_is_not_put_back() -> None:
    """Neither what was accepted, settled or not, nor what is open, unknown or put back already."""
    story = with_failed_item()
    refused(story, "b", because="b is at work")
    story.attempt("b")
    refused(story, "a:1", because="a:1 was accepted")
    refused(story, "a:0", "a:1", because="a:1 was accepted")
    story.state = settle(story.state, "a:1")
    refused(story, "a:1", because="a:1 was accepted")
    for unknown in ("a:7", "nowhere", "a", "b:0"):
        refused(story, unknown, because=f"{unknown} is no task of the job")
    story.retry("a:0")
    refused(story, "a:0", because="put back already")


def test_nothing_is_put_back_while_what_needs_it_is_at_work() -> None:
    """What is being made of the rest is not pulled away."""
    story = with_failed_item()
    refused(story, "a:0", because="step b, which needs it, is at work")


def test_nothing_is_put_back_that_accepted_items_were_made_from() -> None:
    """Items cannot be told apart when they are counted again, so those that were accepted stay."""
    story = Story((step("a", items=True, attempts=1), step("b", items=True, needs=("a",))), {"a": 2, "b": 1}).go_on()
    fail(story, "a:0")
    story.attempt("a:1")
    story.attempt("b:0")
    refused(story, "a:0", because="step b was made from it, 1 of its items")


def test_a_job_that_would_be_stopped_at_once_is_not_taken_up() -> None:
    """Its time or its budget is used up, it was killed, or its plan must not run."""
    late = Story(ITEMS, {"a": 1}, budget=Budget(seconds=60)).go_on()
    fail(late, "a:0")
    assert retry_objection(late.state, ["a:0"], NOW) == ""
    late.now = NOW + timedelta(seconds=60)
    refused(late, "a:0", because="out of time")
    dear = Story(ITEMS, {"a": 1}, budget=Budget(calls=2)).go_on()
    for _ in range(2):
        dear.result("a:0", usage=Usage(calls=1))
        dear.verdict("a:0", "fail")
        dear.go_on()
    refused(dear, "a:0", because="out of budget")
    killed = with_failed_item()
    killed.killed = "stop"
    refused(killed.go_on(), "a:0", because="killed")
    rejected = with_failed_item()
    common = {"id": "x", "ns": "n", "job": "j", "at": NOW, "answers": rejected.state.head}
    rejected.tell(PlanRejected.model_validate({**common, "version": 1, "reasons": ("no",)}))
    refused(rejected.go_on(), "a:0", because="rejected: no")
    assert retry_objection(JobState(), ["a"]) == "the job has no plan yet, so none of its tasks can have failed"


@pytest.mark.parametrize("early", ["b", "_"])
def test_a_state_that_knew_later_entries_first_says_that_it_may_be_wrong(early: str) -> None:
    """Folding the log again from the start gives the right one."""
    story = with_failed_item()
    story.attempt("b")
    story.retry("a:0")
    story.go_on()
    entries = [one for one in story.log if one.message.task == early][-1:]
    assert not fold(story.log).disordered
    last = next(one for one in story.log if one.message.kind == "job.retried")
    older = [one for one in story.log if one.seq < last.seq]
    stray = replace(entries[0], seq=last.seq + 1, message=entries[0].message.model_copy(update={"task": "b:5"}))
    assert evolve(evolve(fold(older), stray), last).disordered
    assert not evolve(fold(older), last).disordered


def test_poison_fails_at_once_and_may_be_put_back() -> None:
    """No attempt is left to it and nobody takes over; after a retry it is tried again."""
    story = Story((step("s", attempts=3, handover=Handover(agent="w2")),)).go_on()
    story.result("s", status="gave_up", reason="3 processes ended over it", poison=True)
    story.verdict("s", "uncertain")
    story.go_on()
    over(story, "failed")
    assert story.task("s").reason == "poison: 3 processes ended over it"
    assert len(story.task("s").attempts) == 1
    story.retry("s")
    story.go_on()
    story.attempt("s")
    over(story, "succeeded")


def test_the_commands_of_a_put_back_job_are_those_of_a_settled_one() -> None:
    """Settling what was accepted changes nothing of what is made again."""
    story = with_failed_item()
    story.attempt("b")
    lean = settle(story.state, "a:1")
    story.retry("a:0")
    assert Story.decide(story) == Story.decide(replace_state(story, evolve(lean, story.log[-1])))
    assert not [one for one in story.decide() if isinstance(one, ExpandStep)]


def replace_state(story: Story, state: JobState) -> Story:
    other = Story(story.steps, story.items)
    other.state = state
    return other
