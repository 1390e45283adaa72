"""The effects ledger of one attempt, in the log: intents in the task's chain, outcomes beside it."""

from collections.abc import Mapping
from functools import partial

import anyio

from interlock.protocol.base import Json
from interlock.protocol.ledger import Record, fold_records
from interlock.protocol.messages import EffectDone, EffectInDoubt, EffectIntended, Message
from interlock.protocol.subjects import task_effects
from interlock.protocol.tools import ToolSpec
from interlock.runtime.chain import Chain, patiently

__all__ = ["EffectsLedger"]

_LAST_WORDS = 0.15
"""Seconds that a process which is told to end takes to record what it knows of an effect; less than its grace."""


class EffectsLedger:
    """What the attempts of one task did outside, and may have done."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._records: dict[str, Record] | None = None

    async def record_of(self, key: str) -> Record | None:
        """Return what is known of the effect with this key; None: nobody ever meant to make it.

        :raises BusError: what no waiting will cure
        """
        if self._records is None:
            assigned = self._chain.assignment
            subjects = task_effects(assigned.ns, assigned.job, assigned.task)
            read = self._chain.bus.entries
            entries = [one for some in subjects for one in await patiently(partial(read, some))]
            self._records = fold_records(one.message for one in sorted(entries, key=lambda one: one.seq))
        return self._records.get(key)

    async def intend(self, spec: ToolSpec, key: str, digest: str) -> None:
        """Log that the effect is about to be made. Only when this returns may it be begun.

        :raises AttemptLost: the attempt is not this process's any more
        :raises BusError: what no waiting will cure
        """
        intent = EffectIntended(
            **self._chain.envelope(),
            by=self._chain.by,
            key=key,
            tool=spec.name,
            arguments_digest=digest,
            effect=spec.effect,
        )
        await self._chain.extend(intent)
        self._note(intent)

    async def done(self, key: str, outcome: Json, *, failed: bool = False) -> None:
        """Log what came of the effect. ``failed``: the tool says that it changed nothing.

        :raises BusError: what no waiting will cure
        """
        message = EffectDone(**self._chain.envelope(), by=self._chain.by, key=key, outcome=outcome, failed=failed)
        await self._chain.record(message)
        self._note(message)

    async def in_doubt(self, key: str, reason: str) -> None:
        """Log that nobody knows what came of the effect. Also when cancelled, as far as there is time.

        Where this cannot be logged any more the intent alone says the same.
        """
        message = EffectInDoubt(**self._chain.envelope(), by=self._chain.by, key=key, reason=reason)
        with anyio.CancelScope(shield=True), anyio.move_on_after(_LAST_WORDS):
            await self._chain.record(message)
        self._note(message)

    def _note(self, message: Message) -> None:
        self._records = fold_records([message], self._records or {})

    @property
    def records(self) -> Mapping[str, Record]:
        """All that is known so far."""
        return self._records or {}
