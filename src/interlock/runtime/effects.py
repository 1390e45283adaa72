"""The effects ledger of one attempt, in the log: intents in the task's chain, outcomes beside it."""

from collections.abc import Mapping
from functools import partial

import anyio

from interlock.protocol.base import Json
from interlock.protocol.ledger import Move, Record, digest_of, fold_records, next_move, place_of
from interlock.protocol.messages import EffectDone, EffectInDoubt, EffectIntended, Message
from interlock.protocol.subjects import task_effects
from interlock.protocol.tools import ToolSpec
from interlock.runtime.chain import Chain, patiently
from interlock.runtime.received import UNREADABLE, Received

__all__ = ["EffectsLedger", "LedgerUnreadable"]

_LAST_WORDS = 0.3
"""Seconds that a process which is told to end takes to record what it knows of an effect; less than its grace."""

_LAG = 0.05
"""Seconds before a replica is asked again that does not have yet what the stream's leader has."""


class LedgerUnreadable(Exception):
    """What a task did outside cannot be known, so it must do nothing more."""

    def __init__(self, task: str, problem: Exception) -> None:
        self.task = task
        super().__init__(f"what task {task} did outside cannot be read, so it does nothing more: {problem}")


class EffectsLedger:
    """What the attempts of one task did outside, and may have done."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._records: Mapping[str, Record] | None = None

    async def move(self, spec: ToolSpec, key: str) -> Move:
        """Return what to do with a call of the tool ``spec`` that has this key.

        :raises LedgerUnreadable: an entry of the task's effects is broken
        :raises BusError: what no waiting will cure
        """
        return next_move(await self._known(), key, spec.effect, probe=spec.probe)

    async def record_of(self, key: str) -> Record | None:
        """Return what is known of the effect with this key; None: nobody ever meant to make it.

        :raises LedgerUnreadable: an entry of the task's effects is broken
        :raises BusError: what no waiting will cure
        """
        return (await self._known()).get(key)

    async def intend(self, spec: ToolSpec, key: str, arguments: Mapping[str, Json]) -> None:
        """Log that the effect is about to be made with ``arguments``. Only when this returns may it be begun.

        :raises AttemptLost: the attempt is not this process's any more
        :raises BusError: what no waiting will cure
        """
        intent = EffectIntended(
            **self._chain.envelope(),
            by=self._chain.by,
            key=key,
            tool=spec.name,
            arguments_digest=digest_of(arguments),
            effect=spec.effect,
            place=place_of(spec, arguments),
        )
        await self._chain.extend(intent)
        self._note(intent)

    async def done(self, key: str, outcome: Json, *, failed: bool = False) -> None:
        """Log what came of the effect. ``failed``: it is certain that nothing was changed.

        Also when cancelled, as far as there is time; where there is none, the intent alone leaves it in doubt.

        :raises BusError: what no waiting will cure
        """
        await self._record(
            EffectDone(**self._chain.envelope(), by=self._chain.by, key=key, outcome=outcome, failed=failed)
        )

    async def in_doubt(self, key: str, reason: str) -> None:
        """Log that nobody knows what came of the effect. Also when cancelled, as ``done``.

        :raises BusError: what no waiting will cure
        """
        await self._record(EffectInDoubt(**self._chain.envelope(), by=self._chain.by, key=key, reason=reason))

    async def _record(self, message: EffectDone | EffectInDoubt) -> None:
        self._note(message)
        try:
            await self._chain.record(message)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(_LAST_WORDS):
                await self._chain.record(message)  # the same message again enters once
            raise

    def _note(self, message: Message) -> None:
        self._records = fold_records([message], self._records)

    async def _known(self) -> Mapping[str, Record]:
        """Return all that is known, read from the log once: afterwards nobody but this attempt intends anything."""
        if self._records is None:
            assigned = self._chain.assignment
            subjects = task_effects(assigned.ns, assigned.job, assigned.task)
            entries = [one for some in subjects for one in await self._read(some)]
            self._records = fold_records(one.message for one in sorted(entries, key=lambda one: one.seq))
        return self._records

    async def _read(self, subjects: str) -> list[Received]:
        """Return all entries up to the last one that the stream's leader has."""
        bus, found = self._chain.bus, list[Received]()
        try:
            last = await patiently(partial(bus.last, subjects))
        except UNREADABLE as error:
            raise LedgerUnreadable(self._chain.assignment.task, error) from error
        while last is not None and (not found or found[-1].seq < last.seq):
            if found:
                await anyio.sleep(_LAG)
            found += await patiently(partial(bus.entries, subjects, found[-1].seq if found else 0))
        return found
