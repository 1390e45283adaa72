"""What the tasks of a job came to, read from a real log."""

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime

import anyio
import pytest
from tests.integration.runtime.crew import Ask, crew, give, team_of

from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json
from interlock.protocol.messages import JobRetried, QuestionAnswered, QuestionAsked, TaskAssigned, TaskResult, Verdict
from interlock.protocol.subjects import chain_subjects
from interlock.runtime import results as results_module
from interlock.runtime.bus import Bus
from interlock.runtime.client import JobNotFound, watch
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.results import ItemResult, StepNotFound, outputs, results

EACH = {"step": "s", "for_each": "{{ inputs.items }}", "do": "{{ item }}", "attempts": 1}
END = {"step": "end", "needs": ["s"]}


@asynccontextmanager
async def coordinated(bus: Bus) -> AsyncIterator[None]:
    """Run a manager inside the block."""
    async with anyio.create_task_group() as group:
        group.start_soon(Coordinator(bus, Tracing()).run)
        yield
        group.cancel_scope.cancel()


async def _until_closed(bus: Bus, job: str) -> None:
    with anyio.fail_after(60):
        async with aclosing(watch(bus, job)) as news:
            async for _ in news:
                pass


async def _until_over(bus: Bus, job: str, count: int) -> None:
    """Wait until so many of the items are over."""
    with anyio.fail_after(30):
        while len(await _all(results(bus, job, "s"))) < count:  # noqa: ASYNC110 -- agents set no event here
            await anyio.sleep(0.01)


async def _all(found: AsyncGenerator[ItemResult, None]) -> list[ItemResult]:
    async with aclosing(found):
        return [one async for one in found]


async def _done(bus: Bus, count: int, judge: Callable[[TaskResult], Verdict] = lambda _: "pass") -> str:
    """Have a job with ``count`` items and a last step done, and return its id."""

    def work(assigned: TaskAssigned) -> Json:
        return f"{assigned.task} of {assigned.instruction}"

    async with coordinated(bus), crew(bus, work, judge):
        items: list[Json] = [f"item {number}" for number in range(count)]
        job = await give(bus, team_of(EACH, END), inputs={"items": items})
        await _until_closed(bus, job)
    return job


async def test_results_come_in_the_order_of_the_items(bus: Bus) -> None:
    """Every item has one line, in order, with its label, outcome and output; a step may be named."""
    job = await _done(bus, 300)
    found = await _all(results(bus, job, "s"))
    assert [one.index for one in found] == list(range(300))
    assert {one.outcome for one in found} == {"accepted"}
    assert (found[7].task, found[7].label, found[7].output) == ("s:7", "item 7", "s:7 of item 7")
    assert [one.step for one in await _all(results(bus, job))] == ["end"], "the last step is what the result is"


async def test_what_was_not_accepted_has_its_reason_and_no_output(bus: Bus) -> None:
    """Failed tasks stand in their places, and their outputs, which nobody accepted, are not told."""
    job = await _done(bus, 5, lambda result: "fail" if result.task == "s:2" else "pass")
    found = await _all(results(bus, job, "s"))
    assert [one.outcome for one in found] == ["accepted", "accepted", "failed", "accepted", "accepted"]
    assert (found[2].output, found[2].attempts) == (None, 1)
    assert "attempt 1" in found[2].reason
    assert [index async for index, _ in outputs(bus, job, "s")] == [0, 1, 3, 4]


def _asks(task: str) -> Callable[[TaskAssigned], Json | Ask]:
    """Return the work of one who asks a person over ``task`` first, and answers everything else at once."""
    return lambda assigned: Ask() if assigned.task == task and not assigned.resumes else f"did {assigned.task}"


async def _answer(bus: Bus, job: str, task: str) -> None:
    """Answer the question that a task waits with."""
    last = await bus.last(chain_subjects(bus.ns, job, task))
    assert last is not None
    assert isinstance(last.message, QuestionAsked)
    answer = QuestionAnswered(
        id=uuid.uuid4().hex,
        ns=bus.ns,
        job=job,
        task=task,
        attempt=1,
        answers=last.seq,
        at=datetime.now(UTC),
        question=last.message.question,
        answer="yes",
    )
    await bus.append(answer)


async def test_what_waits_long_for_its_turn_is_read_again(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few outputs are held, all come whole and in order, although the first item ends last."""
    monkeypatch.setattr(results_module, "_HELD", 3)
    async with coordinated(bus), crew(bus, _asks("s:0")):
        job = await give(bus, team_of(EACH), inputs={"items": [*"abcdefgh"]})
        await _until_over(bus, job, 7)
        await _answer(bus, job, "s:0")
        await _until_closed(bus, job)
    found = await _all(results(bus, job))
    assert [(one.index, one.output) for one in found] == [(number, f"did s:{number}") for number in range(8)]


async def test_following_yields_while_the_job_runs_and_ends_with_it(bus: Bus) -> None:
    """A result is told as soon as it and all before it are over, long before the job is, and none before its turn."""
    seen: list[int | None] = []
    told = anyio.Event()

    async def read(job: str) -> None:
        async with aclosing(results(bus, job, "s", follow=True)) as found:
            async for one in found:
                seen.append(one.index)
                if one.index == 2:
                    told.set()

    async with coordinated(bus), crew(bus, _asks("s:3")), anyio.create_task_group() as group:
        job = await give(bus, team_of(EACH), inputs={"items": [*"abcdef"]})
        group.start_soon(read, job)
        with anyio.fail_after(30):
            await told.wait()
            await _until_over(bus, job, 5)
        assert seen == [0, 1, 2]
        await _answer(bus, job, "s:3")
    assert seen == [0, 1, 2, 3, 4, 5]


async def test_a_task_that_was_put_back_counts_as_it_was_closed_last(bus: Bus) -> None:
    """Before it is over again it has no result; then its new one stands in its place, and only that."""
    job = await _done(bus, 4, lambda result: "fail" if result.task == "s:1" else "pass")
    closed = await bus.last(chain_subjects(bus.ns, job))
    assert closed is not None
    stamp = {"id": uuid.uuid4().hex, "ns": bus.ns, "job": job, "at": datetime.now(UTC)}
    await bus.append(JobRetried.model_validate({**stamp, "answers": closed.seq, "tasks": ("s:1",), "reason": "fixed"}))
    assert [one.index for one in await _all(results(bus, job, "s"))] == [0, 2, 3]
    assert await _all(results(bus, job)) == [], "what is made of the items is made again"
    async with coordinated(bus), crew(bus):
        await _until_closed(bus, job)
    found = await _all(results(bus, job, "s"))
    assert [(one.index, one.outcome, one.attempts) for one in found] == [
        (0, "accepted", 1),
        (1, "accepted", 2),
        (2, "accepted", 1),
        (3, "accepted", 1),
    ]
    assert len(await _all(results(bus, job))) == 1


async def test_an_unknown_job_or_step_is_a_mistake(bus: Bus) -> None:
    """Both are told with what there is."""
    with pytest.raises(JobNotFound, match="there are none"):
        await _all(results(bus, "nobody"))
    job = await _done(bus, 1)
    with pytest.raises(StepNotFound, match="its steps are s, end"):
        await _all(results(bus, job, "middle"))
