"""The stream of control: kill and resume orders and the operator's policy, written, read and heard of."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import anyio
from anyio.abc import ObjectReceiveStream

from interlock.protocol.control import (
    Control,
    ControlOrder,
    Order,
    Policy,
    control_subject,
    control_subjects,
    decode_order,
    decode_policy,
    policy_subject,
    standing,
)
from interlock.protocol.errors import ProtocolError
from interlock.runtime._client import Heard
from interlock.runtime._jetstream import Raw, answer_of, api, ensure_stream, last_on, lead
from interlock.runtime._names import control_stream
from interlock.runtime._wire import Wire

__all__ = ["Orders"]

_log = logging.getLogger(__name__)


class Orders:
    """The orders of one namespace. The broker keeps the last one of each scope; its sequence is its epoch."""

    def __init__(self, wire: Wire, ns: str) -> None:
        self._wire = wire
        self._ns = ns
        self._stream = control_stream(ns)
        self._control = Control()

    async def ensure(self, replicas: int | None) -> None:
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

        An order to resume is let in only where it lifts the last order of its scope that there is now: one that a
        network kept, or that is sent again, lifts none that was written since.

        :raises BusError: the broker cannot be reached, or does not let these credentials
        """
        subject = control_subject(self._ns, order.scope)
        headers = {"Nats-Msg-Id": order.id}
        if not order.stop:
            lifted = await last_on(self._wire, self._stream, subject)
            headers["Nats-Expected-Last-Subject-Sequence"] = str(lifted.seq if lifted else 0)
        body = order.model_dump_json().encode()
        return int(answer_of(subject, await self._wire.request(subject, body, headers))["seq"])

    async def write_policy(self, policy: Policy) -> int:
        """Lay down a policy in the place of the one before and return its epoch.

        :raises BusError: the broker cannot be reached, or does not let these credentials
        """
        subject = policy_subject(self._ns)
        body = policy.model_dump_json(exclude_defaults=True).encode()
        return int(answer_of(subject, await self._wire.request(subject, body, {"Nats-Msg-Id": policy.id}))["seq"])

    async def standing(self) -> Mapping[str, Order]:
        """Return the last order of each scope, by subject. One small request where nothing changed.

        :raises BusError: the broker cannot be reached
        """
        return (await self.control()).orders

    async def control(self) -> Control:
        """Return all that stands in the stream right now. One small request where nothing changed.

        An order that nobody can read is logged and left out: it stops nothing. A policy that nobody can read is an
        error, since it may forbid anything.

        :raises ProtocolError: the policy cannot be read
        :raises BusError: the broker cannot be reached
        """
        newest = await self._newest()
        if newest != self._control.newest:
            self._control = await self._read_anew(newest) if newest else Control()
        return self._control

    @asynccontextmanager
    async def heard(self) -> AsyncIterator[ObjectReceiveStream[None]]:
        """Yield a stream that has something as soon as orders are written while the block runs.

        An agent's credentials let it hear of none: it has to look.

        :raises BusError: the broker cannot be reached, or does not let these credentials listen
        """
        send, receive = anyio.create_memory_object_stream[None](1)

        def hear(_message: Heard) -> None:
            with suppress(anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
                send.send_nowait(None)

        with send, receive:
            if self._wire.address.lane is not None:
                yield receive
                return
            subscription = await self._wire.subscribe(control_subjects(self._ns), hear)
            try:
                yield receive
            finally:
                with anyio.CancelScope(shield=True):
                    await self._wire.unsubscribe(subscription)

    async def _newest(self) -> int:
        """Return the sequence of what was written last; 0: nothing was.

        In a cluster only from a leader that can know it: one that was cut off from the others would go on for ten
        seconds to say that nobody was killed.

        :raises LeaderMissing: there is none
        """
        if self._wire.in_cluster:
            return int((await lead(self._wire, self._stream))["state"]["last_seq"])
        newest = await last_on(self._wire, self._stream, control_subjects(self._ns))
        return newest.seq if newest else 0

    async def _read_anew(self, newest: int) -> Control:
        raw = [one async for one in self._read_all()]
        laid_down = next((one for one in raw if one.subject == policy_subject(self._ns)), None)
        orders = [order for one in raw if one is not laid_down and (order := self._order(one)) is not None]
        control = Control(standing(orders, self._ns), newest=newest)
        if laid_down is None:
            return control
        return replace(control, policy=decode_policy(laid_down.body), policy_epoch=laid_down.seq)

    async def _read_all(self) -> AsyncIterator[Raw]:
        question = {"subjects_filter": control_subjects(self._ns)}
        info = await api(self._wire, f"STREAM.INFO.{self._stream}", question)
        for subject in info["state"].get("subjects") or {}:
            raw = await last_on(self._wire, self._stream, subject)
            if raw is not None:
                yield raw

    def _order(self, raw: Raw) -> Order | None:
        try:
            order = decode_order(raw.body)
        except ProtocolError as error:
            _log.error("order %d at %s cannot be read: %s", raw.seq, raw.subject, error)
            return None
        if control_subject(self._ns, order.scope) != raw.subject:
            _log.error("order %d for %s stands at %s and is left out", raw.seq, order.scope, raw.subject)
            return None
        return Order(raw.seq, order)
