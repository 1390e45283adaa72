"""Tasks that failed are put back over a real broker, while a manager runs or before the next one does."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import anyio
import pytest
from tests.integration.runtime.crew import crew, give, team_of

from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json
from interlock.protocol.messages import JobRetried, TaskAssigned, TaskResult, Verdict
from interlock.protocol.state import Entry, JobState
from interlock.runtime.bus import Bus
from interlock.runtime.carrying import Carrier
from interlock.runtime.client import JobNotFound, watch
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.retrying import NothingFailed, RetryRefused, dead_letters, put_back

pytestmark = pytest.mark.timeout(120)

STEPS = (
    {"step": "a", "for_each": [1, 2, 3, 4], "attempts": 2},
    {"step": "b", "do": "over {{ steps.a.outputs | join(',') }}"},
)


class Bench:
    """A tool that is broken until it is repaired."""

    def __init__(self) -> None:
        self.repaired = False
        self.seen: list[str] = []

    def work(self, assigned: TaskAssigned) -> Json:
        """Say what was asked for."""
        self.seen.append(assigned.instruction if assigned.step == "b" else assigned.task)
        return assigned.task

    def judge(self, result: TaskResult) -> Verdict:
        """Find item 2 wanting while the bench is broken."""
        return "fail" if result.task == "a:2" and not self.repaired else "pass"


@asynccontextmanager
async def at_work(bus: Bus, bench: Bench) -> AsyncIterator[None]:
    """Have a manager and agents at work while the block runs."""
    async with crew(bus, bench.work, bench.judge), anyio.create_task_group() as group:
        group.start_soon(Coordinator(bus, Tracing()).run)
        yield
        group.cancel_scope.cancel()


async def is_over(bus: Bus, job: str, status: str) -> JobState:
    """Wait for the job's end and return what it came to."""
    state = JobState()
    async with aclosing(watch(bus, job)) as news:
        async for progress in news:
            state = progress.state
    assert state.closed is not None
    assert state.closed.status == status
    return state


@pytest.mark.parametrize("goes_on", [True, False])
async def test_a_failed_item_is_put_back_after_a_repair(bus: Bus, *, goes_on: bool) -> None:
    """The job is taken up again by the manager that is there, or by the next one, and ends anew with all of it."""
    bench, job = Bench(), await give(bus, team_of(*STEPS))
    async with at_work(bus, bench):
        state = await is_over(bus, job, "partial")
        if goes_on:
            bench.repaired = True
            await put_back(bus, job[:1], reason="repaired")
            state = await is_over(bus, job, "succeeded")
    if not goes_on:
        letters = await dead_letters(bus)
        assert [(one.job, one.task, one.attempts) for one in letters] == [(job, "a:2", 2)]
        assert "attempt 2" in letters[0].reason or "same" in letters[0].reason
        bench.repaired = True
        message = await put_back(bus, job, ["a:2"])
        assert message.tasks == ("a:2",)
        with pytest.raises(RetryRefused, match="put back already"):
            await put_back(bus, job, ["a:2"])
        async with at_work(bus, bench):
            state = await is_over(bus, job, "succeeded")
    assert state.tasks["a:2"].stands == 3
    assert [one for one in bench.seen if one.startswith("over")] == ["over a:0,a:1,a:3", "over a:0,a:1,a:2,a:3"]
    assert [bench.seen.count(f"a:{index}") for index in range(4)] == [1, 1, 3, 1]
    assert await dead_letters(bus, job) == []


async def test_what_cannot_be_put_back_is_told(bus: Bus) -> None:
    """No such job, no such task, nothing that failed, and what was accepted."""
    bench, job = Bench(), await give(bus, team_of(*STEPS))
    async with at_work(bus, bench):
        await is_over(bus, job, "partial")
        for tasks, why in (
            (["a:1"], "a:1 was accepted"),
            (["a:9"], "a:9 is no task"),
            (["a:2", "b"], "b was accepted"),
        ):
            with pytest.raises(RetryRefused, match=why):
                await put_back(bus, job, tasks)
        with pytest.raises(JobNotFound):
            await put_back(bus, "nowhere")
        bench.repaired = True
        await put_back(bus, job)
        state = await is_over(bus, job, "succeeded")
        assert state.refused == 0, "what is refused here never reaches the log"
        with pytest.raises(NothingFailed):
            await put_back(bus, job)


async def test_a_manager_that_wrote_before_it_knew_of_a_retry_reads_the_log_again(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    """What it had folded out of order is forgotten, and the job goes on to its end."""
    caplog.set_level("INFO", logger="interlock.runtime.keeper")
    bench, job = Bench(), await give(bus, team_of(*STEPS))
    reads: list[JobState] = []
    take = Carrier.take

    def taken(carrier: Carrier, entries: Sequence[Entry]) -> None:
        """Let the first manager believe for once that it saw a later entry before the retry."""
        if any(isinstance(entry.message, JobRetried) for entry in entries) and not reads:
            reads.append(carrier.state)
            carrier.state = replace(carrier.state, strays=carrier.state.strays.insert("a:2!", 10**9))
        take(carrier, entries)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Carrier, "take", taken)
        async with at_work(bus, bench):
            await is_over(bus, job, "partial")
            bench.repaired = True
            await put_back(bus, job)
            await is_over(bus, job, "succeeded")
    assert len(reads) == 1
    assert "is read again" in caplog.text
