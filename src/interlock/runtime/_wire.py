"""One connection to the broker that says the truth: a lost one is noticed at once, and nothing is sent later by itself.

nats-py would keep what it could not send and send it after a reconnect, would let requests run into their timeouts
when the connection breaks, and reports a denied publish to a callback only. Here each of them is an error of its own.
"""

import asyncio
import itertools
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
from nats import errors as nats_errors
from nats.aio.subscription import Subscription

from interlock.runtime._client import FastClient, Heard, Receiver
from interlock.runtime._keys import public_key
from interlock.runtime.address import BrokerAddress, inbox_of
from interlock.runtime.bus_errors import (
    BrokerRefused,
    BrokerUnreachable,
    BusError,
    LeaderMissing,
    NobodyListens,
    PayloadTooLarge,
    PublishDenied,
    ReplyMissing,
    SubscribeDenied,
)

_log = logging.getLogger(__name__)

REQUEST_SECONDS = 10.0
"""A bound on waiting for a reply over a connection that answers pings; a dead connection is noticed long before."""

CLUSTER_SECONDS = 1.5
"""The same in a cluster, where a request may have gone to a node that is dead or cut off."""

_RECONNECT_SECONDS = 0.2
_DRAIN_SECONDS = 1.0
_NOBODY = "503"
_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"')
_NOT_CONNECTED = (
    nats_errors.OutboundBufferLimitError,
    nats_errors.ConnectionClosedError,
    nats_errors.ConnectionDrainingError,
    nats_errors.ConnectionReconnectingError,
)


@dataclass(slots=True)
class _Waiting:
    """A request, or a PING, that was sent. Its future gets the reply, or the ``BusError`` to raise."""

    subject: str
    reply: "asyncio.Future[Any]"

    def settle(self, outcome: Any) -> None:
        """Give the future its outcome, unless it has one."""
        if not self.reply.done():
            self.reply.set_result(outcome)

    def give_up(self, seconds: float) -> None:
        """Say that nothing came in ``seconds``."""
        self.settle(ReplyMissing(self.subject, f"{seconds:g} s passed"))

    async def answer(self) -> Any:
        """Return the reply.

        :raises BusError: there is none
        """
        answer = await self.reply
        if isinstance(answer, BusError):
            raise answer
        return answer


