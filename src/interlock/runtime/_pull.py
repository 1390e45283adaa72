"""A long-lived pull: keeps the broker sending, but never more than there is room for.

Room is asked for with requests of the pull protocol. What was asked for and neither came nor was given back is the
outstanding credit; credit and what is held never exceed the limit together. Each connection is an era with an inbox of
its own, so that nothing asked for in an earlier one can come on top.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import anyio

from interlock.runtime._client import Heard
from interlock.runtime._jetstream import NS_PER_SECOND, Raw
from interlock.runtime._wire import Wire
from interlock.runtime.bus_errors import (
    BrokerComplaint,
    BrokerUnreachable,
    LeaderMissing,
    NobodyListens,
    PublishDenied,
    ReplyMissing,
)

_log = logging.getLogger(__name__)

EXPIRES_SECONDS = 30.0
HEARTBEAT_SECONDS = 1.5
SILENCE_SECONDS = 4.0
"""Without a message or a heartbeat for so long the broker has forgotten the requests: a new era begins."""

_REQUEST = b'{"batch":%%d,"expires":%d,"idle_heartbeat":%d}' % (
    int(EXPIRES_SECONDS * NS_PER_SECOND),
    int(HEARTBEAT_SECONDS * NS_PER_SECOND),
)
_REQUEST_WHAT_IS_THERE = b'{"batch":%d,"no_wait":true}'

RETRY_SECONDS = 0.25
_TOKENS_WITHOUT_DOMAIN = 9
TEMPORARY = (BrokerUnreachable, ReplyMissing, NobodyListens, LeaderMissing)
_NOTHING_THERE = "404"
_ENDED = frozenset({"404", "408", "409"})


@dataclass(frozen=True, slots=True)
class Pulled:
    """A message with what its reply subject says of it."""

    raw: Raw
    reply: str
    consumer: str
    deliveries: int
    """1 for the first time."""
    consumer_seq: int
    pending: int
    """How many more messages the consumer has stored."""


class Pull:
    """Pulls from the consumer that ``prepare`` makes, for as long as ``run`` runs."""

    def __init__(
        self,
        wire: Wire,
        limit: int,
        prepare: Callable[[], Awaitable[str]],
        receive: Callable[[Pulled], bool],
        held: Callable[[], int],
        pause: float | None = None,
    ) -> None:
        self._wire = wire
        self._limit = limit
        self._prepare = prepare
        """Makes sure that the consumer is there and returns ``STREAM.CONSUMER``; called for each era."""
        self._receive = receive
        """Takes a message; False: something is missing before it, begin a new era."""
        self._held = held
        self._pause = pause
        """Seconds until it asks again once it has all that was there; None: the broker sends what comes as it comes."""
        self._resting: asyncio.TimerHandle | None = None
        self._outstanding = 0
        self._era: anyio.Event | None = None
        self._heard = 0.0
        self._subject = self._inbox = ""
        self._denied: PublishDenied | None = None
        self._running = anyio.CancelScope()
        self._stopped = anyio.Event()

    async def run(self) -> None:
        """Pull until stopped or cancelled, through lost connections.

        :raises BusError: what no waiting will cure, such as a denied subscription
        """
        try:
            async with self._wire.watching(self._end_era):
                with self._running:
                    await self._pull_for_ever()
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """End ``run``: on return everything that the broker sent was received and nothing more comes."""
        self._running.cancel()
        await self._stopped.wait()

    def ask(self) -> None:
        """Ask for as much as there is room for, once that is worth a request."""
        room = self._limit - self._held() - self._outstanding
        if not self._inbox or self._resting or room < 1:
            return
        if self._outstanding and (self._pause is not None or room < self._limit // 4):
            return
        if not self._outstanding:
            self._heard = time.monotonic()
        self._outstanding += room
        with suppress(BrokerUnreachable):  # the era ends with the connection
            request = _REQUEST if self._pause is None else _REQUEST_WHAT_IS_THERE
            self._wire.send(self._next, request % room, self._inbox)

    def _rest(self, seconds: float) -> None:
        """Ask for nothing until so many seconds have passed."""
        self._outstanding = 0
        self._resting = asyncio.get_running_loop().call_later(seconds, self._wake)

    def _wake(self) -> None:
        self._resting = None
        self.ask()

    @property
    def _next(self) -> str:
        """Where messages are asked for."""
        return f"{self._wire.address.api}.CONSUMER.MSG.NEXT.{self._subject}"

    async def _pull_for_ever(self) -> None:
        while True:
            await self._wire.wait_up()
            try:
                await self._one_era()
            except TEMPORARY as error:
                _log.debug("pull from %s: %s", self._subject or "a consumer to be", error)
            except BrokerComplaint as error:
                if not error.temporary:
                    raise
                _log.warning("%s", error)
            if self._wire.is_up:  # it is the consumer or a request that is the matter
                await anyio.sleep(RETRY_SECONDS)

    def _deny(self, denied: PublishDenied) -> None:
        self._denied = denied
        self._end_era()

    def _end_era(self) -> None:
        self._inbox = ""
        if self._era:
            self._era.set()

    async def _one_era(self) -> None:
        era = self._era = anyio.Event()
        self._outstanding = 0
        self._subject = await self._prepare()
        inbox = self._wire.new_inbox()

        def hear(message: Heard) -> None:
            self._hear(message, current=self._era is era)

        subscription = await self._wire.subscribe(inbox, hear)
        try:
            if not era.is_set():
                self._inbox = inbox
            with self._wire.told_if_denied(self._next, self._deny):
                self.ask()
                while not era.is_set():
                    await self._watch_silence(era)
            if self._denied:
                raise self._denied
        finally:
            self._inbox = ""
            if self._resting:
                self._resting.cancel()
                self._resting = None
            with anyio.CancelScope(shield=True):
                await self._wire.unsubscribe(subscription)

    async def _watch_silence(self, era: anyio.Event) -> None:
        with anyio.move_on_after(SILENCE_SECONDS / 4):
            await era.wait()
        if self._outstanding and time.monotonic() - self._heard > SILENCE_SECONDS:
            _log.warning("the broker went silent about %s; asking anew", self._subject)
            self._end_era()

    def _hear(self, message: Heard, *, current: bool) -> None:
        self._heard = time.monotonic()
        if message.reply:
            self._outstanding -= 1 if current else 0
            if not self._receive(_pulled(message)):
                self._end_era()
        elif current:
            self._hear_status(message.headers)
        self.ask()

    def _hear_status(self, headers: Mapping[str, str]) -> None:
        """Take back the credit of a request that ended; where it is not said how much that is, begin a new era."""
        status = headers.get("Status", "")
        unused = headers.get("Nats-Pending-Messages")
        if status == _NOTHING_THERE and self._pause is not None:
            self._rest(self._pause)
        elif status in _ENDED and unused is not None:
            self._outstanding = max(0, self._outstanding - int(unused))
        elif status != "100":
            _log.warning("the broker ended a pull from %s: %s %s", self._subject, status, headers.get("Description"))
            self._end_era()


def _pulled(message: Heard) -> Pulled:
    """Read ``$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<deliveries>.<seq>.<consumer seq>.<time>.<pending>``."""
    tokens = message.reply.split(".")
    at = 4 if len(tokens) == _TOKENS_WITHOUT_DOMAIN else 6
    raw = Raw(int(tokens[at + 1]), message.subject, message.data, message.headers, int(tokens[at + 3]))
    return Pulled(raw, message.reply, tokens[at - 1], int(tokens[at]), int(tokens[at + 2]), int(tokens[at + 4]))
