"""The graph of steps: order, circles, names."""

import pytest

from interlock.protocol.plan import (
    PlanCycle,
    PlanError,
    StepDefinedTwice,
    TaskIdInvalid,
    UnknownNeed,
    all_needs,
    check_graph,
    parse_task_id,
    sinks,
    task_id,
    topological_order,
)
from interlock.protocol.team import Step


def steps_of(**needs: str) -> list[Step]:
    return [Step(step=name, agent="a", do="x", needs=tuple(words.split())) for name, words in needs.items()]


def test_order_follows_needs_and_then_the_plan() -> None:
    """A step comes after all that it needs; where there is a choice, the plan's order stands."""
    assert topological_order(steps_of(d="b c", c="a", b="a", a="", e="")) == ("a", "c", "b", "d", "e")


def test_implied_needs_count() -> None:
    """What templates imply is added to what a step says, each once."""
    steps = steps_of(a="", b="", c="a")
    needs = all_needs(steps, {"c": ["b", "a"], "b": ["a"]})
    assert needs == {"a": (), "b": ("a",), "c": ("a", "b")}
    assert topological_order(steps, needs) == ("a", "b", "c")
    assert sinks(steps, needs) == ("c",)
    assert sinks(steps) == ("b", "c")


def test_each_problem_has_its_step_and_field() -> None:
    """Everything that is wrong is found at once, in the order of the plan."""
    steps = [*steps_of(a="x", b="c", c="b", d="d"), *steps_of(a="")]
    found = [(problem.index, problem.field, type(problem.error)) for problem in check_graph(steps)]
    assert found == [
        (1, "needs", PlanCycle),
        (3, "needs", PlanCycle),
        (4, "step", StepDefinedTwice),
    ]
    found = [(problem.index, problem.field, type(problem.error)) for problem in check_graph(steps_of(a="x", b="a y"))]
    assert found == [(0, "needs", UnknownNeed), (1, "needs", UnknownNeed)]


def test_a_cycle_is_shown_with_its_path() -> None:
    """The path starts at the circle's first step of the plan and leaves out what only leads into it."""
    (problem,) = check_graph(steps_of(z="a", a="b", b="c", c="a"))
    assert isinstance(problem.error, PlanCycle)
    assert problem.error.path == ("a", "b", "c", "a")
    assert "a -> b -> c -> a" in str(problem.error)
    assert problem.index == 1


def test_a_plan_without_order_has_an_error() -> None:
    """Asking for the order of what is no graph raises the first problem."""
    with pytest.raises(PlanCycle):
        topological_order(steps_of(a="b", b="a"))
    with pytest.raises(UnknownNeed, match="steps: a"):
        topological_order(steps_of(a="b"))


@pytest.mark.parametrize(("step", "index"), [("a", None), ("bring-together", 0), ("a_1", 123456)])
def test_task_ids_go_both_ways(step: str, index: int | None) -> None:
    """The id of a task says its step and item."""
    assert parse_task_id(task_id(step, index)) == (step, index)


@pytest.mark.parametrize("text", ["", "_", "A", "a:", "a:01", "a:-1", "a:b", "a:1:2", "a\n", "a:" + "1" * 99, "a b"])
def test_what_is_no_task_id_is_refused(text: str) -> None:
    """Nothing but an id is read as one, least of all the token of the job's own chain."""
    with pytest.raises(TaskIdInvalid) as caught:
        parse_task_id(text)
    assert isinstance(caught.value, PlanError)
