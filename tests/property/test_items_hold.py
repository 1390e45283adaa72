"""Where the items of a job stand is no matter of what its tasks are."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.strategies import json_values
from tests.unit.agents.managed import Bodies, Managed, managed

from interlock.protocol.base import Json
from interlock.protocol.messages import TaskAssigned, TaskClosed

_LISTS = st.lists(json_values, min_size=1, max_size=12)
_SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=3)

_PLAN: tuple[dict[str, Any], ...] = (
    {"step": "s", "for_each": "{{ inputs.list }}", "do": "{{ index }} of {{ goal }}: {{ item }}"},
    {"step": "r", "for_each": "{{ steps.s.results }}", "do": "{{ item.index }} {{ item.item }} {{ item.output }}"},
    {"step": "o", "for_each": "{{ steps.s.outputs[1:] }}", "do": "{{ item }} {{ steps.s.failed }}"},
    {"step": "end", "do": "{{ inputs.list }} {{ steps.s }} {{ steps.o.results }}", "needs": ["r"]},
)
_DECLARED = {"list": {"type": "jsonl", "outside": False}}


def _driven(story: Managed, passes: list[bool]) -> Managed:
    """Give every task of the job its turn, the last first; some items fail."""
    while tasks := sorted((task.id for task in story.state.open_tasks()), reverse=True):
        for task in tasks:
            index = story.task(task).index
            passed = task.startswith("s") is False or index is None or passes[index % len(passes)]
            story.result(task, [f"out of {task}", index])
            story.verdict(task, "pass" if passed else "fail")
            story.carry_out(*story.decide())
        story.go_on()
    return story


def _said(story: Managed) -> dict[str, Any]:
    """Return all that matters to those who do the tasks, and what came of the job."""
    told = {
        (one.message.task, one.message.attempt): one.message.model_dump(exclude={"id", "answers", "at"})
        for one in story.log
        if isinstance(one.message, TaskAssigned)
    }
    reasons = {one.message.task: one.message.reason for one in story.log if isinstance(one.message, TaskClosed)}
    return {"tasks": told, "reasons": reasons, "status": story.closed.status, "result": story.closed.result}


@settings(max_examples=40, deadline=None)
@given(items=_LISTS, sizes=_SIZES, most=st.integers(0, 12), passes=st.lists(st.booleans(), min_size=1, max_size=4))
def test_stored_items_and_settled_outputs_give_the_same_tasks(
    items: list[Json], sizes: list[int], most: int, passes: list[bool]
) -> None:
    """Instructions, labels, taint, order and results are the same, however a list is cut into chunks."""
    plan = tuple({**one, "attempts": 1} for one in _PLAN)
    inline = _driven(managed(*plan, inputs={"list": items}, declared=_DECLARED), passes)
    bodies = Bodies()
    stored = managed(
        *plan,
        bodies=bodies,
        by_input={"list": bodies.put(items, sizes)},
        declared=_DECLARED,
        settles=True,
        most_listed=most,
    )
    assert _said(_driven(stored, passes)) == _said(inline)
