"""Appends messages to their chains: each enters the log at most once, and the caller learns whether it did."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import anyio

from interlock.protocol.messages import Envelope
from interlock.protocol.subjects import chain_subjects, is_chained, log_subject
from interlock.runtime._batch import WORTH, Ready, portions, publish_batch
from interlock.runtime._jetstream import NO_ROOM, SEQUENCE_WRONG, Raw, answer_of, direct_get, last_on, lead
from interlock.runtime._wire import Wire
from interlock.runtime.bus_errors import (
    AnswerRefused,
    AppendInDoubt,
    BrokerComplaint,
    BrokerUnreachable,
    BusError,
    LeaderMissing,
    LogFull,
    ReplyMissing,
)

ID = "Nats-Msg-Id"
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_ON = "Nats-Expected-Last-Subject-Sequence-Subject"


_RETRY_SECONDS = 0.05
_UNSETTLED = SEQUENCE_WRONG | {10158}
"""Error codes of a publish that may have entered before, or, 10158, is on its way to the nodes of a cluster."""

_LED_SECONDS = 1.0
"""An acknowledgement shows for so long that the stream has a leader that most of the cluster follows."""

Sending: TypeAlias = tuple[Envelope, bytes, Mapping[str, str]]
"""A message, its body on the wire, and its headers."""

_Pair: TypeAlias = tuple[Envelope, Ready]
"""A message, and the same as it goes to the broker."""


class Appender:
    """Appends to the stream of a namespace."""

    def __init__(self, wire: Wire, stream: str, settle_seconds: float) -> None:
        self._wire = wire
        self._stream = stream
        self._settle_seconds = settle_seconds
        self._led_until = 0.0

    async def append(self, message: Envelope, body: bytes, headers: Mapping[str, str]) -> int:
        """Append ``message``, whose body on the wire is ``body``; see ``Bus.append``."""
        return await self._append(message, _ready(message, body, headers))

    async def append_all(self, messages: Sequence[Sending]) -> list[int | BusError]:
        """Append messages of different chains at once; return for each its sequence, or why it did not enter.

        Few of them go beside each other, many as a batch.
        """
        pairs = [(message, _ready(message, body, headers)) for message, body, headers in messages]
        outcomes: list[int | BusError] = []
        for portion in portions([ready for _, ready in pairs]):
            these = pairs[len(outcomes) : len(outcomes) + len(portion)]
            outcomes += await (self._batch(these) if len(these) >= WORTH else _each(these, self._append))
        return outcomes

    async def _append(self, message: Envelope, ready: Ready) -> int:
        await self._see_leader()
        try:
            return await self._publish(ready)
        except ReplyMissing:  # it may have entered
            return await self._settle(message, ready)
        except BrokerComplaint as error:
            if error.code not in _UNSETTLED:
                raise
            return await self._settle(message, ready)

    async def _batch(self, pairs: Sequence[_Pair]) -> list[int | BusError]:
        try:
            await self._see_leader()
            return list(await publish_batch(self._wire, [ready for _, ready in pairs]))
        except (BrokerUnreachable, LeaderMissing) as error:  # it was not whole, so nothing of it entered
            return [error] * len(pairs)
        except ReplyMissing:  # all of them may have entered
            return await _each(pairs, self._settle)
        except BusError:  # one of them is the matter; the others may go
            return await _each(pairs, self._append)

    async def _see_leader(self) -> None:
        """See, in a cluster, that what is sent now is let in now or never: a leader that is alone takes it for later.

        Agents may not ask that; what they send has its chain, and they send it again until they know.

        :raises LeaderMissing: most of the cluster is away
        """
        if self._wire.in_cluster and self._wire.address.lane is None and anyio.current_time() > self._led_until:
            await lead(self._wire, self._stream)
            self._led_until = anyio.current_time() + _LED_SECONDS

    async def _publish(self, ready: Ready) -> int:
        reply = await self._wire.request(ready.subject, ready.body, ready.headers)
        try:
            answer = answer_of(ready.subject, reply)
        except BrokerComplaint as error:
            if error.code in NO_ROOM:
                raise LogFull(ready.subject, error.text) from None
            raise
        self._led_until = anyio.current_time() + _LED_SECONDS
        return int(answer["seq"])

    async def _settle(self, message: Envelope, ready: Ready) -> int:
        """Find out what became of a message that was sent, and append again what did not enter."""
        seconds = self._settle_seconds / 2 if self._wire.is_up else self._settle_seconds  # up: one look more will do
        with anyio.move_on_after(seconds):
            while True:
                await self._wire.wait_up()
                try:
                    return await self._find_or_append(message, ready)
                except (ReplyMissing, BrokerUnreachable, LeaderMissing):
                    await anyio.sleep(_RETRY_SECONDS)
                except BrokerComplaint as error:
                    if error.code not in _UNSETTLED:
                        raise
                    await anyio.sleep(_RETRY_SECONDS)
        raise AppendInDoubt(ready.subject, message.id)

    async def _find_or_append(self, message: Envelope, ready: Ready) -> int:
        """Look first. Outside a chain there is nothing to look at: there the id keeps a second copy out."""
        if EXPECTED in ready.headers:
            standing, head = await self._look(message)
            if standing:
                return standing
            if head != message.answers:
                raise AnswerRefused(message.task, message.answers, head)
        return await self._publish(ready)

    async def _look(self, message: Envelope) -> tuple[int | None, int]:
        """Walk the chain back from its head: where ``message`` stands in it, if it does, and where the head is."""
        entry = await last_on(self._wire, self._stream, chain_subjects(message.ns, message.job, message.task))
        head = entry.seq if entry else 0
        while entry and entry.seq > message.answers:
            if entry.headers.get(ID) == message.id:
                return entry.seq, head
            entry = await self._answered_by(entry)
        return None, head

    async def _answered_by(self, entry: Raw) -> Raw | None:
        answered = int(entry.headers.get(EXPECTED, 0))
        return await direct_get(self._wire, self._stream, {"seq": answered}) if answered else None


async def _each(pairs: Sequence[_Pair], send: Callable[[Envelope, Ready], Awaitable[int]]) -> list[int | BusError]:
    """Send messages beside each other; return for each what came of it."""
    if len(pairs) == 1:
        return [await _outcome(send, pairs[0])]
    outcomes: dict[int, int | BusError] = {}

    async def one(position: int, pair: _Pair) -> None:
        outcomes[position] = await _outcome(send, pair)

    async with anyio.create_task_group() as group:
        for position, pair in enumerate(pairs):
            group.start_soon(one, position, pair)
    return [outcomes[position] for position in range(len(pairs))]


async def _outcome(send: Callable[[Envelope, Ready], Awaitable[int]], pair: _Pair) -> int | BusError:
    try:
        return await send(*pair)
    except BusError as error:
        return error


def _ready(message: Envelope, body: bytes, headers: Mapping[str, str]) -> Ready:
    return Ready(log_subject(message), body, {**headers, **_headers(message)})


def _headers(message: Envelope) -> dict[str, str]:
    headers = {ID: message.id}
    if is_chained(message):
        headers[EXPECTED] = str(message.answers)
        headers[EXPECTED_ON] = chain_subjects(message.ns, message.job, message.task)
    return headers
