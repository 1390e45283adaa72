"""What is forgotten of an accepted item, and what is not."""

from dataclasses import replace
from itertools import islice

from tests.unit.protocol.story import NOW, Story, step

from interlock.protocol.commands import Assign, CloseTask
from interlock.protocol.decide import decide
from interlock.protocol.machine import evolve, settle
from interlock.protocol.messages import EffectDone
from interlock.protocol.state import EffectStatus

FAN_OUT = (step("a", items=True, attempts=1), step("b", needs=("a",)))


def begun(items: int = 4, parallel: int = 2) -> Story:
    return Story(FAN_OUT, {"a": items}, parallel=parallel).go_on()


def settled(story: Story, *tasks: str) -> Story:
    for task in tasks:
        story.state = settle(story.state, task)
    return story


def test_an_accepted_item_is_forgotten_and_counted() -> None:
    """Nothing is kept of it, and the job goes on to the same end."""
    story = begun()
    for index in range(4):
        story.attempt(f"a:{index}")
        settled(story, f"a:{index}")
        assert f"a:{index}" not in story.state.tasks
    assert story.state.steps["a"].accepted == 4
    assert len(story.state.steps["a"].settled) == 0, "items that were settled in order cost nothing"
    assert story.state.tasks_of("a") == []
    story.attempt("b")
    assert story.state.closed is not None
    assert story.state.closed.status == "succeeded"


def test_what_is_open_failed_cancelled_or_single_is_kept() -> None:
    """Only what was accepted, of many, is settled."""
    story = begun()
    assert settle(story.state, "a:0") == story.state, "it is open"
    story.attempt("a:0", "fail")
    assert settle(story.state, "a:0") == story.state, "it failed"
    for index in (1, 2, 3):
        story.attempt(f"a:{index}")
    story.attempt("b")
    assert settle(story.state, "b") == story.state, "it is the only task of its step"
    assert settle(story.state, "a:9") == story.state, "there is no such task"


def test_an_entry_about_a_settled_item_is_refused() -> None:
    """Whatever is written into its chain later begins nothing and moves nothing."""
    story = begun()
    again = story.log[-1]
    assert again.message.task == "a:1"
    story.attempt("a:0")
    story.attempt("a:1")
    head = story.task("a:1").head
    settled(story, "a:0", "a:1")
    for answers in (0, head):
        late = replace(again, seq=100, message=again.message.model_copy(update={"answers": answers}))
        assert evolve(story.state, late) == replace(story.state, refused=1)
    assert story.state.head_of("a:1") >= head


def test_items_that_began_out_of_order_are_settled_too() -> None:
    """Whoever comes first to a hole finds it, and never what was settled beyond it."""
    story = Story(FAN_OUT, {"a": 4}).go_on()
    fresh = Story(FAN_OUT, {"a": 4})
    fresh.carry_out(*fresh.decide())
    fresh.carry_out(*fresh.decide())
    late = [one for one in fresh.decide() if isinstance(one, Assign) and one.index in {2, 3}]
    fresh.carry_out(*late)
    for task in ("a:2", "a:3"):
        fresh.result(task)
        fresh.verdict(task, "pass")
    fresh.carry_out(*[one for one in fresh.decide() if not isinstance(one, Assign)])
    settled(fresh, "a:2", "a:3")
    assert set(fresh.state.steps["a"].settled) == {2, 3}
    assert [one.task for one in fresh.decide() if isinstance(one, Assign)] == ["a:0", "a:1"]
    fresh.go_on()
    assert fresh.state.steps["a"].next_index == story.state.steps["a"].next_index
    assert len(fresh.state.steps["a"].settled) == 0


def test_what_became_of_a_settled_items_effect_is_still_heard() -> None:
    """A report that comes after the end counts, from whoever had the task and from nobody else."""
    story = begun()
    story.intend("a:0")
    story.record("a:0", "in_doubt")
    story.attempt("a:0")
    settled(story, "a:0")
    common = {"id": "m", "ns": "n", "job": "j", "at": NOW, "task": "a:0", "attempt": 1, "key": "k", "outcome": "sent"}
    for by, status in (("x@t", EffectStatus.IN_DOUBT), ("w@t", EffectStatus.DONE)):
        story.tell(EffectDone.model_validate({**common, "by": by}))
        assert story.state.effects["k"].status is status


def test_a_stop_does_not_touch_what_is_settled() -> None:
    """Only what never began and what is open is closed."""
    story = begun()
    story.attempt("a:0")
    settled(story, "a:0")
    story.killed = "stop"
    assert sorted(one.task for one in story.decide() if isinstance(one, CloseTask)) == ["a:1", "a:2", "a:3", "b"]
    story.go_on()
    assert story.state.closed is not None
    assert story.state.steps["a"].accepted == 1


def test_a_window_bounds_what_is_begun_and_never_widens_the_limit() -> None:
    """The smaller of both counts; without a window it is the team's own limit."""
    story = Story(FAN_OUT, {"a": 9}, parallel=4)
    story.carry_out(*story.decide())
    story.carry_out(*[one for one in story.decide() if not isinstance(one, Assign)])
    for window, count in ((None, 4), (1, 1), (0, 0), (3, 3), (50, 4)):
        assert len(decide(story.state, NOW, window=window)) == count
    story.carry_out(*islice(story.decide(), 2))
    assert len(decide(story.state, NOW, window=2)) == 0
    assert len(decide(story.state, NOW, window=3)) == 1
