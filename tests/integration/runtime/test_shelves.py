"""Items from the object store and outputs from the log, brought to the planner of a job."""

from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest
from tests.integration.runtime.crew import crew, team_of
from tests.unit.agents.managed import Managed

from interlock.agents import outcome
from interlock.agents.manager import Planner, Stamp
from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json
from interlock.protocol.commands import Assign, Propose
from interlock.protocol.decide import decide
from interlock.protocol.items import StoredItems
from interlock.protocol.machine import evolve, settle
from interlock.protocol.messages import JobClosed, PlanExpanded, TaskAssigned, TaskClosed
from interlock.protocol.state import Entry, JobState
from interlock.runtime.bus import Bus
from interlock.runtime.client import history, submit
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.itemstore import ItemStore
from interlock.runtime.shelves import Shelves

_ITEMS: list[Json] = [{"id": f"n{number}", "text": f"{number} " + "x" * 1000} for number in range(200)]
_PLAN: tuple[dict[str, Any], ...] = (
    {"step": "s", "for_each": "{{ inputs.list }}", "do": "{{ item.id }}"},
    {"step": "r", "for_each": "{{ steps.s.results }}", "do": "{{ item.index }} {{ item.item.id }} {{ item.output }}"},
    {"step": "o", "for_each": "{{ steps.s.outputs[:3] }}", "do": "{{ item }} of {{ steps.s.outputs | length }}"},
    {"step": "end", "do": "{{ steps.r.outputs[199] }} {{ inputs.list | length }}", "needs": ["o"]},
)


@dataclass
class Done:
    """A job that was done, and its log."""

    bus: Bus
    log: list[Entry]
    stored: StoredItems

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the messages of a kind."""
        return [entry.message for entry in self.log if isinstance(entry.message, kind)]

    @property
    def closed(self) -> JobClosed:
        """The end of the job."""
        closed: JobClosed = self.of(JobClosed)[-1]
        return closed

    def told(self, task: str) -> str:
        """Return what the workers of a task were told."""
        return next(str(one.instruction) for one in self.of(TaskAssigned) if one.task == task)


async def done(bus: Bus, *plan: dict[str, Any], work: Any = None, **team: Any) -> Done:
    """Have a job with the stored input ``list`` done by those who answer at once."""
    stored = await ItemStore(bus).put(_ITEMS)
    made = team_of(*plan, inputs={"list": {"type": "jsonl"}}, parallel=256, **team)
    await submit(bus, Tracing(), made, "go", {}, "j1", stored={"list": stored})
    async with crew(bus, work or (lambda assigned: f"out of {assigned.task}"), slots=256):
        await Coordinator(bus, Tracing()).run(only="j1")
    log = list[Entry]()
    async with aclosing(history(bus, "j1")) as news:
        async for progress in news:
            log += progress.entries
    return Done(bus, log, stored)


async def test_a_job_over_stored_items_goes_from_step_to_step(bus: Bus) -> None:
    """Two hundred items, their results as the items of the next step, a few of their outputs, and all in one."""
    job = await done(bus, *_PLAN)
    assert (job.closed.status, job.closed.reason) == ("succeeded", "")
    assert [job.told(f"s:{index}") for index in range(200)] == [f"n{index}" for index in range(200)]
    assert [job.told(f"r:{index}") for index in range(200)] == [
        f"{index} n{index} out of s:{index}" for index in range(200)
    ]
    assert [job.told(f"o:{index}") for index in range(3)] == [f"out of s:{index} of 200" for index in range(3)]
    assert job.told("end") == "out of r:199 200"
    expansions = {one.step: one.stored.count if one.stored else None for one in job.of(PlanExpanded)}
    assert expansions == {"s": None, "r": 200, "o": None}


async def test_messages_are_the_same_whatever_has_left_the_state(bus: Bus) -> None:
    """At every point of a job, a manager that settles and one that does not say the same."""
    job = await done(bus, *_PLAN[1:], {"step": "s", "for_each": "{{ inputs.list[:20] }}", "do": "{{ item.id }}"})
    submitted = job.log[0].message
    planners = Planner(submitted), Planner(submitted)  # type: ignore[arg-type]
    shelves = Shelves(bus)
    whole, lean = JobState(), JobState()
    compared = 0
    for entry in job.log:
        whole, lean = evolve(whole, entry), evolve(lean, entry)
        if isinstance(entry.message, TaskClosed):
            lean = settle(lean, entry.message.task)
        stamp = Stamp("x", entry.message.at)
        commands = decide(whole, entry.message.at, window=2)
        assert commands == decide(lean, entry.message.at, window=2)
        for command in commands[:2]:
            assert not isinstance(command, Propose)
            said = [
                planner.message(state, command, stamp, await shelves.fill(planner, state, command))
                for planner, state in zip(planners, (whole, lean), strict=True)
            ]
            assert said[0] == said[1]
            compared += 1
    assert len(lean.tasks) == 1
    assert compared > 60


async def test_a_large_result_is_left_in_the_log(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job succeeds; its end says which command has the result, and holds none."""
    monkeypatch.setattr(outcome, "MAX_RESULT", 1000)
    job = await done(bus, _PLAN[0])
    assert (job.closed.status, job.closed.result) == ("succeeded", None)
    assert "`interlock results j1 --step s` has it" in job.closed.reason


