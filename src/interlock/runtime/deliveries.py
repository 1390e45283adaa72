"""Assignments and results as a role's workers and verifiers get them: each one held until it is answered."""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio

from interlock.protocol.errors import VersionUnknown
from interlock.protocol.messages import Message
from interlock.runtime._background import beside
from interlock.runtime._jetstream import NO_CONSUMER, NS_PER_SECOND, api
from interlock.runtime._names import QUEUE_JOB
from interlock.runtime._pull import Pull, Pulled
from interlock.runtime._wire import Wire
from interlock.runtime.bus_errors import BrokerComplaint, BrokerUnreachable, BusError, NobodyListens
from interlock.runtime.received import UNREADABLE, Reader, Received

__all__ = ["Deliveries", "Delivery", "PullOptions"]

_log = logging.getLogger(__name__)

_ACK, _NAK, _PROGRESS, _TERM = b"+ACK", b"-NAK", b"+WPI", b"+TERM"
_MAX_ACK_PENDING = 100_000
_MAX_WAITING = 8192
_LEAVE_SECONDS = 1.0
_SKEW = NS_PER_SECOND // 4
"""By how much the broker's clock may be ahead of this one."""

_LONGEST_BEAT = 1.5
"""Seconds between two signs of a holder, at most. The broker's patience counts from the last one: the longer ago that
may have been, the sooner others can get the work of who is cut off and still at it."""


@dataclass(frozen=True, slots=True)
class PullOptions:
    """Which messages a consumer takes, and how many at once."""

    stream: str
    consumer: str
    subjects: str
    slots: int
    ack_wait: float
    """Seconds after which a message that its holder says nothing of goes to another one."""
    max_deliver: int
    """How often one message is delivered at most."""
    forgotten_after: float | None = None
    """Seconds without anybody pulling after which the broker drops the consumer; None: never."""
    job: str | None = None
    """The only job that it is for; None: all of them."""
    since: int | None = None
    """The stream sequence from which on it takes messages; None: from the first."""

    @property
    def config(self) -> dict[str, Any]:
        """The consumer's configuration."""
        config: dict[str, Any] = {
            "name": self.consumer,
            "durable_name": self.consumer,
            "filter_subject": self.subjects,
            "ack_policy": "explicit",
            "ack_wait": int(self.ack_wait * NS_PER_SECOND),
            "max_deliver": self.max_deliver,
            "max_ack_pending": _MAX_ACK_PENDING,
            "max_waiting": _MAX_WAITING,
        }
        if self.forgotten_after is not None:
            config["inactive_threshold"] = int(self.forgotten_after * NS_PER_SECOND)
        if self.since is not None:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": self.since}
        if self.job is not None:
            config["metadata"] = {QUEUE_JOB: self.job}
        return config


class Delivery:
    """One message that wants an answer. Only the first answer counts.

    An answer says that the message was dealt with and decides nothing: where it is lost, the message comes again and
    whatever is appended for it a second time is refused by the chain. So an answer without a connection is no error.
    """

    def __init__(self, deliveries: "Deliveries", pulled: Pulled, received: Received) -> None:
        self._deliveries = deliveries
        self._pulled = pulled
        self.received = received

    @property
    def message(self) -> Message:
        """What was delivered."""
        return self.received.message

    @property
    def seq(self) -> int:
        """Stream sequence: what an answer in the task's chain answers."""
        return self.received.seq

    @property
    def headers(self) -> Mapping[str, str]:
        """The broker's headers, trace context among them."""
        return self.received.headers

    @property
    def deliveries(self) -> int:
        """How often the message was delivered to anybody, this time included."""
        return self._pulled.deliveries

    @property
    def is_again(self) -> bool:
        """Whether somebody may have worked on the message before.

        A broker that is killed may forget whom it delivered to, so its count alone does not tell: what was stored
        before this connection to it was made may be back, too.
        """
        return self.deliveries > 1 or self._pulled.raw.time < self._deliveries.up_since + _SKEW

    async def ack(self) -> None:
        """Say that it is dealt with."""
        await self._deliveries.answer(self._pulled, _ACK)

    async def nak(self, delay: float = 0) -> None:
        """Give it back, to be delivered again after ``delay`` seconds."""
        await self._deliveries.answer(self._pulled, _nak(delay))

    async def leave(self) -> None:
        """Say nothing more of it: another holder has it by now, or will get it once this one was silent for long."""
        await self._deliveries.leave(self._pulled)

    @asynccontextmanager
    async def keep_alive(self) -> AsyncIterator[None]:
        """Keep the message from going to another holder while the block runs and the event loop turns."""
        await self._deliveries.hold(self._pulled)
        try:
            yield
        finally:
            self._deliveries.let_go(self._pulled)


