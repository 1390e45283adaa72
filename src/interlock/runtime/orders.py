"""The stream of kill and resume orders: writing them, reading those that stand, hearing of new ones."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import ObjectReceiveStream
from nats.aio.msg import Msg

from interlock.protocol.control import (
    ControlOrder,
    Order,
    control_subject,
    control_subjects,
    decode_order,
    standing,
)
from interlock.protocol.errors import ProtocolError
from interlock.runtime._jetstream import answer_of, api, ensure_stream, last_on
from interlock.runtime._wire import Wire

__all__ = ["Orders"]

_log = logging.getLogger(__name__)


class Orders:
    """The orders of one namespace. The broker keeps the last one of each scope; its sequence is its epoch."""

    def __init__(self, wire: Wire, ns: str) -> None:
        self._wire = wire
        self._ns = ns
        self._stream = f"IL_{ns}_CONTROL"
        self._read_up_to = 0
        self._standing: dict[str, Order] = {}

    async def ensure(self, replicas: int) -> None:
        """Make the stream unless it is there.

        :raises PublishDenied: these credentials make no streams
        """
        config = {
            "name": self._stream,
            "subjects": [control_subjects(self._ns)],
            "max_msgs_per_subject": 1,
            "num_replicas": replicas,
            "allow_direct": True,
        }
        await ensure_stream(self._wire, config)

    async def write(self, order: ControlOrder) -> int:
        """Write an order, which tells everybody who listens, and return its epoch.

        :raises BusError: the broker cannot be reached, or does not let these credentials
        """
        subject = control_subject(self._ns, order.scope)
        body = order.model_dump_json().encode()
        return int(answer_of(subject, await self._wire.request(subject, body, {"Nats-Msg-Id": order.id}))["seq"])

    async def standing(self) -> Mapping[str, Order]:
        """Return the last order of each scope, by subject. One small request where nothing changed.

        An order that nobody can read is logged and left out: it stops nothing.

        :raises BusError: the broker cannot be reached
        """
        newest = await last_on(self._wire, self._stream, control_subjects(self._ns))
        if newest is None:
            self._read_up_to, self._standing = 0, {}
        elif newest.seq != self._read_up_to:
            self._standing = standing([order async for order in self._read_all()], self._ns)
            self._read_up_to = newest.seq
        return self._standing

    @asynccontextmanager
    async def heard(self) -> AsyncIterator[ObjectReceiveStream[None]]:
        """Yield a stream that has something as soon as orders are written while the block runs.

        :raises BusError: the broker cannot be reached, or does not let these credentials listen
        """
        send, receive = anyio.create_memory_object_stream[None](1)

        async def hear(_message: Msg) -> None:
            with suppress(anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
                send.send_nowait(None)

        with send, receive:
            subscription = await self._wire.subscribe(control_subjects(self._ns), hear)
            try:
                yield receive
            finally:
                with anyio.CancelScope(shield=True):
                    await self._wire.unsubscribe(subscription)

    async def _read_all(self) -> AsyncIterator[Order]:
        question = {"subjects_filter": control_subjects(self._ns)}
        info = await api(self._wire, f"STREAM.INFO.{self._stream}", question)
        for subject in info["state"].get("subjects") or {}:
            raw = await last_on(self._wire, self._stream, subject)
            if raw is None:
                continue
            try:
                order = decode_order(raw.body)
            except ProtocolError as error:
                _log.error("order %d at %s cannot be read: %s", raw.seq, subject, error)
                continue
            if control_subject(self._ns, order.scope) != subject:
                _log.error("order %d for %s stands at %s and is left out", raw.seq, order.scope, subject)
                continue
            yield Order(raw.seq, order)
