"""What a manager decides, case by case."""

from datetime import timedelta

import pytest
from tests.unit.protocol.story import NOW, Story, step

from interlock.protocol.base import Usage
from interlock.protocol.commands import Assign, CloseJob, CloseTask
from interlock.protocol.decide import deadline_of
from interlock.protocol.messages import Feedback, JobClosed, PlanAccepted, TaskResult, TaskVerdict
from interlock.protocol.team import Budget, Handover


def closed(story: Story) -> JobClosed:
    assert story.state.closed is not None, "the job goes on"
    assert story.state.refused == 0
    return story.state.closed


def test_a_job_of_one_step_is_planned_assigned_judged_and_closed() -> None:
    """The shortest job: one task, one attempt, one pass."""
    story = Story((step("s"),)).go_on()
    assert [entry.message.kind for entry in story.log] == ["job.submitted", "plan.accepted", "task.assigned"]
    assert story.decide() == (), "others have to move"
    story.attempt("s", "pass")
    assert [entry.message.kind for entry in story.log[3:]] == [
        "task.result",
        "task.verdict",
        "task.closed",
        "job.closed",
    ]
    assert closed(story).status == "succeeded"
    assert story.task("s").output == "output 1"


def test_a_redo_carries_the_feedback_the_earlier_output_and_what_it_replaces() -> None:
    """A failed attempt leads to the next one, which is told what was wrong and what it redoes."""
    story = Story((step("s"),)).go_on()
    story.result("s", "too long")
    story.verdict("s", "fail", "41 words")
    (command,) = story.decide()
    assert isinstance(command, Assign)
    assert (command.attempt, command.agent, command.replaces) == (2, "w", "span-s-1")
    assert command.feedback == (Feedback(attempt=1, criteria=story.task("s").current.objections),)
    assert [one.evidence for one in command.feedback[0].criteria] == ["41 words"]
    assert command.earlier is not None
    assert command.earlier.output == "too long"


def test_feedback_of_all_earlier_attempts_is_kept_in_order() -> None:
    """The third attempt knows what was wrong with the first and the second."""
    story = Story((step("s"),)).go_on()
    story.attempt("s", "fail")
    story.attempt("s", "fail")
    assert [one.attempt for one in story.assigned("s").feedback] == [1, 2]


def test_feedback_names_only_what_does_not_hold() -> None:
    """A criterion that held is no objection; one that could not be decided is."""
    story = Story((step("s"),)).go_on()
    story.result("s")
    held = story.task("s")
    story.verdict("s", "uncertain", "the judge gave no answer")
    criteria = story.task("s").current.objections
    assert [one.holds for one in criteria] == [None]
    assert held.current.objections == ()


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_a_task_fails_when_its_attempts_are_used_up(attempts: int) -> None:
    """As many attempts as the step allows are made, and the reason is what the last one met."""
    story = Story((step("s", attempts=attempts),)).go_on()
    for _ in range(attempts):
        assert story.state.closed is None
        story.attempt("s", "fail")
    assert len(story.task("s").attempts) == attempts
    assert (story.task("s").outcome, story.task("s").reason) == ("failed", f"words: evidence {attempts}")
    assert closed(story).status == "failed"
    assert closed(story).reason == "s: 1 of 1 not accepted"


def test_another_agent_takes_over_when_attempts_are_used_up() -> None:
    """``on_failure`` names who tries next and how often; then the task fails."""
    story = Story((step("s", attempts=2, handover=Handover(agent="w2", attempts=2)),)).go_on()
    for _ in range(4):
        story.attempt("s", "fail")
    assert [attempt.role for attempt in story.task("s").attempts] == ["w@t", "w@t", "w2@t", "w2@t"]
    assert story.task("s").outcome == "failed"


def test_an_agent_takes_over_at_once_from_one_that_goes_in_circles() -> None:
    """A repetition is escalated before the attempts are used up."""
    story = Story((step("s", attempts=5, handover=Handover(agent="w2")),)).go_on()
    story.attempt("s", "fail", output="same")
    story.attempt("s", "fail", output="same")
    assert [attempt.role for attempt in story.task("s").attempts] == ["w@t", "w@t", "w2@t"]
    story.attempt("s", "pass", output="other")
    assert closed(story).status == "succeeded"


def test_an_agent_does_not_take_over_from_itself() -> None:
    """A step that hands over to its own agent ends when the attempts are used up."""
    story = Story((step("s", attempts=2, handover=Handover(agent="w", attempts=5)),)).go_on()
    story.attempt("s", "fail")
    story.attempt("s", "fail")
    assert len(story.task("s").attempts) == 2
    assert closed(story).status == "failed"


