"""Budgets of jobs and steps: who pays for what, and how what runs out of one ends."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.protocol.story import NOW, Story, step, team_of

from interlock.protocol.budgets import allowances_of, counter_of, narrower, owner_of, seconds_for
from interlock.protocol.commands import Assign
from interlock.protocol.decide import wakes_at
from interlock.protocol.messages import Allowance, JobClosed, JobSubmitted
from interlock.protocol.retries import retry_objection
from interlock.protocol.team import Budget

_SHORT = "100 of 100 calls of step a of job j are used or reserved"


def _two_steps(budget: Budget, *, parallel: int = 2) -> Story:
    """Begin a job of two steps with four and one items, the first of which has a budget."""
    steps = (step("a", items=True, budget=budget), step("b"))
    return Story(steps, {"a": 4}, parallel=parallel + 1).go_on()


def _closed(story: Story) -> JobClosed:
    assert story.state.closed is not None
    return story.state.closed


_BUDGETS = st.builds(
    Budget,
    calls=st.none() | st.integers(1, 9),
    tokens=st.none() | st.integers(1, 9),
    seconds=st.none() | st.floats(0.1, 9),
)


@given(one=_BUDGETS, other=_BUDGETS)
def test_the_narrower_of_two_budgets_allows_what_both_do(one: Budget, other: Budget) -> None:
    """In each unit it is bound by whichever bounds it more, and by nothing that bounds neither."""
    both = narrower(one, other)
    assert both == narrower(other, one)
    for unit in ("calls", "tokens", "seconds"):
        bounds = [getattr(one, unit), getattr(other, unit)]
        for amount in (1, 3, 5, 10):
            allowed = all(bound is None or amount <= bound for bound in bounds)
            assert (getattr(both, unit) is None or amount <= getattr(both, unit)) == allowed


def test_jobs_around_pay_first_and_the_step_pays_last() -> None:
    """What pays is the job's own budget, its step's, and all that came with the job; time alone pays nothing."""
    paying = Allowance(job="p", step="s", calls=9)
    one = step("a", budget=Budget(tokens=5))
    submitted = JobSubmitted(
        id="m", ns="n", job="p:1", at=NOW, team=team_of([one]), goal="g", budget=Budget(calls=7), allowances=(paying,)
    )
    own, of_step = Allowance(job="p:1", calls=7), Allowance(job="p:1", step="a", tokens=5)
    assert allowances_of(submitted, one) == (paying, own, of_step)
    assert allowances_of(submitted) == (paying, own)
    timed = submitted.model_copy(update={"budget": Budget(seconds=9), "allowances": ()})
    assert allowances_of(timed, step("a", budget=Budget(seconds=1))) == ()
    assert (counter_of(paying, "calls"), counter_of(own, "used")) == ("p.s.calls", "p:1.used")
    assert (owner_of(paying), owner_of(own)) == ("step s of job p", "job p:1")


def test_a_step_without_budget_left_ends_and_the_others_go_on() -> None:
    """Its tasks fail with the reason, those at work may end, and the job is partial with what the others have."""
    story = _two_steps(Budget(calls=100))
    story.attempt("a:0")
    story.result("a:1", status="gave_up", output=None, spent=_SHORT, spent_of="step")
    story.verdict("a:1", "fail")
    story.go_on()
    outcomes = [task.outcome for task in story.state.tasks_of("a")]
    assert outcomes == ["accepted", "failed", None, "failed"], "a:2 was at work, and is paid for"
    assert story.task("a:3").reason == f"out of budget: {_SHORT}"
    story.attempt("a:2")
    story.attempt("b")
    assert [story.task(name).outcome for name in ("a:2", "b")] == ["accepted", "accepted"]
    assert (_closed(story).status, story.state.spent) == ("partial", "")
    objection = retry_objection(story.state, ["a:3"], NOW)
    assert objection.startswith("a:3 would be ended again at once, submit a new job: its step is out of budget")


def test_what_a_judge_could_not_be_asked_ends_the_step_too() -> None:
    """A verdict says it as a result does: the task fails, and is not tried again."""
    story = _two_steps(Budget(calls=100))
    story.result("a:0")
    story.verdict("a:0", "uncertain", spent=_SHORT, spent_of="step")
    story.go_on()
    assert (story.task("a:0").outcome, len(story.task("a:0").attempts)) == ("failed", 1)
    assert story.task("a:0").reason == f"out of budget: {_SHORT}"


def test_what_passed_stands_when_its_step_is_over() -> None:
    """A verdict that the manager finds after the step's end is still a pass."""
    story = _two_steps(Budget(seconds=60))
    story.result("a:0")
    story.verdict("a:0", "pass")
    story.now = NOW + timedelta(seconds=61)
    story.go_on()
    assert [task.outcome for task in story.state.tasks_of("a")] == ["accepted", "failed", "failed", "failed"]


def test_a_step_ends_when_its_time_is_over() -> None:
    """It counts from the first assignment; what is at work then is ended, and the manager wakes up for it."""
    story = _two_steps(Budget(seconds=60))
    assert wakes_at(story.state) == NOW + timedelta(seconds=60)
    assert seconds_for(story.state, story.steps[0], NOW + timedelta(seconds=45)) == 15
    assert seconds_for(story.state, story.steps[0], NOW + timedelta(seconds=61)) > 0
    assert seconds_for(story.state, story.steps[1], NOW) == 600
    story.now = NOW + timedelta(seconds=60)
    story.go_on()
    assert {task.outcome for task in story.state.tasks_of("a")} == {"failed"}
    assert story.task("a:1").reason == "out of time: step a had to be over by 2026-01-01T00:01:00+00:00"
    story.attempt("b")
    assert (_closed(story).status, wakes_at(story.state)) == ("partial", None)


def test_tasks_that_are_put_back_have_the_time_of_their_step_again() -> None:
    """A person who puts them back wants them done."""
    story = _two_steps(Budget(seconds=60))
    story.now = NOW + timedelta(seconds=60)
    story.go_on()
    story.attempt("b")
    story.retry("a:0")
    assert story.state.closed is None
    assert story.state.steps["a"].began is None
    assert [one.task for one in story.decide() if isinstance(one, Assign)] == ["a:0"]


def test_a_job_that_needs_exactly_its_budget_succeeds() -> None:
    """Having used all is no reason to end: only who is refused more says that it was not enough."""
    story = Story((step("a"),), budget=Budget(calls=2)).go_on()
    story.result("a", usage=story.state.usage.model_copy(update={"calls": 2}))
    assert story.decide() == ()
    story.verdict("a", "pass")
    story.go_on()
    assert (_closed(story).status, _closed(story).reason) == ("succeeded", "")


def test_a_job_without_budget_left_keeps_what_is_paid_for() -> None:
    """Nothing more begins, nobody is waited for who would have to be paid, and the job says which budget it was."""
    story = Story((step("a", items=True),), {"a": 5}, parallel=3, budget=Budget(calls=100)).go_on()
    story.ask("a:2")
    story.result("a:0", status="gave_up", output=None, spent="100 of 100 calls of job j are used or reserved")
    story.verdict("a:0", "fail")
    story.go_on()
    assert [one.outcome for one in story.state.tasks_of("a")] == [
        "cancelled",
        None,
        "cancelled",
        "cancelled",
        "cancelled",
    ]
    story.attempt("a:1")
    assert (_closed(story).status, _closed(story).reason) == (
        "partial",
        "out of budget: 100 of 100 calls of job j are used or reserved",
    )
