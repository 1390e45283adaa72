"""Bodies that are too large for the log itself."""

import base64
from pathlib import Path

import pytest
from tests.integration.bus.messages import READER, assigned

from interlock.protocol.codec import MAX_INLINE, StoredBody, decode, encode
from interlock.runtime._jetstream import api, direct_get
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BodyCorrupt, BodyMissing

_LARGE = "a sentence of a large document. " * 40_000


async def _overwrite_chunks(bus: Bus, bytes_each: bytes | None) -> None:
    """Replace every chunk in the object store by other bytes, or take them away."""
    stream = f"OBJ_IL_{bus.ns}"
    info = await api(bus._wire, f"STREAM.INFO.{stream}", {"subjects_filter": f"$O.IL_{bus.ns}.C.>"})
    for subject, count in info["state"]["subjects"].items():
        await api(bus._wire, f"STREAM.PURGE.{stream}", {"filter": subject})
        for _ in range(count if bytes_each else 0):
            await bus._wire.request(subject, bytes_each or b"")


async def test_a_large_body_comes_back_wherever_it_is_read(bus: Bus) -> None:
    """A message of over a megabyte is the same by ``get``, to a follower and to a worker."""
    message = assigned(bus.ns, instruction=_LARGE)
    sequence = await bus.append(message)
    assert (await bus.get(sequence)).message == message
    async with bus.follow() as batches:
        batch = await anext(batches)
        assert [entry.message for entry in batch.entries] == [message]
    async with bus.pull("assigned", READER, 1) as deliveries:
        delivery = await anext(deliveries)
        assert delivery.message == message
        await delivery.ack()


async def test_the_log_holds_the_digest_and_size_only(bus: Bus) -> None:
    """What stands in the log for a large body is a reference; the object store holds the same body once."""
    message = assigned(bus.ns, instruction=_LARGE)
    first = await bus.append(message)
    assert await bus.append(message) == first
    raw = await direct_get(bus._wire, f"IL_{bus.ns}", {"seq": first})
    assert raw is not None
    stored = decode(raw.body)
    assert isinstance(stored, StoredBody)
    assert stored.size == len(encode(message)) > MAX_INLINE
    info = await api(bus._wire, f"STREAM.INFO.OBJ_IL_{bus.ns}", {"subjects_filter": ">"})
    assert info["state"]["bytes"] < 1.1 * stored.size


async def test_the_object_store_is_a_nats_object_store(bus: Bus, tmp_path: Path) -> None:
    """Another client reads a stored body by its digest."""
    message = assigned(bus.ns, instruction=_LARGE)
    raw = await direct_get(bus._wire, f"IL_{bus.ns}", {"seq": await bus.append(message)})
    assert raw is not None
    stored = decode(raw.body)
    assert isinstance(stored, StoredBody)
    store = await bus._wire._client.jetstream().object_store(f"IL_{bus.ns}")
    target = tmp_path / "body"
    with target.open("wb") as file:
        info = (await store.get(stored.digest, writeinto=file)).info
    assert target.read_bytes() == encode(message)
    assert info.digest == f"SHA-256={base64.urlsafe_b64encode(bytes.fromhex(stored.digest[7:])).decode()}"


async def test_a_corrupt_body_is_a_typed_error(bus: Bus) -> None:
    """A body that is not what its digest says is refused with both digests, and a follower leaves it out."""
    sequence = await bus.append(assigned(bus.ns, instruction=_LARGE))
    await _overwrite_chunks(bus, b"something else")
    with pytest.raises(BodyCorrupt, match=r"the stored body should be .* with sha256:.*has .* with sha256:"):
        await bus.get(sequence)
    good = assigned(bus.ns, task="good")
    await bus.append(good)
    async with bus.follow() as batches:
        batch = await anext(batches)
        assert [entry.message for entry in batch.entries] == [good]
    assert bus.unreadable == 1


async def test_a_missing_body_is_a_typed_error(bus: Bus) -> None:
    """A body whose chunks are gone is named by its digest."""
    sequence = await bus.append(assigned(bus.ns, instruction=_LARGE))
    await _overwrite_chunks(bus, None)
    with pytest.raises(BodyMissing, match=r"lacks body sha256:.*chunk 1 of 10 is gone"):
        await bus.get(sequence)