def test_the_same_result_twice_is_not_paid_for_again() -> None:
    """A second attempt that gives the first one's output ends the task, however many attempts are left."""
    story = Story((step("s", attempts=10),)).go_on()
    story.attempt("s", "fail", output={"a": 1, "b": [2]})
    story.attempt("s", "fail", output={"b": [2], "a": 1})
    assert story.task("s").outcome == "failed"
    assert "attempt 2 gave the same result as attempt 1" in story.task("s").reason
    assert "words: evidence 2" in story.task("s").reason


def test_the_same_result_after_another_one_is_a_repetition_too() -> None:
    """Going back to an earlier output is going in circles."""
    story = Story((step("s", attempts=10),)).go_on()
    for output in ("a", "b", "a"):
        story.attempt("s", "fail", output=output)
    assert "attempt 3 gave the same result as attempt 1" in story.task("s").reason


def test_giving_up_twice_is_no_repetition_of_a_result() -> None:
    """Attempts without an output have none to repeat."""
    story = Story((step("s", attempts=3),)).go_on()
    for _ in range(2):
        story.result("s", status="gave_up", reason="no idea")
        story.verdict("s", "fail")
        story.go_on()
    assert story.task("s").current.number == 3


def test_a_repeated_result_that_passes_is_accepted() -> None:
    """Repetition is a reason not to go on, never a reason to refuse what passed."""
    story = Story((step("s"),)).go_on()
    story.attempt("s", "uncertain", output="same")
    story.attempt("s", "pass", output="same")
    assert (story.task("s").outcome, story.task("s").stands) == ("accepted", 2)


def test_the_same_objections_three_times_end_a_task() -> None:
    """Different outputs that meet the same objections again and again are a loop as well."""
    story = Story((step("s", attempts=10),)).go_on()
    for _ in range(3):
        story.attempt("s", "fail", evidence="the number is missing")
    assert story.task("s").outcome == "failed"
    assert "attempts 1 to 3 met the same objections" in story.task("s").reason


def test_other_objections_in_between_are_no_loop() -> None:
    """Only the same objections in a row count."""
    story = Story((step("s", attempts=10),)).go_on()
    for evidence in ("a", "b", "a", "a"):
        story.attempt("s", "fail", evidence=evidence)
    assert story.task("s").current.number == 5


def test_a_bad_item_does_not_lose_the_good_ones() -> None:
    """One failed item of a ``for_each`` makes the job partial, and the rest stands."""
    story = Story((step("s", items=True, attempts=1),), {"s": 3}).go_on()
    for task, verdict in (("s:0", "pass"), ("s:1", "fail"), ("s:2", "pass")):
        story.attempt(task, "pass" if verdict == "pass" else "fail")
    assert [task.outcome for task in story.state.tasks_of("s")] == ["accepted", "failed", "accepted"]
    assert (closed(story).status, closed(story).reason) == ("partial", "s: 1 of 3 not accepted")


def test_a_step_after_a_partial_one_runs_on_what_was_accepted() -> None:
    """One accepted item is enough for the steps that need the list; the job still tells that it is partial."""
    story = Story((step("a", items=True, attempts=1), step("b", needs=("a",))), {"a": 2}).go_on()
    story.attempt("a:0", "fail")
    assert "b" not in story.state.tasks
    story.attempt("a:1", "pass")
    story.attempt("b", "pass")
    assert closed(story).status == "partial"


@pytest.mark.parametrize("items", [False, True])
def test_a_step_is_blocked_when_its_need_delivered_nothing(items: bool) -> None:
    """A step that needs a failed one never runs, and says why."""
    story = Story((step("a", attempts=1), step("b", needs=("a",), items=items)), {"b": 3}).go_on()
    story.attempt("a", "fail")
    reason = "nothing was accepted of a, which it needs"
    if items:
        assert story.state.steps["b"].blocked == reason
    else:
        assert (story.task("b").outcome, story.task("b").reason) == ("cancelled", reason)
    assert closed(story).status == "failed"


def test_blocking_goes_on_down_the_plan() -> None:
    """What needs a blocked step is blocked too, whether it is one task or many."""
    steps = (
        step("a", attempts=1),
        step("b", needs=("a",), items=True),
        step("c", needs=("b",)),
        step("d", needs=("c",)),
    )
    story = Story(steps, {"b": 3}).go_on()
    story.attempt("a", "fail")
    assert [story.task(name).outcome for name in ("c", "d")] == ["cancelled", "cancelled"]
    assert closed(story).status == "failed"


