"""Lists of items in the object store: written in chunks as they come, read a chunk at a time.

A chunk is named by its digest, so storing the same list again stores nothing, and what is read is what was written.

Besides those of the bus there are these errors:

* ``ItemInvalid``: an item is no JSON value.
* ``ItemTooLarge``: an item is larger than one may be.
* ``ChunkUnreadable``: what stands in the object store are not the items that it should be.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing

import anyio

from interlock.protocol.base import Json
from interlock.protocol.codec import StoredBody
from interlock.protocol.items import Chunk, StoredItems
from interlock.runtime.bus import Bus
from interlock.runtime.jsonlines import MAX_ITEM, MAX_LISTED, LineInvalid, from_line, to_line

__all__ = ["MOST_BYTES", "MOST_ITEMS", "ChunkUnreadable", "ItemInvalid", "ItemStore", "ItemTooLarge", "each"]

MOST_ITEMS = 256
"""The most items of one chunk."""

MOST_BYTES = 128 * 1024
"""The most bytes of a chunk of more than one item."""

_KEPT_BYTES = 4 * 1024 * 1024
"""As much of what was read is kept, in bytes of memory: those who work on a list have neighbouring items in hand."""

_ITEM_BYTES = 256
"""What an item takes in memory besides its JSON: a small object is many times longer than its text."""

_PREFIX = "sha256:"


class ItemInvalid(ValueError):
    """Item ``position``, from 0, is no JSON value."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"item {position} is no JSON: {reason}")
        self.position = position
        self.reason = reason


class ItemTooLarge(ValueError):
    """Item ``position``, from 0, has more bytes than one may have."""

    def __init__(self, position: int, size: int) -> None:
        super().__init__(f"item {position} has {size} bytes of JSON; one item may have {MAX_ITEM}")
        self.position = position
        self.size = size


class ChunkUnreadable(Exception):
    """The chunk with ``digest`` is not what the list that it belongs to says."""

    def __init__(self, digest: str, reason: str) -> None:
        super().__init__(f"the items in {digest} cannot be read: {reason}")
        self.digest = digest


class ItemStore:
    """The items of one namespace. Keeps a few chunks that were read lately."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._kept: OrderedDict[Chunk, tuple[Json, ...]] = OrderedDict()
        self._size = 0
        self._reading = anyio.Lock()

    async def put(self, items: Iterable[Json] | AsyncIterable[Json]) -> StoredItems:
        """Store a list as its items come, and return where it is. Never holds more than a chunk of it.

        A plain iterable is asked within the event loop; what waits for its items should be an async one.

        :raises ItemInvalid: an item is no JSON value
        :raises ItemTooLarge: an item is larger than one may be
        :raises BusError: the broker is away or full; storing the list again is safe
        """
        chunks: list[Chunk] = []
        lines: list[bytes] = []
        size = 0
        async with aclosing(_lines(items)) as coming:
            async for line in coming:
                if lines and (len(lines) == MOST_ITEMS or size + len(line) > MOST_BYTES):
                    chunks.append(await self._put(lines))
                    lines, size = [], 0
                lines.append(line)
                size += len(line)
        if lines:
            chunks.append(await self._put(lines))
        return StoredItems(chunks=tuple(chunks))

    async def put_unless_short(self, items: Iterable[Json] | AsyncIterable[Json]) -> StoredItems | tuple[Json, ...]:
        """Store a list, or return its items if they are no more than what a message itself may list.

        :raises ItemInvalid: as ``put``, and so are the others
        """
        begun, size = list[Json](), 0
        async with aclosing(each(items)) as coming:
            async for item in coming:
                size += len(_line(len(begun), item))
                begun.append(item)
                if size > MAX_LISTED:
                    return await self.put(_following(begun, coming))
        return tuple(begun)

    async def chunk(self, chunk: Chunk) -> tuple[Json, ...]:
        """Return the items of a chunk.

        :raises BodyMissing: it is not there, or not all of it
        :raises BodyCorrupt: what is there has another digest or size
        :raises ChunkUnreadable: it holds other items than the list says
        :raises BusError: the broker is away
        """
        if (known := self._recall(chunk)) is not None:
            return known
        async with self._reading:  # many tasks ask for the same chunk at once
            if (known := self._recall(chunk)) is not None:
                return known
            body = await self._bus.get_body(StoredBody(digest=_PREFIX + chunk.digest, size=chunk.size))
            items = _parsed(chunk, body)
            self._keep(chunk, items)
            return items

    async def items(self, stored: StoredItems) -> AsyncIterator[Json]:
        """Yield the items of a list, in order.

        :raises BodyMissing: as ``chunk``, and so are the others
        """
        for chunk in stored.chunks:
            for item in await self.chunk(chunk):
                yield item

    async def _put(self, lines: list[bytes]) -> Chunk:
        stored = await self._bus.put_body(b"".join(lines))
        return Chunk(digest=stored.digest.removeprefix(_PREFIX), size=stored.size, items=len(lines))

    def _recall(self, chunk: Chunk) -> tuple[Json, ...] | None:
        known = self._kept.get(chunk)
        if known is not None:
            self._kept.move_to_end(chunk)
        return known

    def _keep(self, chunk: Chunk, items: tuple[Json, ...]) -> None:
        self._kept[chunk] = items
        self._size += _size_of(chunk)
        while self._size > _KEPT_BYTES and len(self._kept) > 1:
            oldest, _ = self._kept.popitem(last=False)
            self._size -= _size_of(oldest)


def _size_of(chunk: Chunk) -> int:
    return chunk.size + chunk.items * _ITEM_BYTES


async def each(items: Iterable[Json] | AsyncIterable[Json]) -> AsyncGenerator[Json, None]:
    """Yield the items of either kind of iterable."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def _following(begun: list[Json], coming: AsyncIterable[Json]) -> AsyncGenerator[Json, None]:
    """Yield what was taken already, letting go of it, and then the rest."""
    begun.reverse()
    while begun:
        yield begun.pop()
    async for item in coming:
        yield item


async def _lines(items: Iterable[Json] | AsyncIterable[Json]) -> AsyncGenerator[bytes, None]:
    """Yield the items as lines.

    :raises ItemInvalid: one is no JSON value
    :raises ItemTooLarge: one is too large
    """
    position = 0
    async with aclosing(each(items)) as coming:
        async for item in coming:
            yield _line(position, item)
            position += 1


def _line(position: int, item: Json) -> bytes:
    try:
        line = to_line(item)
    except LineInvalid as error:
        raise ItemInvalid(position, str(error)) from error
    if len(line) > MAX_ITEM:
        raise ItemTooLarge(position, len(line))
    return line


def _parsed(chunk: Chunk, body: bytes) -> tuple[Json, ...]:
    try:
        items = tuple(from_line(line) for line in body.splitlines())
    except LineInvalid as error:
        raise ChunkUnreadable(chunk.digest, str(error)) from error
    if len(items) != chunk.items:
        raise ChunkUnreadable(chunk.digest, f"there are {len(items)} of them, and not {chunk.items}")
    return items
