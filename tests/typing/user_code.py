"""What a user of Interlock writes, as type checkers see it. Lines that must be refused say with which code."""

from datetime import UTC, datetime
from typing import assert_type

from interlock import __version__
from interlock.protocol.base import Usage
from interlock.protocol.codec import StoredBody, decode, encode
from interlock.protocol.messages import Message, TaskResult, TaskVerdict, Verdict
from interlock.protocol.team import Agent, Step, Team, output_schema

version: str = __version__
result = TaskResult(
    id="m-1",
    ns="default",
    job="j-1",
    at=datetime.now(UTC),
    by="reader@digest",
    role="checker@digest",
    status="done",
)
assert_type(encode(result), bytes)
assert_type(decode(b"{}"), Message | StoredBody)
assert_type(Usage(calls=1) + Usage(calls=2), Usage)


def verdict_of(message: Message) -> Verdict | None:
    """Narrow a union of messages by its classes."""
    return message.verdict if isinstance(message, TaskVerdict) else None


def steps_of(team: Team) -> tuple[Step, ...]:
    """Reach into a team, which is typed throughout."""
    return tuple(step for step in team.plan if output_schema(step) is not None)


Agent(kind="boss")  # type: ignore[arg-type]
Agent(kind="worker", promt="Read.")  # type: ignore[call-arg]
TaskResult(status="done")  # type: ignore[call-arg]
result.status = "gave_up"  # type: ignore[misc]
encode("task.result")  # type: ignore[arg-type]
unsure = decode(b"{}").verdict  # type: ignore[union-attr]
verdict: str = verdict_of(result)  # type: ignore[assignment]
