"""The bus: the log, the queues of the roles and the live progress of one namespace, over one connection to the broker.

The log is a JetStream stream. Every message about a task is let in only where the task's last entry is the one that it
answers, so who appends needs no lock and may try again at will: a message enters at most once, at its place or not at
all. See ``bus_errors`` for the outcomes.
"""

import json
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import anyio

from interlock.protocol.base import Json, Role
from interlock.protocol.codec import MAX_INLINE, StoredBody, encode
from interlock.protocol.errors import BodyTooLarge
from interlock.protocol.messages import Envelope, TaskAssigned, TaskResult
from interlock.protocol.subjects import (
    assigned_subjects,
    live_subject,
    live_subjects,
    log_subjects,
    parse_log_subject,
    queue_subjects,
    submitted_subjects,
)
from interlock.runtime._append import Appender, Sending
from interlock.runtime._background import beside
from interlock.runtime._blobs import Blobs
from interlock.runtime._client import Heard
from interlock.runtime._counters import Counters
from interlock.runtime._follow import Follow
from interlock.runtime._jetstream import (
    NS_PER_SECOND,
    api,
    change_stream,
    copies_wished,
    direct_get,
    ensure_stream,
    last_on,
)
from interlock.runtime._lanes import open_lane
from interlock.runtime._names import QueueKind, log_stream, queue_name, streams_of
from interlock.runtime._shelf import Shelf
from interlock.runtime._state import StateStore
from interlock.runtime._streams import Copies, copies_of
from interlock.runtime._wire import Wire
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus_errors import BusError, EntryMissing, NamespaceWrong, PublishDenied
from interlock.runtime.config import ACK_WAIT
from interlock.runtime.deliveries import Deliveries, PullOptions
from interlock.runtime.orders import Orders
from interlock.runtime.received import Reader, Received
from interlock.runtime.versions import Speaks, newest_version

__all__ = ["Bus", "BusSettings", "Live"]

_log = logging.getLogger(__name__)

_KIND = "Interlock-Kind"
_LIVE_AHEAD = 4096
_FORGOTTEN_SECONDS = 600.0
_LANE_FORGOTTEN_SECONDS = 24 * 3600.0
"""Agents cannot make their queue again: it outlasts every time for which orders hold them back."""

_NO_LIMIT = -1

_MAX_DELIVER = _NO_LIMIT
"""Whoever works on a message answers it before it has killed too many; one that nobody got would never be over."""


def _tell(error: BaseException) -> None:
    _log.error("which versions other machines read is not looked at any more: %s", error)


@dataclass(frozen=True, slots=True)
class BusSettings:
    """What can be tuned. The defaults suit one machine."""

    connect_seconds: float = 5.0
    """How long the first connection may take."""
    settle_seconds: float = 3.0
    """How long an append whose acknowledgement got lost may wait for the connection to find out what became of it."""
    replicas: int | None = None
    """Copies of what is stored, 1, 3 or 5; None: three where streams are made now in a cluster that has the nodes."""
    duplicate_seconds: float = 120.0
    """How long the broker remembers message ids; in a chain nothing depends on it."""
    newest: int | None = None
    """The newest version of messages that is read and written; None: as the environment says."""
    max_bytes: int | None = None
    """How large the log may become, bytes; 0: as large as it likes. What is more is refused, and nothing is thrown
    away. None leaves it as it is, which in a new log is without a limit."""


@dataclass(frozen=True, slots=True)
class Live:
    """A progress event that nobody keeps."""

    by: Role
    """Who tells of it."""
    event: str
    payload: Json


