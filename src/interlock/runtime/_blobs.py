"""Large bodies by their digest, laid out as a NATS object store, so that ``nats object`` reads them too.

A body is written once and what was written first stands: nobody can take the place of somebody else's body.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from interlock.protocol.codec import StoredBody
from interlock.runtime._jetstream import answer_of, direct_get, ensure_stream, purge, subjects_on
from interlock.runtime._names import bucket, bucket_stream
from interlock.runtime._wire import Wire
from interlock.runtime.bus_errors import BodyCorrupt, BodyMissing

_CHUNK = 128 * 1024


class Blobs:
    """The object store of a namespace."""

    def __init__(self, wire: Wire, ns: str) -> None:
        self._wire = wire
        self._bucket = bucket(ns)
        self._stream = bucket_stream(ns)

    async def ensure(self, replicas: int | None) -> None:
        """Create the bucket unless it is there."""
        prefix = f"$O.{self._bucket}"
        config = {
            "name": self._stream,
            "subjects": [f"{prefix}.C.>", f"{prefix}.M.>"],
            "discard": "new",
            "num_replicas": replicas,
            "allow_direct": True,
        }
        await ensure_stream(self._wire, config)

    async def put(self, body: bytes) -> StoredBody:
        """Store ``body``, unless it is there already, and return the reference to it.

        :raises BusError: it could not be stored; storing it again is safe
        """
        stored = StoredBody(digest=_digest(body), size=len(body))
        if await self._meta(stored) is None:
            await self._write(stored, body)
        return stored

    async def get(self, stored: StoredBody) -> bytes:
        """Return the body that ``stored`` refers to.

        :raises BodyMissing: it is not there, or not all of it
        :raises BodyCorrupt: what is there has another digest or size
        """
        meta = await self._meta(stored)
        if meta is None:
            raise BodyMissing(stored.digest, "no such object")
        body = await self._read(stored, meta)
        found = _digest(body)
        if (found, len(body)) != (stored.digest, stored.size):
            raise BodyCorrupt(stored.digest, stored.size, found, len(body))
        return body

    async def digests(self) -> set[str]:
        """Return the digests of all bodies.

        :raises BusError: the broker is away
        """
        prefix = f"$O.{self._bucket}.M."
        subjects = await subjects_on(self._wire, self._stream, f"{prefix}>")
        return {base64.urlsafe_b64decode(subject.removeprefix(prefix)).decode() for subject in subjects}

    async def drop(self, stored: StoredBody) -> None:
        """Take a body out of the store, if it is there: first what makes it an object, so that none is there in part.

        :raises BusError: the broker is away, or does not let these credentials
        """
        meta = await self._meta(stored)
        if meta is not None:
            await purge(self._wire, self._stream, self._meta_subject(stored))
            await purge(self._wire, self._stream, self._chunk_subject(meta["nuid"]))

    async def _meta(self, stored: StoredBody) -> dict[str, Any] | None:
        raw = await direct_get(self._wire, self._stream, {"seq": 1, "next_by_subj": self._meta_subject(stored)})
        return json.loads(raw.body) if raw and raw.body else None

    async def _write(self, stored: StoredBody, body: bytes) -> None:
        """Write the chunks under a name of their own, then the entry that makes them an object: all or nothing."""
        nuid = self._wire.new_inbox().rpartition(".")[2]
        starts = range(0, len(body), _CHUNK)
        for start in starts:
            await self._store(self._chunk_subject(nuid), body[start : start + _CHUNK])
        meta = {
            "name": stored.digest,
            "bucket": self._bucket,
            "nuid": nuid,
            "size": len(body),
            "chunks": len(starts),
            "mtime": datetime.now(UTC).isoformat(),
            "digest": f"SHA-256={base64.urlsafe_b64encode(bytes.fromhex(stored.digest[7:])).decode()}",
            "options": {"max_chunk_size": _CHUNK},
        }
        await self._store(self._meta_subject(stored), json.dumps(meta).encode())

    async def _store(self, subject: str, body: bytes) -> None:
        answer_of(subject, await self._wire.request(subject, body))

    async def _read(self, stored: StoredBody, meta: Mapping[str, Any]) -> bytes:
        body, sequence, subject = bytearray(), 0, self._chunk_subject(meta["nuid"])
        for number in range(meta["chunks"]):
            raw = await direct_get(self._wire, self._stream, {"seq": sequence + 1, "next_by_subj": subject})
            if raw is None:
                raise BodyMissing(stored.digest, f"chunk {number + 1} of {meta['chunks']} is gone")
            sequence = raw.seq
            body += raw.body
        return bytes(body)

    def _meta_subject(self, stored: StoredBody) -> str:
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(stored.digest.encode()).decode()}"

    def _chunk_subject(self, nuid: str) -> str:
        return f"$O.{self._bucket}.C.{nuid}"


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
