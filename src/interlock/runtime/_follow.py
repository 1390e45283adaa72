"""Follows the log: every entry once and in order, through lost connections and restarts of the broker."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import anyio

from interlock.runtime._background import beside
from interlock.runtime._jetstream import NS_PER_SECOND, api, last_on
from interlock.runtime._pull import RETRY_SECONDS, TEMPORARY, Pull, Pulled
from interlock.runtime._wire import Wire
from interlock.runtime.bus_errors import BusError
from interlock.runtime.received import Batch, Reader, Received

AHEAD = 256
"""How many entries are taken ahead of the reader."""

_FORGET_SECONDS = 30


class Follow:
    """An endless iterator of batches. Each connection gets a consumer of its own that begins after the last entry."""

    def __init__(
        self,
        wire: Wire,
        reader: Reader,
        stream: str,
        filters: Sequence[str],
        from_sequence: int,
        pause: float | None = None,
    ) -> None:
        self._wire = wire
        self._reader = reader
        self._stream = stream
        self._filters = list(filters)
        self._next = max(1, from_sequence)
        self._pull = Pull(wire, AHEAD, self._prepare, self._receive, self._count_waiting, pause)
        self._consumer: str | None = None
        self._consumer_seq = 0
        self._waiting: deque[Pulled] = deque()
        self._pending: int | None = None
        """None until the first consumer said how much there is."""
        self._floor = 0
        """What the stream's leader had to begin with, in a cluster: the consumer may be with a replica that lags."""
        self._told_begin = False
        self._news = asyncio.Event()
        self._failure: BaseException | None = None

    @asynccontextmanager
    async def open(self) -> "AsyncIterator[Follow]":
        """Follow inside the block."""
        try:
            async with beside(self._pull.run(), self._fail):
                yield self
        finally:
            with anyio.move_on_after(1, shield=True):
                await self._drop_consumer()

    def __aiter__(self) -> "Follow":
        return self

    async def __anext__(self) -> Batch:
        """Return what came since the last batch, waiting for at least one entry.

        :raises BusError: what no waiting will cure, such as missing permissions
        """
        while True:
            if self._failure:
                raise self._failure
            if self._waiting:
                return await self._take()
            if self._pending == 0 and not self._told_begin:
                self._told_begin = True
                return Batch((), 0)
            self._news.clear()
            await self._news.wait()

    async def _take(self) -> Batch:
        taken, self._told_begin = list(self._waiting), True
        received = [one for pulled in taken if (one := await self._read(pulled))]
        for _ in taken:
            self._waiting.popleft()
        self._pull.ask()
        behind = int(taken[-1].raw.seq < self._floor)
        return Batch(tuple(received), max(taken[-1].pending, len(self._waiting), behind))

    async def _read(self, pulled: Pulled) -> Received | None:
        """Read an entry, also where the connection breaks while its stored body is fetched."""
        while True:
            try:
                return await self._reader.read_or_skip(pulled.raw)
            except TEMPORARY:
                await self._wire.wait_up()
                await anyio.sleep(RETRY_SECONDS)

    async def _prepare(self) -> str:
        await self._drop_consumer()
        config = {
            "filter_subjects": self._filters,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._next,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _FORGET_SECONDS * NS_PER_SECOND,
        }
        call = f"CONSUMER.CREATE.{self._stream}"
        if len(self._filters) == 1:  # then they stand in the subject, where an agent's credentials bound them
            name = self._wire.new_inbox().rpartition(".")[2]
            config = {**config, "name": name, "filter_subject": self._filters[0]}
            del config["filter_subjects"]
            call = f"{call}.{name}.{self._filters[0]}"
        if self._wire.in_cluster and self._pending is None:
            self._floor = max([await self._newest(subjects) for subjects in self._filters])
        info = await api(self._wire, call, {"stream_name": self._stream, "config": config})
        self._consumer, self._consumer_seq = info["name"], 0
        if self._pending is None:
            self._pending = info["num_pending"] or int(self._floor >= self._next)
            self._news.set()
        return f"{self._stream}.{self._consumer}"

    async def _newest(self, subjects: str) -> int:
        last = await last_on(self._wire, self._stream, subjects)
        return last.seq if last else 0

    async def _drop_consumer(self) -> None:
        """Delete the consumer where that is possible now; elsewhere the broker forgets it by itself."""
        if self._consumer and self._wire.is_up and self._wire.address.lane is None:
            with suppress(BusError):
                await api(self._wire, f"CONSUMER.DELETE.{self._stream}.{self._consumer}")
        self._consumer = None

    def _receive(self, pulled: Pulled) -> bool:
        """Take the next entry of this consumer; anything else means that one got lost on the way."""
        if pulled.consumer != self._consumer or pulled.consumer_seq != self._consumer_seq + 1:
            return False
        self._consumer_seq = pulled.consumer_seq
        self._next = pulled.raw.seq + 1
        self._waiting.append(pulled)
        self._news.set()
        return True

    def _count_waiting(self) -> int:
        return len(self._waiting)

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._news.set()
