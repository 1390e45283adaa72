"""A task's chain as the worker sees it that the attempt under way was given to.

Each message answers the one before it, so whoever else moves the chain on, for whatever reason, takes the attempt away:
the next append is refused, and nothing that depends on it is begun.
"""

import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import anyio

from interlock.agents.toolbox import AttemptLost
from interlock.protocol.base import Role
from interlock.protocol.messages import EffectIntended, Envelope, TaskAssigned
from interlock.protocol.subjects import assigned_subjects, chain_subjects
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import AnswerRefused, LogFull
from interlock.runtime.failures import BROKER_AWAY

__all__ = ["Chain", "patiently", "take_over"]

_log = logging.getLogger(__name__)

_RECONNECT = 0.2
"""Seconds between two attempts to reach a broker that is away."""

_ROOM = 1.0
"""Seconds between two attempts to append to a log that is full: many may wait for room."""

_T = TypeVar("_T")


class Chain:
    """The end of a task's chain, held by one attempt."""

    def __init__(self, bus: Bus, assignment: TaskAssigned, head: int) -> None:
        self.bus = bus
        self.assignment = assignment
        self.head = head
        """Stream sequence of the last entry, as far as this attempt knows: what the next one answers."""

    @property
    def by(self) -> Role:
        """Who signs the entries."""
        return self.assignment.role

    def envelope(self) -> dict[str, Any]:
        """Return the envelope of the next message."""
        assigned = self.assignment
        return {
            "v": assigned.v,  # whoever is to read it may know no later one
            "id": uuid.uuid4().hex,
            "ns": assigned.ns,
            "job": assigned.job,
            "task": assigned.task,
            "attempt": assigned.attempt,
            "answers": self.head,
            "at": datetime.now(UTC),
            "deadline": assigned.deadline,
            "epoch": assigned.epoch,
        }

    async def extend(self, message: Envelope, headers: Mapping[str, str] | None = None) -> None:
        """Append ``message`` as the next entry, however long the broker is away.

        :raises AttemptLost: the chain has moved on
        :raises BusError: what no waiting will cure
        """
        try:
            self.head = await patiently(partial(self.bus.append, message, headers=headers))
        except AnswerRefused as refusal:
            raise AttemptLost(f"the task has moved on: {refusal}") from refusal

    async def record(self, message: Envelope) -> None:
        """Append what stands outside the chain and is always taken, however long the broker is away.

        :raises BusError: what no waiting will cure
        """
        await patiently(partial(self.bus.append, message))

    async def hold(self) -> None:
        """Return once the broker says that the attempt is still this process's, however long the broker is away.

        :raises AttemptLost: the chain has moved on
        :raises BusError: what no waiting will cure
        """
        assigned = self.assignment
        chain = chain_subjects(assigned.ns, assigned.job, assigned.task)
        last = await patiently(partial(self.bus.last, chain))
        if last is None or last.seq != self.head:
            raise AttemptLost("the task has moved on")


async def take_over(bus: Bus, assignment: TaskAssigned, seq: int) -> Chain | None:
    """Return the chain of an assignment that may have been worked on before; None where it is somebody else's by now.

    A worker that died may have left effects in the chain, which do not end the attempt: whoever takes it over goes on
    from the last of them, and the dead one, should it live, can begin nothing more.

    :raises BusError: the broker is away
    """
    last = await bus.last(chain_subjects(assignment.ns, assignment.job, assignment.task))
    if last is None or last.seq == seq:
        return Chain(bus, assignment, seq)
    if not isinstance(last.message, EffectIntended) or last.message.attempt != assignment.attempt:
        return None
    newest = await bus.last(assigned_subjects(assignment.ns, assignment.job, assignment.task))
    return Chain(bus, assignment, last.seq) if newest is not None and newest.seq == seq else None


async def patiently(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Return what ``ask`` returns, tried again for as long as the broker is away or has no room."""
    full = False
    while True:
        try:
            return await ask()
        except LogFull as error:
            if not full:
                _log.warning("waiting for room: %s", error)
            full = True
            await anyio.sleep(_ROOM)
        except BROKER_AWAY:
            await anyio.sleep(_RECONNECT)