class Bus:
    """One namespace of a broker. Open it with ``Bus.connect``; one for a process is enough."""

    def __init__(self, wire: Wire, ns: str, settings: BusSettings) -> None:
        self._wire = wire
        self._stream = log_stream(ns)
        self._settings = settings
        self._blobs = Blobs(wire, ns)
        newest = settings.newest or newest_version()
        self._reader = Reader(self._blobs, newest)
        self._appender = Appender(wire, self._stream, settings.settle_seconds)
        self.orders = Orders(wire, ns)
        self.state = StateStore(wire, ns)
        self.counters = Counters(wire, ns)
        self.shelf = Shelf(wire, ns, self._blobs, self._reader)
        self._speaks = Speaks(partial(self.state.values, "node"), newest)
        self.ns = ns

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        address: BrokerAddress,
        ns: str,
        name: str,
        *,
        settings: BusSettings | None = None,
    ) -> "AsyncIterator[Bus]":
        """Connect as ``name`` (shown by the broker's tools) and make the streams of ``ns`` if need be and allowed.

        A connection that breaks is made again without an end; until then what needs it fails at once or, where it is an
        iterator, waits.

        :raises BrokerUnreachable: nobody answered in time
        :raises BrokerRefused: the credentials are wrong
        """
        chosen = settings or BusSettings()
        async with Wire.open(address, name, chosen.connect_seconds) as wire:
            bus = cls(wire, ns, chosen)
            if address.lane is None:  # an agent's credentials make no streams: whoever started it has
                with suppress(PublishDenied):  # nor may others
                    await bus._ensure()
            await bus._speaks.look()
            async with beside(bus._speaks.keep_looking(), _tell):
                yield bus

    @property
    def is_connected(self) -> bool:
        """Whether the broker answered lately (within about 3 s)."""
        return self._wire.is_up

    @property
    def unreadable(self) -> int:
        """How many entries were left out because nobody can read them."""
        return self._reader.unreadable

    async def wait_connected(self) -> None:
        """Wait until there is a connection."""
        await self._wire.wait_up()

    async def append(self, message: Envelope, *, headers: Mapping[str, str] | None = None) -> int:
        """Append ``message`` to its chain and return its stream sequence.

        Appending the same message again is safe and returns the sequence that it got the first time.

        :raises AnswerRefused: the chain has moved on from what the message answers
        :raises BrokerUnreachable: there is no connection; the message did not enter and will not by itself
        :raises AppendInDoubt: the connection broke meanwhile and stayed away; append the same message again later
        :raises PublishDenied: these credentials may not send this kind of message
        :raises NamespaceWrong: the message belongs to another namespace
        :raises BodyTooLarge: the message is larger than a body may be
        :raises NotInVersion: machines are there that read an older version of messages, which cannot say it
        :raises LogFull: the log has reached its limit; the message did not enter
        """
        return await self._appender.append(*await self._ready(message, headers or {}))

    async def append_all(self, messages: Sequence[tuple[Envelope, Mapping[str, str]]]) -> list[int | Exception]:
        """Append messages of different chains, with their headers, as one; return what ``append`` would of each.

        That is its sequence, or the error instead of it; one that is refused keeps no other out.
        """
        outcomes: dict[int, int | Exception] = {}
        ready: dict[int, Sending] = {}
        for position, (message, headers) in enumerate(messages):
            try:
                ready[position] = await self._ready(message, headers)
            except (BodyTooLarge, BusError) as error:
                outcomes[position] = error
        outcomes |= zip(ready, await self._appender.append_all(list(ready.values())), strict=True)
        return [outcomes[position] for position in range(len(messages))]

    async def _ready(self, message: Envelope, headers: Mapping[str, str]) -> Sending:
        """Return a message as it is sent; a body that is too large for that is put beside the log."""
        if message.ns != self.ns:
            raise NamespaceWrong(message.ns, self.ns)
        version = self._speaks.version
        body = encode(message, version)
        if len(body) > MAX_INLINE:
            body = encode(await self._blobs.put(body), version)
        return message, body, {_KIND: type(message).model_fields["kind"].default, **headers}

    def follow(
        self, filters: Sequence[str] | None = None, from_sequence: int = 1, *, pause: float | None = None
    ) -> AbstractAsyncContextManager[Follow]:
        """Follow the entries on ``filters`` (all by default) from a sequence on: ``async for batch in ...``.

        In order, without a gap, through lost connections. ``batch.pending`` is 0 once the follower has caught up; the
        first batch comes at once, empty where there is nothing yet. Filters must not overlap. Entries that nobody can
        read are left out, logged and counted in ``unreadable``. With a ``pause`` of so many seconds between two looks
        they come in larger batches, for less computing on both sides: that is for who only shows them.
        """
        chosen = filters if filters is not None else [log_subjects(self.ns)]
        return Follow(self._wire, self._reader, self._stream, chosen, from_sequence, pause).open()

    def pull(
        self,
        kind: QueueKind,
        role: str,
        slots: int,
        *,
        job: str | None = None,
        since: int | None = None,
        ack_wait: float = ACK_WAIT,
        max_deliver: int = _MAX_DELIVER,
    ) -> AbstractAsyncContextManager[Deliveries]:
        """Take messages from a role's queue: ``async with bus.pull(...) as deliveries: async for delivery in ...``.

        With ``job`` only those of one job, from a consumer of its own that goes away when nobody uses it any more. An
        agent's credentials make no consumers: it takes from that of its lane, and waits until ``queues`` made it.
        With ``since`` the consumer is the job's own as well, and takes what came for any job from that sequence on.
        At most ``slots`` are unanswered at once. A delivery whose holder is silent for ``ack_wait`` seconds goes to
        somebody else, ``max_deliver`` times in all. Use one pull for a kind and role in a process. What nobody can
        read is terminated, logged and counted in ``unreadable``.
        """
        options = self._queue(kind, role, job, since=since, slots=slots, ack_wait=ack_wait, max_deliver=max_deliver)
        return Deliveries(self._wire, self._reader, options).open()

    def queues(
        self,
        queues: Iterable[tuple[QueueKind, Role]],
        job: str | None = None,
        *,
        inner: Iterable[tuple[QueueKind, Role]] = (),
        since: int | None = None,
        ack_wait: float = ACK_WAIT,
    ) -> AbstractAsyncContextManager[int]:
        """Make queues that agents take from who have credentials of their own; yield their lane.

        Without ``job`` these are the queues of all jobs, lane 0, and they stay. With ``job`` they are for that job
        alone and go away when the block is left; ``inner`` are those of the teams within its team, which take from
        ``since`` on. ``ack_wait`` is as in ``pull``.

        :raises LanesTaken: too many jobs of the team have queues of their own right now
        :raises BusError: the broker is out of reach, or lets these credentials make none
        """
        wanted, more = tuple(queues), tuple(inner)

        def made(lane: int) -> list[PullOptions]:
            own = [self._queue(*one, job, lane=lane, ack_wait=ack_wait) for one in wanted]
            return own + [self._queue(*one, job, lane=lane, since=since, ack_wait=ack_wait) for one in more]

        return open_lane(self._wire, self.ns, job, made)

    async def put_body(self, body: bytes) -> StoredBody:
        """Put bytes beside the log, unless they are there already, and return the reference to them.

        :raises BusError: they could not be stored; storing them again is safe
        """
        return await self._blobs.put(body)

    async def get_body(self, stored: StoredBody) -> bytes:
        """Return the bytes that ``stored`` refers to.

        :raises BodyMissing: they are not there, or not all of them
        :raises BodyCorrupt: what is there has another digest or size
        :raises BusError: the broker is out of reach
        """
        return await self._blobs.get(stored)

    async def get(self, sequence: int) -> Received:
        """Return the entry at a sequence.

        :raises EntryMissing: there is none
        :raises ProtocolError: its bytes are no message
        :raises BusError: it is forged, or its stored body is missing or corrupt, or the broker is out of reach
        """
        raw = await direct_get(self._wire, self._stream, {"seq": sequence}) if sequence > 0 else None
        if raw is None:
            raise EntryMissing(self._stream, sequence)
        return await self._reader.read(raw)

    async def last(self, subjects: str) -> Received | None:
        """Return the last entry on a wildcard such as ``chain_subjects(...)``, None where there is none.

        :raises ProtocolError: its bytes are no message
        :raises BusError: it is forged, or its stored body is missing or corrupt, or the broker is out of reach
        """
        raw = await last_on(self._wire, self._stream, subjects)
        return await self._reader.read(raw) if raw else None

    async def entries(self, subjects: str, after: int = 0) -> list[Received]:
        """Return all entries on a wildcard, oldest first: one request for each, so it is for a few.

        ``after`` is a stream sequence that they must come after.

        What nobody can read is left out, logged and counted in ``unreadable``.

        :raises BusError: the broker is out of reach
        """
        found: list[Received] = []
        sequence = after + 1
        while raw := await direct_get(self._wire, self._stream, {"seq": sequence, "next_by_subj": subjects}):
            sequence = raw.seq + 1
            if (received := await self._reader.read_or_skip(raw)) is not None:
                found.append(received)
        return found

    async def assignment_of(self, result: TaskResult) -> Received | None:
        """Return the assignment that ``result`` is of, None where its task was assigned anew or purged.

        :raises BusError: the broker is out of reach, or the entry cannot be read
        """
        with suppress(EntryMissing):
            answered = await self.get(result.answers)
            if isinstance(answered.message, TaskAssigned):
                return answered
        latest = await self.last(assigned_subjects(result.ns, result.job, result.task))
        return latest if latest and latest.message.attempt == result.attempt else None

    async def announce(self, job: str, by: Role, event: str, payload: Json = None) -> None:
        """Tell whoever listens right now about progress of a job; ``event`` is a subject's token or several.

        ``by`` is the role that tells it. Where its credentials do not let it, that is logged.

        :raises BrokerUnreachable: there is no connection
        :raises PayloadTooLarge: ``payload`` is larger than the broker takes
        """
        await self._wire.publish(live_subject(self.ns, job, by, event), json.dumps(payload).encode())

    @asynccontextmanager
    async def listen(self, job: str) -> AsyncIterator[AsyncIterator[Live]]:
        """Hear the progress of ``job`` inside the block, from now on; a listener that is too slow misses events.

        :raises BrokerUnreachable: there is no connection
        :raises ReplyMissing: the connection broke meanwhile
        :raises SubscribeDenied: these credentials may not listen
        """
        send, receive = anyio.create_memory_object_stream[Live](_LIVE_AHEAD)
        prefix = live_subjects(self.ns, job).removesuffix(">")

        def hear(message: Heard) -> None:
            by, _, event = message.subject.removeprefix(prefix).partition(".")
            with suppress(anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError, ValueError):
                send.send_nowait(Live(by, event, json.loads(message.data)))

        with send, receive:
            subscription = await self._wire.subscribe(live_subjects(self.ns, job), hear)
            try:
                yield receive
            finally:
                with anyio.CancelScope(shield=True):
                    await self._wire.unsubscribe(subscription)

    async def jobs(self) -> list[str]:
        """Return the ids of all jobs in the log, sorted.

        :raises BusError: the broker is out of reach
        """
        found: set[str] = set()
        seen, total = 0, 1
        while seen < total:
            question = {"subjects_filter": submitted_subjects(self.ns), "offset": seen}
            info = await api(self._wire, f"STREAM.INFO.{self._stream}", question)
            subjects = info["state"].get("subjects") or {}
            found.update(parse_log_subject(subject).job for subject in subjects)
            seen, total = seen + len(subjects), info.get("total", 0) if subjects else 0
        return sorted(found)

    def _queue(
        self,
        kind: QueueKind,
        role: Role,
        job: str | None,
        *,
        lane: int | None = None,
        since: int | None = None,
        slots: int = 1,
        ack_wait: float = ACK_WAIT,
        max_deliver: int = _MAX_DELIVER,
    ) -> PullOptions:
        known = self._wire.address.lane if lane is None else lane
        named = f"{queue_name(kind, role, 0)}-{job}" if job else queue_name(kind, role, 0)
        consumer = named if known is None else queue_name(kind, role, known)
        subjects = queue_subjects(self.ns, kind, role, job if since is None else None)
        forgotten_after = None if job is None else _FORGOTTEN_SECONDS if known is None else _LANE_FORGOTTEN_SECONDS
        return PullOptions(self._stream, consumer, subjects, slots, ack_wait, max_deliver, forgotten_after, job, since)

    async def copies(self) -> list[Copies]:
        """Return how many copies there are of each of the streams.

        :raises BusError: the broker is out of reach, or lets these credentials not ask that
        """
        wished = copies_wished(self._wire, self._settings.replicas)
        return [await copies_of(self._wire, stream, wished) for stream in streams_of(self.ns)]

    async def _ensure(self) -> None:
        config = {
            "name": self._stream,
            "subjects": [log_subjects(self.ns)],
            "num_replicas": self._settings.replicas,
            "allow_direct": True,
            "allow_atomic": True,
            "duplicate_window": int(self._settings.duplicate_seconds * NS_PER_SECOND),
            "max_bytes": self._settings.max_bytes or _NO_LIMIT,
            "discard": "new",
        }
        await ensure_stream(self._wire, config)
        if self._settings.max_bytes is not None:
            await change_stream(self._wire, self._stream, {key: config[key] for key in ("max_bytes", "discard")})
        await self._blobs.ensure(self._settings.replicas)
        await self.orders.ensure(self._settings.replicas)
        await self.state.ensure(self._settings.replicas)
        await self.counters.ensure(self._settings.replicas)
