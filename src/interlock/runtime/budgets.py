"""Budgets as they are kept: what a request to a model costs at most is reserved at the broker before it leaves.

Each counter of a job or a step holds what was reserved so far. Who adds to it learns the total, and only who finds it
within the limit sends; who does not takes his part back. What was sent is never taken back, so whoever dies, the
counters say at least what was used. Tokens are settled afterwards: what was reserved becomes what the answer says.
"""

import logging
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol

import anyio

from interlock.agents.recording import ModelRecorder
from interlock.backends.chat import FREE, ChatModel, ChatReply, ChatRequest, Fare, Meter
from interlock.backends.errors import (
    BudgetSpent,
    ModelRateLimited,
    ModelRefusedRequest,
    ModelServerFailed,
    ModelUnauthorised,
    ModelUnreachable,
)
from interlock.protocol.base import Usage
from interlock.protocol.budgets import counter_of, owner_of
from interlock.protocol.messages import Allowance
from interlock.runtime.bus_errors import BrokerUnreachable
from interlock.runtime.chain import patiently
from interlock.runtime.failures import BROKER_AWAY

__all__ = ["Adds", "Budgets", "metered", "spent_of"]

_log = logging.getLogger(__name__)

_SENSIBLE = 128
"""Completion tokens below which an answer is not asked for, unless fewer were wanted in the first place."""

_FIRST_LOOK, _LONGEST_LOOK = 0.02, 0.5
"""Seconds between two looks at a budget that others hold what is left of."""

_SETTLING = 1.0
"""Seconds that a request that was cancelled has to give back what it did not use."""

_RECONNECT = 0.2

_ANSWERED_WITHOUT_WORK = (ModelRateLimited, ModelRefusedRequest, ModelUnauthorised, ModelServerFailed)


class Adds(Protocol):
    """Counters, as far as budgets need them."""

    async def add(self, key: str, amount: int) -> int:
        """Add to a counter and return its total after that; raises what ``Counters.add`` does."""
        ...


class Budgets:
    """What the jobs of one namespace may still use."""

    def __init__(self, counters: Adds) -> None:
        self._counters = counters

    def meter(self, allowances: Iterable[Allowance], patience: float) -> Meter:
        """Return the meter of requests that these allowances pay for, all of them each request.

        :param patience: seconds after which somebody who holds reserved tokens and does nothing counts as dead
        """
        inmost_first = tuple(reversed(tuple(allowances)))
        calls = [_Purse(one, "calls", one.calls) for one in inmost_first if one.calls is not None]
        tokens = [_Purse(one, "tokens", one.tokens) for one in inmost_first if one.tokens is not None]
        return _Meter(self._counters, calls, tokens, patience) if calls or tokens else FREE


@dataclass(frozen=True, slots=True)
class _Purse:
    """One limit of one allowance."""

    allowance: Allowance
    unit: Literal["calls", "tokens"]
    limit: int

    @property
    def reserved(self) -> str:
        """The counter of all that was reserved; of tokens less what turned out not to be used."""
        return counter_of(self.allowance, self.unit)

    @property
    def used(self) -> str:
        """The counter of the tokens that were used."""
        return counter_of(self.allowance, "used")

    def spent(self, used: int) -> BudgetSpent:
        """Return what is said where the purse does not pay; others who are refused as well may be in ``used``."""
        used = min(used, self.limit)
        told = f"{used} of {self.limit} {self.unit} of {owner_of(self.allowance)} are used or reserved"
        return BudgetSpent(told, "job" if self.allowance.step is None else "step")


@dataclass(slots=True)
class _Reserved:
    """What was reserved for sending a request once."""

    cost: int
    """Tokens."""
    max_tokens: int
    tokens: int | None = None
    """How many were used; None: it is not known."""

    def used(self, usage: Usage) -> None:
        """Note what the answer cost; nothing where its server does not count."""
        self.tokens = usage.prompt_tokens + usage.completion_tokens or None