async def test_a_small_result_is_in_the_jobs_end(bus: Bus) -> None:
    """As many outputs as fit, in the order of the items, though the state holds none of them."""
    job = await done(bus, _PLAN[0])
    assert job.closed.result == [f"out of s:{index}" for index in range(200)]


async def test_an_item_that_is_lost_fails_its_task(bus: Bus) -> None:
    """Where chunks are gone from the object store, their items fail with the reason and the others are done."""
    stored = await ItemStore(bus).put(_ITEMS)
    lost = stored.chunks[1].model_copy(update={"digest": "0" * 64})
    broken = StoredItems(chunks=(stored.chunks[0], lost))
    await submit(bus, Tracing(), team_of(_PLAN[0], parallel=256), "go", {}, "j1", stored={"list": broken})
    async with crew(bus, slots=256):
        await Coordinator(bus, Tracing()).run(only="j1")
    async with aclosing(history(bus, "j1")) as news:
        entries = [entry.message async for progress in news for entry in progress.entries]
    closed = [one for one in entries if isinstance(one, TaskClosed)]
    failed = {one.task for one in closed if one.outcome == "failed"}
    assert failed == {f"s:{index}" for index in range(stored.chunks[0].items, broken.count)}
    assert all("is missing" in one.reason or "no such object" in one.reason for one in closed if one.task in failed)


async def test_a_job_without_anything_beside_it_asks_the_broker_nothing() -> None:
    """Its shelves are filled from its state, so that they can be filled without a connection."""
    story = Managed(
        (),
        plan=({"step": "s", "for_each": [1, 2]}, {"step": "end", "do": "{{ steps.s.results }}"}),
    )
    shelves = Shelves(object())  # type: ignore[arg-type]
    while story.state.closed is None:
        while commands := story.decide():
            for command in commands:
                assert not isinstance(command, Propose)
                shelf = await shelves.fill(story.planner, story.state, command)
                stamp = Stamp(f"m{len(story.log)}", story.now)
                story.tell(story.planner.message(story.state, command, stamp, shelf))
        for task in list(story.state.open_tasks()):
            story.result(task.id)
            story.verdict(task.id, "pass")
    assert story.closed.result == "output 1"


async def test_a_small_jobs_settled_outputs_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was noted before it was settled is brought without the log, and nothing of it once it is too much."""
    plan = ({"step": "s", "for_each": [1, 2, 3]}, {"step": "end", "do": "{{ steps.s.outputs }}"})
    for room in (1000, 5):
        monkeypatch.setattr("interlock.runtime.shelves._HELD_BYTES", room)
        story, shelves = Managed((), plan=plan), Shelves(object())  # type: ignore[arg-type]
        story.go_on()
        for index in (2, 0, 1):
            story.attempt(f"s:{index}", output=f"out {index}")
            shelves.settles(story.state, f"s:{index}")
            story.state = settle(story.state, f"s:{index}")
        command = Assign("end", story.state.steps["end"].spec, None, 1, "w", 0)
        if room == 5:
            with pytest.raises(AttributeError):  # it asks the bus, which there is none of
                await shelves.fill(story.planner, story.state, command)
        else:
            shelf = await shelves.fill(story.planner, story.state, command)
            assert shelf.outputs["s"].values == ["out 0", "out 1", "out 2"]


async def test_outputs_are_read_once_for_many_tasks(bus: Bus) -> None:
    """A step of many tasks that all see the same outputs reads the log for the first of them only."""
    each = {"step": "e", "for_each": list(range(20)), "do": "{{ steps.s.outputs[index] }}"}
    job = await done(bus, _PLAN[0], each)
    assert [job.told(f"e:{index}") for index in range(20)] == [f"out of s:{index}" for index in range(20)]
    shelves, planner = Shelves(bus), Planner(job.log[0].message)  # type: ignore[arg-type]
    commands = [one for one in decide(_before(job, "e:0"), job.log[0].message.at) if isinstance(one, Assign)]
    first = await shelves.fill(planner, _before(job, "e:0"), commands[0])
    again = await shelves.fill(planner, _before(job, "e:0"), commands[1])
    assert again.outputs["s"] is first.outputs["s"]


def _before(job: Done, task: str) -> JobState:
    """Return the settled state before a task began."""
    state = JobState()
    for entry in job.log:
        if isinstance(entry.message, TaskAssigned) and entry.message.task == task:
            return state
        state = evolve(state, entry)
        if isinstance(entry.message, TaskClosed):
            state = settle(state, entry.message.task)
    return state
