"""What a user of Interlock writes, as type checkers see it. Lines that must be refused say with which code."""

from datetime import UTC, datetime
from typing import Annotated, assert_type

from interlock import __version__
from interlock.agents.tools.tool import NOT_DONE, Key, NotDone, Secret, tool
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


def find_ticket(key: str, title: str) -> int | NotDone:
    """Say whether a ticket was opened under a key."""
    return NOT_DONE if key == title else 7


@tool(effect="once", network=True, destinations=("queue",), kinds={"link": "url"}, probe=find_ticket)
async def create_ticket(
    title: str, queue: str, key: Key, token: Annotated[str, Secret("TRACKER")], link: str = ""
) -> int:
    """Open a ticket."""
    return len(title + queue + key + token + link)


async def use_tools() -> None:
    """Call a function that is a tool as what it was before."""
    assert_type(await create_ticket("leak", "home", "k-1", "t"), int)


Agent(kind="boss")  # type: ignore[arg-type]
Agent(kind="worker", promt="Read.")  # type: ignore[call-arg]
TaskResult(status="done")  # type: ignore[call-arg]
result.status = "gave_up"  # type: ignore[misc]
encode("task.result")  # type: ignore[arg-type]
unsure = decode(b"{}").verdict  # type: ignore[union-attr]
verdict: str = verdict_of(result)  # type: ignore[assignment]
tool()  # type: ignore[call-arg]
tool(effect="sometimes")  # type: ignore[arg-type]
tool(effect="read", kinds={"link": "uri"})  # type: ignore[dict-item]
made = create_ticket(title=5, queue="home", key="k-1", token="t")  # type: ignore[arg-type]