class Deliveries:
    """An endless iterator of deliveries; never more than ``slots`` of them are unanswered at once."""

    def __init__(self, wire: Wire, reader: Reader, options: PullOptions) -> None:
        self._wire = wire
        self._reader = reader
        self._options = options
        self._pull = Pull(wire, options.slots, self._prepare, self._receive, self._count_unanswered)
        self._queue: deque[Pulled] = deque()
        self._unanswered: dict[str, tuple[Pulled, float]] = {}
        """By reply subject, with the time when it came."""
        self._kept: dict[str, Pulled] = {}
        self._news = asyncio.Event()
        self._failure: BaseException | None = None
        self._over = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Deliveries"]:
        """Pull inside the block; what is unanswered when it is left goes to others at once."""
        try:
            async with beside(self._pull.run(), self._fail), beside(self._beat(), self._fail):
                yield self
        finally:
            self._over = True
            with anyio.move_on_after(_LEAVE_SECONDS, shield=True):
                await self._give_back([pulled for pulled, _ in self._unanswered.values()])

    async def drain(self) -> None:
        """Take nothing more and give back what nobody began; the iterator ends, those in hand may be finished."""
        await self._pull.stop()
        waiting, self._over = list(self._queue), True
        self._queue.clear()
        await self._give_back(waiting)
        self._news.set()

    @property
    def up_since(self) -> int:
        """When the connection that it comes over was made, nanoseconds since 1970."""
        return self._wire.up_since

    def __aiter__(self) -> "Deliveries":
        return self

    async def __anext__(self) -> Delivery:
        """Return the next delivery.

        :raises BusError: what no waiting will cure, such as missing permissions
        """
        while True:
            if self._failure:
                raise self._failure
            if self._over:
                raise StopAsyncIteration
            if not self._queue:
                self._news.clear()
                await self._news.wait()
            elif delivery := await self._open_letter(self._queue.popleft()):
                return delivery

    async def answer(self, pulled: Pulled, body: bytes) -> None:
        """Answer a delivery once and use the slot for another one."""
        if self._unanswered.pop(pulled.reply, None) is None:
            return
        self._kept.pop(pulled.reply, None)
        await self._tell(pulled, body)
        self._pull.ask()

    async def leave(self, pulled: Pulled) -> None:
        """Use the slot of a delivery for another one without an answer to it."""
        if self._unanswered.pop(pulled.reply, None) is not None:
            self._kept.pop(pulled.reply, None)
            self._pull.ask()

    async def hold(self, pulled: Pulled) -> None:
        """Begin to tell the broker that ``pulled`` is worked on."""
        _, came = self._unanswered.get(pulled.reply, (pulled, 0.0))
        self._kept[pulled.reply] = pulled
        if time.monotonic() - came > self._beat_seconds:
            await self._tell(pulled, _PROGRESS)

    def let_go(self, pulled: Pulled) -> None:
        """Tell the broker no more that ``pulled`` is worked on."""
        self._kept.pop(pulled.reply, None)

    @property
    def _beat_seconds(self) -> float:
        return min(self._options.ack_wait / 3, _LONGEST_BEAT)

    async def _prepare(self) -> str:
        """Make sure of the role's consumer: bring it to these settings, or, where agents make none, look for it."""
        options = self._options
        name = f"{options.stream}.{options.consumer}"
        if self._wire.address.lane is None:
            await api(self._wire, f"CONSUMER.CREATE.{name}", {"stream_name": options.stream, "config": options.config})
        else:
            await self._look_for(name)
        return name

    async def _look_for(self, name: str) -> None:
        call = f"CONSUMER.INFO.{name}"
        try:
            await api(self._wire, call)
        except BrokerComplaint as error:
            if error.code != NO_CONSUMER:
                raise
            _log.info("there is no queue %s yet", self._options.consumer)
            raise NobodyListens(call) from None

    def _receive(self, pulled: Pulled) -> bool:
        self._unanswered[pulled.reply] = (pulled, time.monotonic())
        self._queue.append(pulled)
        self._news.set()
        return True

    def _count_unanswered(self) -> int:
        return len(self._unanswered)

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._news.set()

    async def _open_letter(self, pulled: Pulled) -> Delivery | None:
        """Return the delivery of ``pulled``; None where it cannot be read, now or here (given back) or ever (ended)."""
        try:
            return Delivery(self, pulled, await self._reader.read(pulled.raw))
        except VersionUnknown as error:
            self._reader.unreadable += 1
            _log.error("entry %d goes back, to be read by a newer machine: %s", pulled.raw.seq, error)
            await self.answer(pulled, _nak(1))
        except UNREADABLE as error:
            self._reader.unreadable += 1
            _log.error("entry %d at %s cannot be read, nobody gets it: %s", pulled.raw.seq, pulled.raw.subject, error)
            await self.answer(pulled, _TERM)
        except BusError as error:
            _log.warning("entry %d goes back, its body cannot be fetched now: %s", pulled.raw.seq, error)
            await self.answer(pulled, _nak(1))
        return None

    async def _beat(self) -> None:
        while True:
            await anyio.sleep(self._beat_seconds)
            for pulled in tuple(self._kept.values()):
                await self._tell(pulled, _PROGRESS)

    async def _give_back(self, many: list[Pulled]) -> None:
        for pulled in many:
            await self.answer(pulled, _NAK)

    async def _tell(self, pulled: Pulled, body: bytes) -> None:
        with suppress(BrokerUnreachable):  # the class says why: the message comes again, which harms nobody
            self._wire.send(pulled.reply, body)


def _nak(delay: float) -> bytes:
    return _NAK + b" " + json.dumps({"delay": int(delay * NS_PER_SECOND)}).encode() if delay else _NAK
