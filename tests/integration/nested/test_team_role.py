"""The role of an agent that is a team, and the manager of its jobs, in one process over a real broker."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from tests.integration.runtime.crew import crew, ended, give, team_of

from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json
from interlock.protocol.lineage import child_job
from interlock.protocol.messages import JobClosed, JobSubmitted, TaskAssigned, TaskResult, TaskVerdict
from interlock.protocol.subjects import result_subjects
from interlock.protocol.team import Agent, Team
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.client import read_job
from interlock.runtime.config import BrokerLogin, ProcessConfig
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.killing import open_jobs
from interlock.runtime.team_role import serve_team

pytestmark = pytest.mark.timeout(60)


def _outer(inner: Team, **more: Any) -> Team:
    """Return a team ``t`` whose agent ``desk`` is a team; its verifier is that of a crew."""
    given: dict[str, Any] = {
        "agents": {"desk": {"kind": "team", "team": inner}, "v": {"kind": "verifier"}},
        "plan": [{"step": "s", "agent": "desk", "do": "go", "attempts": 1}],
        **more,
    }
    return team_of(**given)


def _inner(name: str = "inner", **more: Any) -> Team:
    return team_of({"step": "s"}, **more).model_copy(update={"team": name})


def _config(bus: Bus, broker: BrokerAddress) -> ProcessConfig:
    return ProcessConfig(
        kind="team",
        name="desk",
        ns=bus.ns,
        broker=BrokerLogin.of(broker),
        team="t",
        agent_name="desk",
        agent=Agent(kind="team"),
        slots=8,
    )


@asynccontextmanager
async def _at_work(bus: Bus, broker: BrokerAddress) -> AsyncIterator[None]:
    """Have all jobs managed and the tasks of the agent ``desk`` done as jobs."""
    async with anyio.create_task_group() as group:
        group.start_soon(Coordinator(bus, Tracing()).run)
        group.start_soon(serve_team, _config(bus, broker), bus, Tracing(), lambda: None)
        async with crew(bus):
            yield
        group.cancel_scope.cancel()


async def _closed(bus: Bus, job: str) -> JobClosed:
    with anyio.fail_after(20):
        while True:
            if await bus.last(f"il.{bus.ns}.log.*.{job}._.submitted") is not None:
                return (await ended(bus, job)).closed or pytest.fail("it has no end")
            await anyio.sleep(0.02)


async def test_a_job_without_a_parent_that_is_open_ends(bus: Bus, broker: BrokerAddress) -> None:
    """When its parent's time is up, everything within is closed as killed, and told why."""
    inner = _inner()
    async with _at_work(bus, broker):  # nobody works for the team ``inner``
        job = await give(bus, _outer(inner, budget={"seconds": 1}))
        child = child_job(job, "s", 1)
        closed = await _closed(bus, child)
        outer = await ended(bus, job)
    assert outer.closed is not None
    assert outer.closed.status == "failed"
    assert closed.status != "succeeded"
    assert not await open_jobs(bus)


async def test_a_job_that_comes_too_late_ends_at_once(bus: Bus) -> None:
    """A child that enters the log after its parent's end is closed by whoever manages."""
    job, closed = await give(bus, _outer(_inner(), budget={"seconds": 0.1})), None
    async with anyio.create_task_group() as group:
        group.start_soon(Coordinator(bus, Tracing()).run)
        assert (await ended(bus, job)).closed is not None
        late = JobSubmitted(
            id="late", ns=bus.ns, job=child_job(job, "s", 1), at=datetime.now(UTC), team=_inner(), goal="", parent=job
        )
        await bus.append(late)
        closed = await _closed(bus, late.job)
        group.cancel_scope.cancel()
    assert closed is not None
    assert (closed.status, closed.reason) == ("killed", f"job {job}, which it was a part of, is over")


async def test_a_job_that_would_be_too_deep_is_refused(bus: Bus, broker: BrokerAddress) -> None:
    """The outermost team's limit holds whatever stands in the log; the attempt gives up and says why."""
    async with _at_work(bus, broker):
        job = await give(bus, _outer(_inner(), limits={"depth": 1}))
        with anyio.fail_after(20):
            outer = await ended(bus, job)
        results = await bus.entries(result_subjects(bus.ns, job))
    [result] = [one.message for one in results if isinstance(one.message, TaskResult)]
    assert result.status == "gave_up"
    assert "limits.depth of team t allows 1" in result.reason
    assert outer.closed is not None
    assert await bus.jobs() == [job]


async def test_where_text_comes_from_is_told_upwards(bus: Bus, broker: BrokerAddress) -> None:
    """The labels of a child's results stand in the result of the task that it is, and its usage does."""
    inner = _inner(inputs={"mail": {"type": "array", "outside": True, "default": ["hello"]}})
    step = inner.plan[0].model_copy(update={"do": "{{ inputs.mail }}"})
    inner = inner.model_copy(update={"plan": (step,)})

    def work(assigned: TaskAssigned) -> Json:
        return "read" if assigned.taint else "nothing"

    async with _at_work(bus, broker), _inner_crew(bus, work):
        job = await give(bus, _outer(inner))
        with anyio.fail_after(20):
            await ended(bus, job)
        results = await bus.entries(result_subjects(bus.ns, job))
        child = await read_job(bus, child_job(job, "s", 1))
    [result] = [one.message for one in results if isinstance(one.message, TaskResult)]
    assert (result.status, result.output, result.taint) == ("done", "read", ("input mail",))
    assert child.closed is not None
    assert result.usage == child.closed.usage


@asynccontextmanager
async def _inner_crew(bus: Bus, work: Any) -> AsyncIterator[None]:
    """Work for the team ``inner``; what a worker saw of text from outside stands in its results."""

    async def serve(kind: Any, role: str) -> None:
        async with bus.pull(kind, role, 8) as deliveries:
            async for delivery in deliveries:
                message = delivery.message
                common: dict[str, Any] = {
                    "id": uuid.uuid4().hex,
                    "ns": message.ns,
                    "job": message.job,
                    "task": message.task,
                    "attempt": message.attempt,
                    "answers": delivery.seq,
                    "at": datetime.now(UTC),
                }
                if isinstance(message, TaskAssigned):
                    result = {"by": role, "role": message.verifier, "status": "done", "output": work(message)}
                    await bus.append(TaskResult(**common, **result, taint=message.taint))
                else:
                    await bus.append(TaskVerdict(**common, by=role, verdict="pass"))
                await delivery.ack()

    async with anyio.create_task_group() as group:
        group.start_soon(serve, "assigned", "w@inner")
        group.start_soon(serve, "result", "v@inner")
        yield
        group.cancel_scope.cancel()
