"""Workers and verifiers without models: they answer at once, over a real broker."""

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import anyio

from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json, role_of
from interlock.protocol.messages import (
    CriterionVerdict,
    Envelope,
    QuestionAsked,
    TaskAssigned,
    TaskResult,
    TaskVerdict,
    Verdict,
)
from interlock.protocol.state import Entry, JobState
from interlock.protocol.subjects import log_subjects
from interlock.protocol.team import Team
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import AnswerRefused
from interlock.runtime.client import submit, watch
from interlock.runtime.deliveries import Delivery

__all__ = ["Ask", "crew", "ended", "give", "log_of", "team_of"]


@dataclass(frozen=True)
class Ask:
    """A worker's question instead of a result."""

    expires: datetime | None = None
    default: str | None = "no"


Work = Callable[[TaskAssigned], Json | Ask]
Judge = Callable[[TaskResult], Verdict]


def team_of(*steps: dict[str, Any], parallel: int = 64, **more: Any) -> Team:
    """Return a team of a worker ``w`` and a verifier ``v`` with these steps."""
    return Team.model_validate(
        {
            "interlock": 1,
            "team": "t",
            "agents": {"w": {"kind": "worker"}, "v": {"kind": "verifier"}},
            "plan": [{"agent": "w", "do": "x", **step} for step in steps],
            "limits": {"parallel": parallel},
            **more,
        }
    )


async def give(bus: Bus, team: Team, job: str = "j1", inputs: dict[str, Json] | None = None) -> str:
    """Submit a job and return its id."""
    await submit(bus, Tracing(), team, "go", inputs or {}, job)
    return job


@asynccontextmanager
async def crew(
    bus: Bus, work: Work = lambda assigned: assigned.task, judge: Judge = lambda _: "pass", *, slots: int = 64
) -> AsyncIterator[None]:
    """Have every assignment and every result of the team ``t`` answered while the block runs."""

    async def serve(role: str, kind: Any, answer: Callable[[Delivery], Envelope]) -> None:
        async with bus.pull(kind, role, slots) as deliveries:
            async for delivery in deliveries:
                with suppress(AnswerRefused):
                    await bus.append(answer(delivery))
                await delivery.ack()

    def result(delivery: Delivery) -> TaskResult | QuestionAsked:
        assigned = delivery.message
        assert isinstance(assigned, TaskAssigned)
        done = work(assigned)
        if isinstance(done, Ask):
            return _question(delivery, assigned, done)
        return TaskResult(**_envelope(delivery), by=assigned.role, role=assigned.verifier, status="done", output=done)

    def verdict(delivery: Delivery) -> TaskVerdict:
        assert isinstance(delivery.message, TaskResult)
        found = judge(delivery.message)
        holds = {"pass": True, "fail": False, "uncertain": None}[found]
        why = CriterionVerdict(criterion="c", holds=holds, evidence=f"attempt {delivery.message.attempt}")
        return TaskVerdict(**_envelope(delivery), by=delivery.message.role, verdict=found, criteria=(why,))

    async with anyio.create_task_group() as group:
        group.start_soon(serve, role_of("w", "t"), "assigned", result)
        group.start_soon(serve, role_of("v", "t"), "result", verdict)
        yield
        group.cancel_scope.cancel()


def _question(delivery: Delivery, assigned: TaskAssigned, ask: Ask) -> QuestionAsked:
    return QuestionAsked(
        **_envelope(delivery),
        by=assigned.role,
        question=f"q-{assigned.task.replace(':', '-')}",
        text="May it?",
        options=("yes", "no"),
        default=ask.default,
        expires=ask.expires,
    )


def _envelope(delivery: Delivery) -> dict[str, Any]:
    message = delivery.message
    return {
        "id": uuid.uuid4().hex,
        "ns": message.ns,
        "job": message.job,
        "task": message.task,
        "attempt": message.attempt,
        "answers": delivery.seq,
        "at": datetime.now(UTC),
    }


async def ended(bus: Bus, job: str) -> JobState:
    """Return the last state of a job."""
    state = JobState()
    async for progress in watch(bus, job):
        state = progress.state
    return state


async def log_of(bus: Bus) -> list[Entry]:
    """Return the whole log as it is now."""
    entries: list[Entry] = []
    async with bus.follow([log_subjects(bus.ns)]) as batches:
        async for batch in batches:
            entries += batch.entries
            if batch.pending == 0:
                break
    return entries