def test_a_branch_that_fails_leaves_the_other_branch_alone() -> None:
    """Steps that need nothing of the failed one run, and their results stand."""
    story = Story((step("a", attempts=1), step("b", needs=("a",)), step("c"))).go_on()
    story.attempt("a", "fail")
    story.attempt("c", "pass")
    assert (closed(story).status, story.task("b").outcome) == ("partial", "cancelled")


def test_an_empty_list_is_a_success_and_lets_others_run() -> None:
    """No items is not a failure: the steps that need the list run."""
    story = Story((step("a", items=True), step("b", needs=("a",))), {"a": 0}).go_on()
    story.attempt("b", "pass")
    assert closed(story).status == "succeeded"


def test_a_job_of_an_empty_list_alone_succeeds() -> None:
    """Nothing to do is done."""
    assert closed(Story((step("a", items=True),), {"a": 0}).go_on()).status == "succeeded"


@pytest.mark.parametrize(
    ("budget", "usage", "reason"),
    [
        (Budget(tokens=100), Usage(prompt_tokens=60, completion_tokens=40), "100 of 100 tokens"),
        (Budget(calls=2), Usage(calls=3), "3 of 2 model calls"),
    ],
)
def test_a_job_ends_when_its_budget_is_used_up(budget: Budget, usage: Usage, reason: str) -> None:
    """Nothing more is begun, what is at work and paid for may end, what passed stands, and the job is partial."""
    story = Story((step("s", items=True),), {"s": 4}, parallel=2, budget=budget).go_on()
    story.attempt("s:0", "pass")
    story.result("s:1", usage=usage)
    story.verdict("s:1", "pass")
    story.go_on()
    assert [task.outcome for task in story.state.tasks_of("s")] == ["accepted", "accepted", None, "cancelled"]
    assert story.state.closed is None
    story.attempt("s:2", "fail")
    story.go_on()
    assert [task.outcome for task in story.state.tasks_of("s")] == ["accepted", "accepted", "cancelled", "cancelled"]
    assert reason in story.task("s:2").reason, "it is not tried again"
    assert reason in story.task("s:3").reason, "a task that never began says why, too"
    assert closed(story).status == "partial"


def test_a_job_is_over_at_its_deadline() -> None:
    """A job ends when its seconds are over, with what it has; with nothing it failed."""
    story = Story((step("s"),), budget=Budget(seconds=60)).go_on()
    story.now = NOW + timedelta(seconds=59)
    assert story.decide() == ()
    story.now = NOW + timedelta(seconds=60)
    story.go_on()
    assert (story.task("s").outcome, closed(story).status) == ("cancelled", "failed")
    assert "out of time: the job had to be over by 2026-01-01T00:01:00" in closed(story).reason


def test_the_earlier_of_deadline_and_seconds_counts() -> None:
    """A deadline from outside and a budget of seconds both bind; seconds beyond every calendar bind nothing."""
    soon, late = NOW + timedelta(seconds=10), NOW + timedelta(seconds=1_000)
    steps = (step("s"),)
    assert deadline_of(Story(steps, budget=Budget(seconds=100), deadline=soon).state) == soon
    assert deadline_of(Story(steps, budget=Budget(seconds=100), deadline=late).state) == NOW + timedelta(seconds=100)
    assert deadline_of(Story(steps).state) is None
    assert deadline_of(Story(steps, budget=Budget(seconds=1e300)).state) is None


def test_a_killed_job_is_killed_and_keeps_what_passed() -> None:
    """A kill cancels what is open or unbegun, accepts what had passed, and closes the job as killed."""
    story = Story((step("s", items=True),), {"s": 3}, parallel=2).go_on()
    story.result("s:0")
    story.verdict("s:0", "pass")
    story.killed = "stopped by hand"
    story.go_on()
    assert [task.outcome for task in story.state.tasks_of("s")] == ["accepted", "cancelled", "cancelled"]
    assert (closed(story).status, closed(story).reason) == ("killed", "stopped by hand")


def test_a_job_killed_before_its_plan_is_closed_at_once() -> None:
    """There is nothing to cancel, so the job's end is the next entry."""
    story = Story((step("s"),), killed="stop")
    assert story.decide() == (CloseJob(1, "killed", "stop"),)