class _Meter:
    """Counts the requests of one attempt."""

    def __init__(self, counters: Adds, calls: Sequence[_Purse], tokens: Sequence[_Purse], patience: float) -> None:
        self._counters, self._calls, self._tokens, self._patience = counters, calls, tokens, patience

    @asynccontextmanager
    async def sending(self, size: int, max_tokens: int) -> AsyncIterator[Fare]:
        """Reserve what sending a request costs; see :class:`~interlock.backends.chat.Meter`."""
        # Calls last: one that was reserved is then given back only where nobody around the job has any left.
        reserved = await self._reserve_tokens(size, max_tokens)
        try:
            await self._reserve_call()
            yield reserved
        except BaseException as error:
            reserved.tokens = 0 if _did_nothing(error) else reserved.tokens
            with anyio.CancelScope(shield=True), anyio.move_on_after(_SETTLING):
                await self._settle(reserved)
            raise
        await self._settle(reserved)

    async def _reserve_call(self) -> None:
        if (spent := await self._take(self._calls, 1)) is not None:
            raise spent

    async def _take(self, purses: Sequence[_Purse], amount: int) -> BudgetSpent | None:
        """Reserve from all purses, or from none and return why.

        One after the other, the inmost first: what is taken back then was never in the way of another who could have
        had it.
        """
        for number, purse in enumerate(purses, 1):
            total = await patiently(partial(self._counters.add, purse.reserved, amount))
            if total > purse.limit:
                for taken in purses[:number]:
                    await self._put_back(taken.reserved, -amount)
                return purse.spent(total - amount)
        return None

    async def _reserve_tokens(self, size: int, wanted: int) -> _Reserved:
        """Reserve as many tokens as a request of ``size`` bytes can come to, with a shorter answer if need be.

        :raises BudgetSpent: what is left is not enough for any sensible answer
        """
        if not self._tokens:
            return _Reserved(0, wanted)
        allowed = wanted
        room = _Room(size, wanted, self._patience)
        while await self._take(self._tokens, size + allowed) is not None:
            allowed = await self._room(room)
        return _Reserved(size + allowed, allowed)

    async def _room(self, room: "_Room") -> int:
        """Wait until there may be room for the request and return how long its answer may be then.

        :raises BudgetSpent: there never will be
        """
        while True:
            looks = [(purse, await self._look(purse.reserved), await self._look(purse.used)) for purse in self._tokens]
            if (allowed := room.found(looks)) is not None:
                return allowed
            await room.wait()

    async def _look(self, counter: str) -> int:
        return await patiently(partial(self._counters.add, counter, 0))

    async def _settle(self, reserved: _Reserved) -> None:
        """Make what was reserved what was used."""
        used = reserved.cost if reserved.tokens is None else reserved.tokens
        for purse in self._tokens:
            if used != reserved.cost:
                await self._put_back(purse.reserved, used - reserved.cost)
            if used:
                await self._put_back(purse.used, used)

    async def _put_back(self, counter: str, amount: int) -> None:
        """Add to a counter what must be added no more than once: where that is in doubt it is left."""
        while True:
            try:
                await self._counters.add(counter, amount)
            except BrokerUnreachable:  # so it was not sent
                await anyio.sleep(_RECONNECT)
            except BROKER_AWAY as error:
                _log.info("%d tokens or calls stay reserved: %s", abs(amount), error)
                return
            else:
                return


class _Room:
    """How long one request waits for others to give back what they reserved, and what it can have."""

    def __init__(self, size: int, wanted: int, patience: float) -> None:
        self._size, self._wanted, self._patience = size, wanted, patience
        self._pause = _FIRST_LOOK
        self._seen = -1
        self._since = 0.0

    def found(self, looks: Sequence[tuple[_Purse, int, int]]) -> int | None:
        """Return how long the answer may be after this look at the purses, None where it is worth waiting.

        :param looks: of each purse, what of it is reserved and what is used
        :raises BudgetSpent: it is not worth it
        """
        least = self._size + min(self._wanted, _SENSIBLE)
        tightest, _, used = min(looks, key=lambda look: look[0].limit - look[2])
        at_last = tightest.limit - used
        if at_last < least:
            raise tightest.spent(used)
        fullest, reserved, _ = min(looks, key=lambda look: look[0].limit - look[1])
        now = fullest.limit - reserved
        most = min(self._size + self._wanted, at_last)
        if now >= most:
            return most - self._size
        if not self._is_worth_waiting(sum(look[2] for look in looks)):
            if now < least:
                raise fullest.spent(reserved)
            return now - self._size
        return None

    def _is_worth_waiting(self, used: int) -> bool:
        """Whether somebody settled lately; whoever holds what he reserved for longer than a request takes is dead."""
        now = anyio.current_time()
        if used != self._seen:
            self._seen, self._since = used, now
        return now - self._since < self._patience

    async def wait(self) -> None:
        """Pause until the next look, each time longer, and not all at once."""
        await anyio.sleep(self._pause * random.uniform(0.5, 1))  # noqa: S311 -- it spreads load and keeps no secret
        self._pause = min(_LONGEST_LOOK, self._pause * 2)


def _did_nothing(error: BaseException) -> bool:
    """Whether no model worked for a request that ended so: it was refused, or it did not arrive."""
    if isinstance(error, ModelUnreachable):
        return not error.connected
    return isinstance(error, (BudgetSpent, *_ANSWERED_WITHOUT_WORK))


@dataclass(frozen=True, slots=True)
class _MeteredChat:
    """A model whose requests a meter lets pass."""

    model: ChatModel
    meter: Meter

    @property
    def provider(self) -> str:
        return self.model.provider

    @property
    def name(self) -> str | None:
        return self.model.name

    @property
    def url(self) -> str:
        return self.model.url

    async def chat(self, request: ChatRequest) -> ChatReply:
        return await self.model.chat(replace(request, meter=self.meter))

    async def aclose(self) -> None:
        """Close nothing: the model is shared."""


def metered(model: ChatModel, meter: Meter) -> ChatModel:
    """Return ``model`` with each request let pass by ``meter``: ``chat`` then raises ``BudgetSpent``, too.

    Closing it closes nothing.
    """
    return model if meter is FREE else _MeteredChat(model, meter)


def spent_of(model: ModelRecorder | None) -> dict[str, Any]:
    """Return the fields of a result or a verdict that say which budget ran out, if one did."""
    spent = model.spent if model is not None else None
    return {} if spent is None else {"spent": spent.reason, "spent_of": spent.of}
