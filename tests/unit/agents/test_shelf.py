"""What planners want for their messages, and what becomes of a message that it is not all there for."""

from typing import Any

import pytest
from tests.unit.agents.managed import Bodies, Managed, managed
from tests.unit.protocol.story import NOW

from interlock.agents import outcome
from interlock.agents.manager import Stamp
from interlock.agents.shelf import NOTHING, Places
from interlock.agents.uses import uses_in
from interlock.protocol.base import Json
from interlock.protocol.commands import Assign, CloseJob
from interlock.protocol.items import StoredItems
from interlock.protocol.messages import PlanExpanded

_ITEMS: list[Json] = [{"id": f"n{number}", "text": f"text {number}"} for number in range(8)]
_JSONL = {"jsonl": "items.jsonl"}


def over_file(*more: dict[str, Any], do: str = "{{ index }} {{ item.text }}", **fields: Any) -> Managed:
    """Return a job over items of a file that are stored in chunks of three."""
    bodies = Bodies()
    stored = bodies.put(_ITEMS)
    return managed({"step": "s", "for_each": _JSONL, "do": do}, *more, bodies=bodies, by_step={"s": stored}, **fields)


def over_input(*plan: dict[str, Any], **fields: Any) -> Managed:
    """Return a job with the stored input ``list``."""
    bodies = Bodies()
    stored = bodies.put(_ITEMS)
    return managed(*plan, bodies=bodies, by_input={"list": stored}, declared={"list": {"type": "jsonl"}}, **fields)


def finished(story: Managed) -> Managed:
    """Let every task of ``s`` pass, the later ones first."""
    for index in reversed(range(len(_ITEMS))):
        story.attempt(f"s:{index}", output=f"out {index}")
    return story


def test_where_an_item_is() -> None:
    """The chunk and the position in it, and nothing beyond the end."""
    stored = Bodies().put(range(7), sizes=(3, 1))
    places = Places(stored)
    found = [places.find(index) for index in range(9)]
    numbers = [(stored.chunks.index(place[0]), place[1]) if place else None for place in found]
    assert numbers == [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (2, 2), None, None]
    assert Places(StoredItems()).find(0) is None


@pytest.mark.parametrize(
    ("template", "inputs", "lists"),
    [
        ("{{ goal }} {{ item }}", set(), set()),
        ("{{ inputs.a }}", {"a"}, set()),
        ("{{ inputs['a'][0].x }} {{ steps.s.failed }} {{ steps.s.total }}", {"a"}, set()),
        ("{{ inputs | length }}", {"a", "b"}, set()),
        ("{% set i = inputs %}{{ i.a }}", {"a", "b"}, set()),
        ("{{ steps.s.outputs[3] }}", set(), {"outputs"}),
        (
            "{% for r in steps.s.results %}{{ r.item }}{% endfor %}{{ steps.s.failures }}",
            set(),
            {"results", "failures"},
        ),
        ("{{ steps.s }}", set(), {"outputs", "results", "failures"}),
        ("{{ steps['s'].outputs }}", set(), {"outputs"}),
        ("{{ steps[goal].outputs }}", set(), {"outputs", "results", "failures"}),
        ("{{ steps.other.outputs }}", set(), set()),
    ],
)
def test_what_a_template_uses(template: str, inputs: set[str], lists: set[str]) -> None:
    """Only what is spelt out where it is spelt out, and everything where it is not."""
    uses = uses_in([template])
    assert {name for name in ("a", "b") if uses.input(name)} == inputs
    assert uses.lists("s") == lists