def test_a_job_waits_for_its_tasks_to_be_cancelled() -> None:
    """The end of a stopped job is decided only on a log that holds the end of every task."""
    story = Story((step("s", items=True),), {"s": 2}, parallel=1).go_on()
    story.killed = "stop"
    assert story.decide() == (
        CloseTask("s:0", 1, story.task("s:0").head, "cancelled", reason="stop"),
        CloseTask("s:1", 0, 0, "cancelled", reason="stop"),
    )


@pytest.mark.parametrize("killed", [None, "stop"])
def test_uncertain_is_never_accepted(killed: str | None) -> None:
    """A verifier that could not decide does not let a result in, not even when the job is stopped."""
    story = Story((step("s", attempts=1),)).go_on()
    story.result("s")
    story.verdict("s", "uncertain")
    story.killed = killed
    story.go_on()
    assert story.task("s").outcome == ("cancelled" if killed else "failed")
    assert story.task("s").output is None


def test_items_begin_in_order_and_never_more_than_the_limit() -> None:
    """Tasks are assigned in the order of their items, as many as the limit leaves room for."""
    story = Story((step("s", items=True),), {"s": 5}, parallel=2).go_on()
    order = [task.id for task in story.state.open_tasks()]
    assert sorted(order) == ["s:0", "s:1"]
    for done, begun in (("s:1", "s:2"), ("s:0", "s:3"), ("s:3", "s:4")):
        story.attempt(done, "pass")
        assert begun in story.state.tasks
        assert story.state.open == 2


def test_a_redo_needs_no_room() -> None:
    """A task keeps its place while it is redone."""
    story = Story((step("s", items=True),), {"s": 2}, parallel=1).go_on()
    story.attempt("s:0", "fail")
    assert story.task("s:0").current.number == 2
    assert story.state.open == 1


def test_steps_take_turns_as_they_become_ready() -> None:
    """First come, first served: a step that became ready later waits, though the plan lists it first."""
    story = Story((step("late", needs=("first",)), step("first"), step("wide", items=True)), {"wide": 2}, parallel=1)
    story.go_on()
    assert story.state.queue == ("first", "wide")
    story.attempt("first", "pass")
    assert list(story.state.queue) == ["first", "wide", "late"]
    assert [task.id for task in story.state.open_tasks()] == ["wide:0"]


def test_a_refused_entry_leaves_a_chain_that_can_be_ended() -> None:
    """A result of an attempt that does not exist stops nobody: the task fails with the reason and the job ends."""
    story = Story((step("s"),)).go_on()
    story.tell(
        TaskResult(
            id="x",
            ns="n",
            job="j",
            at=NOW,
            task="s",
            attempt=7,
            answers=story.task("s").head,
            by="w@t",
            role="v@t",
            status="done",
        )
    )
    assert story.state.refused == 1
    story.go_on()
    assert story.task("s").outcome == "failed"
    assert "no next step" in story.task("s").reason
    assert story.state.closed is not None


def test_a_task_begins_after_whatever_stands_in_its_chain() -> None:
    """An entry about a task that never began is refused, and the first assignment answers it."""
    story = Story((step("s"),))
    story.carry_out(*story.decide())
    story.tell(TaskVerdict(id="x", ns="n", job="j", at=NOW, task="s", attempt=1, answers=0, by="v@t", verdict="pass"))
    (command,) = story.decide()
    assert isinstance(command, Assign)
    assert command.answers == 3
    story.carry_out(command)
    story.attempt("s", "pass")
    assert story.state.closed is not None
    assert story.state.closed.status == "succeeded"


def test_an_announced_effect_moves_the_chain_and_not_the_task() -> None:
    """A result answers the effect that its attempt announced."""
    story = Story((step("s"),)).go_on()
    head = story.task("s").head
    story.intend("s")
    assert story.task("s").head == head + 1
    story.attempt("s", "pass")
    assert closed(story).status == "succeeded"


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"result_steps": ("nowhere",)},
        {"steps": (step("s"), step("s"))},
        {"steps": (step("s", needs=("s",)),)},
        {"steps": (step("s", needs=("nowhere",)),)},
    ],
    ids=str,
)
def test_a_plan_that_cannot_run_is_refused(change: dict[str, object]) -> None:
    """A second version, a circle, an unknown need and an unknown result never become the job's plan."""
    story = Story((step("s"),))
    plan = PlanAccepted(id="p", ns="n", job="j", at=NOW, answers=1, version=1, steps=(step("s"),), result_steps=("s",))
    story.tell(plan.model_copy(update=change))
    assert (story.state.refused, story.state.version) == (1, 0)
    story.go_on()
    assert story.state.version == 1, "the manager's own plan still gets in"