class Wire:
    """A connection; open one with ``Wire.open``."""

    def __init__(self, address: BrokerAddress, name: str) -> None:
        self.address = address
        self._name = name
        self._client = FastClient(self._lose)
        self._up = anyio.Event()
        self._up_since = 0
        self._lost_watchers: set[Callable[[], None]] = set()
        self._denied_watchers: dict[str, tuple[str, Callable[[PublishDenied], None]]] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._tokens = itertools.count()
        self._inbox = ""
        self._denied_subscriptions: set[str] = set()
        self._reason = "it was never connected"
        self._dialling: anyio.CancelScope | None = None
        self._refusal: str | None = None
        self._redial: asyncio.Task[None] | None = None
        self._established = self._closing = False

    @classmethod
    @asynccontextmanager
    async def open(cls, address: BrokerAddress, name: str, seconds: float) -> "AsyncIterator[Wire]":
        """Connect within ``seconds`` and stay connected until the block is left.

        :raises BrokerUnreachable: nobody answered in time
        :raises BrokerRefused: the credentials are wrong
        """
        wire = cls(address, name)
        await wire._dial(seconds)
        try:
            wire._established = True
            yield wire
        finally:
            with anyio.CancelScope(shield=True):
                await wire._close()

    @property
    def is_up(self) -> bool:
        """Whether there is a connection that was alive when last looked at."""
        return self._up.is_set()

    @property
    def up_since(self) -> int:
        """When the last connection was made, nanoseconds since 1970; 0: never."""
        return self._up_since

    @property
    def in_cluster(self) -> bool:
        """Whether the server that was connected to last is a node of a cluster."""
        return self._client.in_cluster

    async def wait_up(self) -> None:
        """Wait until there is a connection."""
        while not self._up.is_set():
            await self._up.wait()
        await anyio.lowlevel.checkpoint()  # whoever tries again in a loop lets the others run

    @asynccontextmanager
    async def watching(self, lost: Callable[[], None]) -> AsyncIterator[None]:
        """Call ``lost`` whenever the connection breaks inside the block."""
        self._lost_watchers.add(lost)
        try:
            yield
        finally:
            self._lost_watchers.discard(lost)

    @contextmanager
    def told_if_denied(self, subject: str, denied: Callable[[PublishDenied], None]) -> Iterator[None]:
        """Call ``denied`` where the broker lets nothing that is published to ``subject`` inside the block pass."""
        self._denied_watchers[subject.lower()] = (subject, denied)
        try:
            yield
        finally:
            self._denied_watchers.pop(subject.lower(), None)

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses."""
        return self._client.new_inbox()

    async def publish(
        self, subject: str, body: bytes = b"", reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a message, waiting only where the connection is slower than its senders.

        :raises BrokerUnreachable: there is no connection; the message is gone
        :raises PayloadTooLarge: ``body`` is larger than the broker takes
        """
        self.send(subject, body, reply, headers)
        await self._client.room()

    def send(self, subject: str, body: bytes, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Send a message of which there are few or which is small: it waits for nothing. Raises as ``publish``."""
        if not self.is_up:
            raise BrokerUnreachable(self.address.url, self._reason)
        if len(body) > self._client.max_payload:
            raise PayloadTooLarge(subject, len(body), self._client.max_payload)
        try:
            self._client.send(subject, body, reply, headers)
        except _NOT_CONNECTED as error:
            raise BrokerUnreachable(self.address.url, str(error)) from None

    async def request(
        self,
        subject: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
    ) -> Heard:
        """Send a request and return its reply.

        :raises BrokerUnreachable: there is no connection; the request was not sent
        :raises ReplyMissing: it was sent and the connection broke, or ``seconds`` passed
        :raises PublishDenied: these credentials may not publish to ``subject``
        :raises NobodyListens: nothing is subscribed to ``subject``
        :raises LeaderMissing: the same in a cluster, where that passes
        """
        with self._expecting(subject, seconds or (CLUSTER_SECONDS if self.in_cluster else REQUEST_SECONDS)) as (
            token,
            waiting,
        ):
            await self.publish(subject, body, f"{self._inbox}.{token}", headers)
            reply: Heard = await waiting.answer()
        if reply.headers.get("Status") == _NOBODY:
            raise LeaderMissing(subject, "nobody listens") if self.in_cluster else NobodyListens(subject)
        return reply

    async def subscribe(self, subject: str, receive: Receiver) -> Subscription:
        """Have ``receive`` called for each message to ``subject``; the broker knows of it on return.

        :raises BrokerUnreachable: there is no connection
        :raises ReplyMissing: the connection broke meanwhile
        :raises SubscribeDenied: these credentials may not read ``subject``
        """
        if not self.is_up:
            raise BrokerUnreachable(self.address.url, self._reason)
        self._denied_subscriptions.discard(subject.lower())
        try:
            subscription = await self._client.hear(subject, receive)
        except _NOT_CONNECTED as error:
            raise BrokerUnreachable(self.address.url, str(error)) from None
        try:
            await self._round_trip()
        except BaseException:
            await self.unsubscribe(subscription)
            raise
        if subject.lower() in self._denied_subscriptions:
            await subscription.unsubscribe()
            denied = SubscribeDenied(subject)
            _log.error("%s", denied)
            raise denied
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription once everything that the broker sent for it was received, as far as there is a broker."""
        try:
            with anyio.move_on_after(_DRAIN_SECONDS):
                if self.is_up:
                    await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py annotates only some methods
                else:
                    await subscription.unsubscribe()
        except nats_errors.Error as error:
            _log.debug("a subscription to %s ended with its connection: %s", subscription.subject, error)

    @contextmanager
    def _expecting(self, subject: str, seconds: float) -> Iterator[tuple[str, _Waiting]]:
        """Have a reply to something waited for inside the block, for ``seconds`` or until the connection breaks."""
        token, loop = str(next(self._tokens)), asyncio.get_running_loop()
        waiting = self._waiting[token] = _Waiting(subject, loop.create_future())
        late = loop.call_later(seconds, waiting.give_up, seconds)
        try:
            yield token, waiting
        finally:
            late.cancel()
            del self._waiting[token]

    async def _round_trip(self) -> None:
        """Wait until the broker has taken in everything that was sent before."""
        with self._expecting("PING", REQUEST_SECONDS) as (_, waiting):
            await self._client.ping(waiting.reply)
            await waiting.answer()

    async def _dial(self, seconds: float) -> None:
        self._client, self._refusal = FastClient(self._lose), None
        with anyio.move_on_after(seconds) as self._dialling:
            await self._client.connect(
                self.address.servers,
                name=self._name,
                user=self.address.user,
                password=self.address.password,
                token=self.address.token,
                **_secured(self.address),
                pending_size=0,
                ping_interval=1,
                max_outstanding_pings=2,
                max_reconnect_attempts=-1,
                reconnect_time_wait=_RECONNECT_SECONDS,  # type: ignore[arg-type]  # it sleeps this long: a float will do
                error_cb=self._on_error,
                disconnected_cb=self._on_lost,
                reconnected_cb=self._on_back,
                closed_cb=self._on_closed,
            )
            self._inbox = self._client.new_inbox()
            await self._client.hear(f"{self._inbox}.*", self._on_reply)
            await self._client.flush()
            self._set_up()
        self._dialling = None
        if not self._up.is_set():
            await self._give_up(seconds)

    async def _give_up(self, seconds: float) -> None:
        reason, refusal = self._reason, self._refusal
        with anyio.CancelScope(shield=True):
            await _hang_up(self._client)
        if refusal:
            raise BrokerRefused(self.address.url, refusal)
        raise BrokerUnreachable(self.address.url, f"no connection within {seconds:g} s ({reason})")

    async def _close(self) -> None:
        self._closing = True
        if self._redial:
            self._redial.cancel()
        await _hang_up(self._client)
        self._settle_waiting("the bus was closed")

    def _on_reply(self, message: Heard) -> None:
        if waiting := self._waiting.get(message.subject.rpartition(".")[2]):
            waiting.settle(message)

    async def _on_error(self, error: Exception) -> None:
        self._reason = str(error) or type(error).__name__
        if denied := _DENIED.search(self._reason):
            self._on_denied(denied[1], denied[2])
        elif self._dialling and "authorization" in self._reason.lower():
            self._refusal = self._reason
            self._dialling.cancel()
        else:
            _log.debug("broker connection: %s", self._reason)

    def _on_denied(self, action: str, subject: str) -> None:
        """Hand a denial to whom it concerns. nats-py lowers the case of what the broker said."""
        if action == "subscription":
            self._denied_subscriptions.add(subject)
            return
        concerned = [one for one in self._waiting.values() if one.subject.lower() == subject]
        watched, watcher = self._denied_watchers.get(subject, (subject, None))
        told = PublishDenied(concerned[0].subject if concerned else watched)
        _log.error("%s", told)
        for waiting in concerned:
            waiting.settle(PublishDenied(waiting.subject))
        if watcher is not None:
            watcher(told)

    def _lose(self, reason: str) -> None:
        """Fail at once whatever waits for this connection."""
        if not self._up.is_set():
            return
        self._up, self._reason = anyio.Event(), reason
        if not self._closing:  # on closing nats-py sends what is left, answers to deliveries for one
            self._client.forget_unsent()
        self._settle_waiting(f"the connection broke ({reason})")
        for lost in tuple(self._lost_watchers):
            lost()
        if not self._closing:
            _log.warning("lost the connection to the broker at %s: %s", self.address, reason)

    async def _on_lost(self) -> None:
        self._client.forget_unsent()  # what nats-py itself wrote meanwhile

    async def _on_back(self) -> None:
        if self._client.is_connected:
            self._set_up()
            _log.info("connected to the broker at %s again", self.address)

    def _set_up(self) -> None:
        self._up_since = time.time_ns()
        self._up.set()

    async def _on_closed(self) -> None:
        """Dial anew where nats-py gives up for good, as it does when the broker sends it an error it does not know."""
        if self._established and not self._closing and (self._redial is None or self._redial.done()):
            self._redial = asyncio.create_task(self._dial_until_up(), name="broker redial")

    async def _dial_until_up(self) -> None:
        while not self._up.is_set():
            try:
                await self._dial(REQUEST_SECONDS)
            except BusError as error:
                self._reason = str(error)
                _log.warning("%s", error)
                await anyio.sleep(1)

    def _settle_waiting(self, reason: str) -> None:
        for waiting in self._waiting.values():
            waiting.settle(ReplyMissing(waiting.subject, reason))


def _secured(address: BrokerAddress) -> dict[str, Any]:
    """Return what the client is told of keys and certificates.

    :raises KeysUnusable: the key is none
    :raises OSError: the certificates cannot be read
    """
    told: dict[str, Any] = {}
    if address.seed is not None:
        inbox = inbox_of(public_key(address.seed)).encode()
        told |= {"nkeys_seed_str": address.seed, "inbox_prefix": inbox}
    if address.ca is not None:
        told["tls"] = ssl.create_default_context(cafile=address.ca)
    return told


async def _hang_up(client: FastClient) -> None:
    try:
        await client.close()
    except (OSError, nats_errors.Error) as error:
        _log.debug("closing the connection to the broker: %s", error)
    if (transport := client._transport) is not None:  # noqa: SLF001 - a dial that was cancelled leaves it open
        transport.close()  # type: ignore[no-untyped-call]  # nats-py annotates only some methods
