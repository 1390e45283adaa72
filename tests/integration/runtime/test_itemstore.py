"""Lists of items beside the log."""

import hashlib
import tracemalloc
from collections.abc import AsyncIterator, Iterator

import pytest

from interlock.protocol.base import Json
from interlock.protocol.items import Chunk, StoredItems
from interlock.runtime._jetstream import api
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BodyCorrupt, BodyMissing
from interlock.runtime.itemstore import (
    MOST_BYTES,
    MOST_ITEMS,
    ChunkUnreadable,
    ItemInvalid,
    ItemStore,
    ItemTooLarge,
)

_MANY: list[Json] = [{"n": n, "text": f"é {n}\u2028 " + "x" * (n % 300)} for n in range(3000)]


async def _all(store: ItemStore, stored: StoredItems) -> list[Json]:
    return [item async for item in store.items(stored)]


async def test_a_list_comes_back_as_it_was_put(bus: Bus) -> None:
    """All items in their order, whichever way they came, in chunks of a bounded size."""
    store = ItemStore(bus)

    async def asked() -> AsyncIterator[Json]:
        for item in _MANY:
            yield item

    stored = await store.put(_MANY)
    assert await store.put(iter(_MANY)) == await store.put(asked()) == stored
    assert await _all(ItemStore(bus), stored) == _MANY
    assert stored.count == len(_MANY)
    assert max(chunk.items for chunk in stored.chunks) <= MOST_ITEMS
    assert max(chunk.size for chunk in stored.chunks) <= MOST_BYTES
    assert await store.put([]) == StoredItems()


async def test_the_same_list_is_stored_once(bus: Bus) -> None:
    """What is there already is not written again."""
    store = ItemStore(bus)
    await store.put(_MANY)
    before = await api(bus._wire, f"STREAM.INFO.OBJ_IL_{bus.ns}")
    await ItemStore(bus).put(_MANY)
    after = await api(bus._wire, f"STREAM.INFO.OBJ_IL_{bus.ns}")
    assert after["state"]["messages"] == before["state"]["messages"] > 0


async def test_a_huge_item_stands_alone(bus: Bus) -> None:
    """An item that is larger than a chunk has one of its own, and its neighbours have theirs."""
    items: list[Json] = ["a", "x" * (MOST_BYTES * 2), "b", "c"]
    store = ItemStore(bus)
    stored = await store.put(items)
    assert [chunk.items for chunk in stored.chunks] == [1, 1, 2]
    assert await _all(store, stored) == items


async def test_items_are_made_no_earlier_than_they_are_stored(bus: Bus) -> None:
    """A generator is never more than a chunk ahead of what is in the object store."""
    made = 0

    def generated() -> Iterator[Json]:
        nonlocal made
        for number in range(10 * MOST_ITEMS):
            made += 1
            yield number
            if number == 5 * MOST_ITEMS:
                raise RuntimeError("the source broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        await ItemStore(bus).put(generated())
    info = await api(bus._wire, f"STREAM.INFO.OBJ_IL_{bus.ns}")
    assert info["state"]["messages"] == 2 * 5
    assert made == 5 * MOST_ITEMS + 1


async def test_what_is_no_json_is_told_with_its_position(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set, a number that JSON has not, half a character, and an item that is too large."""
    store = ItemStore(bus)
    for wrong, says in (({1}, "valid"), (float("nan"), "not a number"), ("\ud800", "surrogate")):
        with pytest.raises(ItemInvalid, match=f"(?i)item 1 is no JSON: .*{says}"):
            await store.put([0, wrong])  # type: ignore[list-item]
    monkeypatch.setattr("interlock.runtime.itemstore.MAX_ITEM", 10)
    with pytest.raises(ItemTooLarge, match="item 1 has 13 bytes"):
        await store.put([0, "x" * 10])


async def test_chunks_that_are_not_what_they_should_be(bus: Bus) -> None:
    """One that is missing, one of another size, one with another number of items, one that holds no JSON."""
    store = ItemStore(bus)
    (chunk,) = (await store.put([1, 2])).chunks
    with pytest.raises(BodyMissing):
        await store.chunk(Chunk(digest="0" * 64, size=4, items=2))
    with pytest.raises(BodyCorrupt):
        await store.chunk(chunk.model_copy(update={"size": 5}))
    with pytest.raises(ChunkUnreadable, match="there are 2 of them, and not 3"):
        await store.chunk(chunk.model_copy(update={"items": 3}))
    text = await bus.put_body(b"no json")
    with pytest.raises(ChunkUnreadable, match="cannot be read"):
        await store.chunk(Chunk(digest=hashlib.sha256(b"no json").hexdigest(), size=text.size, items=1))


async def test_what_was_read_lately_is_not_asked_for_again(bus: Bus) -> None:
    """A few neighbouring chunks are kept, and never more than a bound of bytes."""
    store = ItemStore(bus)
    stored = await store.put("x" * 50_000 + str(n) for n in range(200))
    first = await store.chunk(stored.chunks[0])
    assert await store.chunk(stored.chunks[0]) is first
    for chunk in stored.chunks:
        await store.chunk(chunk)
    assert await store.chunk(stored.chunks[0]) is not first


async def test_what_is_kept_of_short_items_is_bounded_by_what_they_take(bus: Bus) -> None:
    """A small object takes many times the memory of its JSON: a list of a hundred thousand is not kept whole."""
    store = ItemStore(bus)
    items: Iterator[Json] = ({"n": n} for n in range(100_000))
    stored = await store.put(items)
    tracemalloc.start()
    try:
        async for _ in store.items(stored):
            pass
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10 * 2**20