def test_a_task_wants_the_chunk_of_its_item_and_nothing_else() -> None:
    """Counting the items of a stored list wants nothing at all."""
    story = over_file()
    expanded = story.log[2].message
    assert isinstance(expanded, PlanExpanded)
    assert (expanded.items, expanded.stored) == (len(_ITEMS), None)
    assigned = [story.assigned(f"s:{index}") for index in range(8)]
    assert [one.instruction for one in assigned] == [f"{index} text {index}" for index in range(8)]
    assert [one.label for one in assigned] == [f"n{index}" for index in range(8)]
    chunks = story.by_step["s"].chunks
    wanted = [one for one in story.asked if one != NOTHING]
    assert [one.chunks for one in wanted] == [(chunks[index // 3],) for index in range(8)]
    assert all(not (one.outputs or one.inputs or one.stream) for one in wanted)


def test_a_job_with_all_in_its_state_wants_nothing() -> None:
    """Whoever carries it asks nobody for anything."""
    story = managed(
        {"step": "s", "for_each": "{{ inputs.list }}", "do": "{{ item }}"},
        {"step": "t", "for_each": "{{ steps.s.results }}", "do": "{{ steps.s.outputs }}"},
        {"step": "end", "do": "{{ steps.t.results }} {{ inputs }}"},
        inputs={"list": _ITEMS},
    )
    finished(story)
    for index in range(8):
        story.attempt(f"t:{index}")
    story.attempt("end")
    assert story.closed.status == "succeeded"
    assert [one for one in story.asked if one not in (NOTHING, outcome_wanted())] == []


def outcome_wanted() -> Any:
    """Return what a result of no large step wants: nothing, within the bound."""
    return type(NOTHING)(bound=outcome.MAX_RESULT)


def test_a_stored_input_is_counted_as_it_is_and_brought_whole_where_more_of_it_is_used() -> None:
    """``for_each`` over the input itself needs a chunk a task; any other template has the whole list."""
    story = over_input(
        {"step": "s", "for_each": "{{ inputs.list }}", "do": "{{ item.text }}"},
        {"step": "n", "do": "{{ inputs.list | length }} of {{ inputs['list'][7].id }}"},
        {"step": "f", "for_each": "{{ inputs.list[:2] }}", "do": "{{ item.id }}"},
    )
    assert story.assigned("s:7").instruction == "text 7"
    assert story.assigned("n").instruction == "8 of n7"
    assert [story.assigned(f"f:{index}").instruction for index in range(2)] == ["n0", "n1"]
    whole = [one for one in story.asked if one.inputs]
    assert len(whole) == 2, "once for the single task, once to work out the short list"


def test_inputs_from_outside_taint_where_they_are_stored_as_where_they_are_not() -> None:
    """A stored list is as foreign as one that stands in the job."""
    story = over_input(
        {"step": "s", "for_each": "{{ inputs.list }}", "do": "{{ item.text }}"},
        {"step": "a", "do": "{{ inputs }}"},
        {"step": "b", "do": "go"},
    )
    taints = [story.assigned(task).taint for task in ("s:0", "a", "b")]
    assert taints == [("input list",), ("input list",), ()]
    assert over_file().assigned("s:0").taint == ("items of s",)


def test_labels_of_settled_items_are_kept() -> None:
    """A step that reads the outputs of settled items is labelled with what their workers had seen."""
    story = managed(
        {"step": "s", "for_each": [1, 2], "do": "go"}, {"step": "end", "do": "{{ steps.s.outputs }}"}, settles=True
    )
    story.result("s:0", taint=("tool web.fetch",))
    story.verdict("s:0", "pass")
    story.go_on()
    story.attempt("s:1")
    assert "s:0" not in story.state.tasks
    assert story.assigned("end").taint == ("tool web.fetch",)


def test_what_was_settled_is_brought_back() -> None:
    """A step after it sees outputs, results and failures as if all were in the state."""
    end = {
        "step": "end",
        "do": "{{ steps.s.outputs }} {{ steps.s.results }} {{ steps.s.failures }} {{ steps.s.failed }}",
    }
    stories = []
    for settles in (True, False):
        story = over_file({**end}, settles=settles)
        for index in (5, 0, 7, 1):
            story.attempt(f"s:{index}", output={"o": index})
        for index in (2, 3, 4, 6):
            for _ in range(3):
                story.attempt(f"s:{index}", "fail", output=f"bad {len(story.log)}")
        stories.append(story)
    assert stories[0].assigned("end").instruction == stories[1].assigned("end").instruction
    assert len(stories[0].state.tasks) == 5
    assert [one.outputs for one in stories[0].asked if one.outputs] == [("s",)]
    assert not any(one.outputs for one in stories[1].asked)


@pytest.mark.parametrize("member", ["outputs", "results"])
def test_a_list_that_a_step_delivered_is_stored_where_it_is_long(member: str) -> None:
    """Its place stands in the log, and the tasks of the next step are made of the chunks."""
    each = {"step": "t", "for_each": f"{{{{ steps.s.{member} }}}}", "do": "{{ item }}"}
    stored = finished(over_file(each, settles=True, most_listed=4))
    listed = finished(over_file(each, settles=True))
    expanded = next(
        one.message for one in stored.log if isinstance(one.message, PlanExpanded) and one.message.step == "t"
    )
    assert expanded.stored is not None
    assert expanded.stored.count == expanded.items == 8
    assert listed.state.steps["t"].stored is None
    for index in range(8):
        assert stored.assigned(f"t:{index}").instruction == listed.assigned(f"t:{index}").instruction
    assert any(one.stream is not None for one in stored.asked)


def test_a_manager_that_comes_later_works_a_short_list_out_again() -> None:
    """What a template gave is kept by nobody but who worked it out; the outputs behind it are wanted again."""
    story = finished(over_file({"step": "t", "for_each": "{{ steps.s.outputs }}", "do": "{{ item }}"}, settles=True))
    first = story.assigned("t:3")
    before = story.state.tasks["t:3"]
    command = Assign("t:3", story.state.steps["t"].spec, 3, 1, "w", 0)
    later = Managed((), plan=story.plan, bodies=story.bodies, by_step=story.by_step, settles=True)
    later.state, later.whole = story.state, story.whole
    assert later.planner.wants(story.state, command).outputs == ("s",)
    again = later.message(command)
    assert again.model_dump(exclude={"id", "answers"}) == first.model_dump(exclude={"id", "answers"})
    assert later.planner.wants(story.state, command) == NOTHING
    assert before.head


def test_an_item_that_is_lost_fails_its_task_and_no_other() -> None:
    """The reason says what is missing; the job goes on with the rest."""
    bodies = Bodies()
    stored = bodies.put(_ITEMS)
    del bodies[stored.chunks[1]]
    story = managed({"step": "s", "for_each": _JSONL, "do": "{{ item.id }}"}, bodies=bodies, by_step={"s": stored})
    for index in (3, 4, 5):
        assert story.task(f"s:{index}").outcome == "failed"
        assert f"item {index} of s cannot be had: it is lost" in story.task(f"s:{index}").reason
    for index in (0, 1, 2, 6, 7):
        story.attempt(f"s:{index}")
    assert story.closed.status == "partial"


def test_a_planner_that_nothing_was_brought_to_says_so() -> None:
    """An empty shelf is no reason to make a task of half of its text, or a result of half of its parts."""
    story = finished(over_file({"step": "end", "do": "{{ steps.s.outputs }}"}, settles=True))
    stamp = Stamp("x", NOW)
    end = Assign("end", story.state.steps["end"].spec, None, 1, "w", 0)
    closed: Any = story.planner.message(story.state, end, stamp)
    assert closed.kind == "task.closed"
    assert "what s delivered cannot be had: nobody brought it" in closed.reason
    over = finished(over_file(settles=True))
    ended: Any = over.planner.message(over.state, CloseJob(1, "succeeded"), stamp)
    assert (ended.status, ended.result) == ("failed", None)
    blocked = managed({"step": "s", "for_each": _JSONL, "do": "x"})
    assert "its for_each gives no items" in blocked.closed.reason


def test_a_result_that_is_too_large_is_left_where_it_is() -> None:
    """The job succeeds, and says which command prints what it delivered; other parts of the result are there."""
    one = finished(over_file(settles=True, beyond=frozenset({"s"})))
    assert (one.closed.status, one.closed.result) == ("succeeded", None)
    assert "`interlock results j --step s` has it" in one.closed.reason
    both = over_file({"step": "b", "do": "go"}, settles=True, beyond=frozenset({"s"}))
    both.attempt("b", output="B")
    finished(both)
    assert both.closed.result == {"s": None, "b": "B"}
    assert [wanted.bound for wanted in both.asked if wanted.bound] == [outcome.MAX_RESULT]


def test_a_result_in_the_state_has_the_same_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing was settled; what a template makes of it is no matter of the bound."""
    monkeypatch.setattr(outcome, "MAX_RESULT", 50)
    assert finished(over_file()).closed.result is None
    template = finished(over_file(result_template="{{ steps.s.outputs | length }}"))
    assert (template.closed.result, template.closed.reason) == (8, "")


def test_what_is_made_of_a_step_is_made_anew_after_a_retry() -> None:
    """A step whose task was put back and then passed shows what it delivers now, not what was kept of it."""
    story = managed(
        {"step": "s", "for_each": ["a", "b"], "attempts": 1},
        {"step": "end", "do": "{{ steps.s.outputs }} {{ steps.s.failures | length }}", "attempts": 1},
    )
    story.attempt("s:0", output="A")
    story.attempt("s:1", "fail")
    assert story.assigned("end").instruction == '["A"] 1'
    story.result("end", taint=())
    story.verdict("end", "pass")
    story.go_on()
    story.retry("s:1")
    story.go_on()
    story.result("s:1", "B", taint=("tool web.fetch",))
    story.verdict("s:1", "pass")
    story.go_on()
    assert story.assigned("end").instruction == '["A", "B"] 0'
    assert story.assigned("end").taint == ("tool web.fetch",)
