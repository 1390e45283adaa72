"""A job whose manager's messages are the planner's, with its lists in the log itself or beside it."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.unit.protocol.story import NOW, Story

from interlock.agents.manager import Planner, Stamp
from interlock.agents.shelf import Outputs, Shelf, Wanted
from interlock.protocol.base import Json
from interlock.protocol.codec import decode, encode
from interlock.protocol.commands import Command, ExpandStep, Propose, Written
from interlock.protocol.items import Chunk, StoredItems
from interlock.protocol.machine import evolve, settle
from interlock.protocol.messages import Envelope, JobClosed, JobSubmitted, Message, TaskClosed
from interlock.protocol.state import JobState
from interlock.protocol.team import Team
from interlock.runtime.jsonlines import to_line

__all__ = ["Bodies", "Managed", "managed"]

_AGENTS = {
    "w": {"kind": "worker"},
    "w2": {"kind": "worker"},
    "v": {"kind": "verifier"},
    "v2": {"kind": "verifier"},
}


class Bodies(dict[Chunk, tuple[Json, ...]]):
    """What stands in the object store."""

    def put(self, items: Iterable[Json], sizes: Sequence[int] = (3,)) -> StoredItems:
        """Store a list in chunks of these sizes, again and again."""
        rest, chunks = list(items), list[Chunk]()
        while rest:
            size = sizes[len(chunks) % len(sizes)]
            some, rest = tuple(rest[:size]), rest[size:]
            body = b"".join(map(to_line, some))
            chunk = Chunk(digest=hashlib.sha256(body).hexdigest(), size=len(body), items=len(some))
            self[chunk] = some
            chunks.append(chunk)
        return StoredItems(chunks=tuple(chunks))


@dataclass
class Managed(Story):
    """A story whose manager's messages are the planner's."""

    plan: tuple[dict[str, Any], ...] = ()
    inputs: dict[str, Json] = field(default_factory=dict)
    result_template: str | None = None
    declared: dict[str, Any] = field(default_factory=dict)
    """The inputs as the team declares them."""
    bodies: Bodies = field(default_factory=Bodies)
    by_step: Mapping[str, StoredItems] = field(default_factory=dict)
    by_input: Mapping[str, StoredItems] = field(default_factory=dict)
    settles: bool = False
    """Whether what is accepted leaves the state."""
    most_listed: int = 1_000_000
    """How many items that a template gave may be listed in a message."""
    beyond: frozenset[str] = frozenset()
    """The steps whose outputs are too large for the result."""
    whole: JobState = field(default_factory=JobState)
    """The state without anything settled."""
    asked: list[Wanted] = field(default_factory=list)
    """What the planner wanted for each message."""

    def __post_init__(self) -> None:
        self.team = Team.model_validate(
            {
                "interlock": 1,
                "team": "t",
                "agents": _AGENTS,
                "inputs": self.declared,
                "plan": [{"agent": "w", "do": "x", "verify": {"by": "v"}, **one} for one in self.plan],
                "result": self.result_template,
                "limits": {"parallel": 64},
            }
        )
        submitted = JobSubmitted(
            id="m0",
            ns="n",
            job="j",
            at=NOW,
            team=self.team,
            goal="g",
            inputs=self.inputs,
            budget=self.budget,
            epoch=3,
            items=dict(self.by_step),
            stored=dict(self.by_input),
        )
        self.planner = Planner(submitted)
        self.tell(submitted)

    def tell(self, message: Envelope, origin: str | None = None) -> None:
        """Append ``message`` to the log, and settle what it accepts if that is wanted."""
        super().tell(message, origin)
        self.whole = evolve(self.whole, self.log[-1])
        if self.settles and isinstance(message, TaskClosed):
            self.state = settle(self.state, message.task)

    def message(self, command: Command) -> Message:
        """Return what the planner makes of ``command``, given what it wants."""
        assert not isinstance(command, Propose), "that is for the manager's model"
        return self.planner.message(self.state, command, Stamp(f"m{len(self.log)}", self.now), self.shelf(command))

    def shelf(self, command: Written) -> Shelf:
        """Return what the planner wants for ``command``."""
        wanted = self.planner.wants(self.state, command)
        self.asked.append(wanted)
        shelf = Shelf(
            {chunk: self.bodies[chunk] for chunk in wanted.chunks if chunk in self.bodies},
            {name: self._outputs(name) for name in wanted.outputs if name not in self.beyond},
            {name: self._listed(stored) for name, stored in wanted.inputs.items()},
            self.beyond,
            missing="it is lost",
        )
        if not isinstance(command, ExpandStep):
            return shelf
        items = self._expanded(command, wanted, shelf)
        if items is None:
            return shelf
        return Shelf(expanded=self.bodies.put(items) if len(items) > self.most_listed else items)

    def _expanded(self, command: ExpandStep, wanted: Wanted, shelf: Shelf) -> list[Json] | None:
        stream = wanted.stream
        if stream is None:
            return self.planner.worked_out(self.state, command, shelf)
        entries = self._outputs(stream.step).entries
        if stream.member == "outputs":
            return [output for _, output in entries]
        stored = stream.items
        items = self.planner.items(self.state, stream.step, shelf) if stored is None else self._listed(stored)
        return [{"index": index, "item": items[index], "output": output} for index, output in entries]

    def _listed(self, stored: StoredItems) -> list[Json]:
        return [item for chunk in stored.chunks for item in self.bodies[chunk]]

    def _outputs(self, step: str) -> Outputs:
        tasks = (task for task in self.whole.tasks_of(step) if task.outcome == "accepted")
        return Outputs((task.index or 0, task.output) for task in tasks)

    def carry_out(self, *commands: Command) -> None:
        """Append what the planner makes of ``commands``, as it comes over the wire."""
        for command in commands:
            message = self.message(command)
            assert decode(encode(message)) == message
            self.tell(message)

    @property
    def closed(self) -> JobClosed:
        """The end of the job."""
        assert self.state.closed is not None, "the job goes on"
        assert self.state.refused == 0
        return self.state.closed


def managed(*plan: dict[str, Any], **more: Any) -> Managed:
    """Return a job that was driven as far as its manager can."""
    story = Managed((), plan=plan, **more)
    story.go_on()
    return story
