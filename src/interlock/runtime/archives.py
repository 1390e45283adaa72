"""Archives: files that hold the whole log of one job, written once, and read as the log is.

A line of JSON each, compressed with gzip: a head, the entries as they stood in the log, before each entry its body
where that stood beside the log, after it the chunks of lists that it names, and an end that says how many there are.

Errors:

* ``ArchiveUnreadable``: a file that is no archive, or not all of one.
"""

import base64
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from interlock.protocol.base import Json
from interlock.protocol.codec import StoredBody, decode
from interlock.protocol.errors import ProtocolError
from interlock.protocol.state import Entry
from interlock.runtime._jetstream import Raw
from interlock.runtime._shelf import Record
from interlock.runtime.bus_errors import BodyMissing, SubjectForged
from interlock.runtime.failures import Mistake
from interlock.runtime.received import Received, held_to_subject

__all__ = ["SUFFIX", "Archive", "ArchiveUnreadable", "ArchiveWriter"]

SUFFIX = ".jsonl.gz"
"""How the names of archives end."""

_VERSION = 1
_SECOND = 1_000_000_000


class ArchiveUnreadable(Mistake):
    """A file that is no archive, or not all of one."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path} is no whole archive of a job: {reason}")


class ArchiveWriter:
    """Writes one archive to ``out``, which is compressed."""

    def __init__(self, out: IO[bytes], ns: str, job: str) -> None:
        self._out = gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0)
        self._entries = self._bodies = 0
        self._line({"archive": _VERSION, "ns": ns, "job": job})

    def body(self, stored: StoredBody, body: bytes) -> None:
        """Write the body of the entry that comes next."""
        self._bodies += 1
        self._line({"body": stored.digest, **_told(body)})

    def entry(self, raw: Raw) -> None:
        """Write an entry."""
        self._entries += 1
        told = {"seq": raw.seq, "subject": raw.subject, "time": _time(raw.time), "headers": dict(raw.headers)}
        self._line({**told, **_told(raw.body)})

    def chunk(self, stored: StoredBody, body: bytes) -> None:
        """Write a chunk of a list that the entry before names."""
        self._bodies += 1
        self._line({"chunk": stored.digest, **_told(body)})

    def close(self) -> None:
        """Write the end."""
        self._line({"end": {"entries": self._entries, "bodies": self._bodies}})
        self._out.close()

    def _line(self, fields: dict[str, Any]) -> None:
        self._out.write(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Archive:
    """One archive. Open it with ``Archive.open``; everything else reads it again from its beginning."""

    path: Path
    ns: str
    job: str

    @classmethod
    def open(cls, path: Path) -> "Archive":
        """Return the archive at ``path``.

        :raises ArchiveUnreadable: there is none
        """
        for line in _lines(path):
            if line.get("archive") != _VERSION:
                break
            return cls(path, str(line.get("ns")), str(line.get("job")))
        raise ArchiveUnreadable(path, f"it does not begin as one of version {_VERSION}")

    def records(self) -> Iterator[Record]:
        """Yield the entries, oldest first.

        :raises ArchiveUnreadable: it is not whole; then what came before may not be all either
        """
        bodies: dict[str, bytes] = {}
        entries = found = 0
        ended: Json = None
        for line in _lines(self.path):
            if "seq" in line:
                entries += 1
                raw = _raw(self.path, line)
                yield Record(raw, _read(raw, bodies))
                bodies.clear()
            elif "body" in line:
                found += 1
                bodies[line["body"]] = _bytes(line)
            else:
                found += "chunk" in line
                ended = line.get("end", ended)
        if ended != {"entries": entries, "bodies": found}:
            raise ArchiveUnreadable(self.path, f"it has {entries} entries and {found} bodies, and its end says {ended}")

    def entries(self) -> Iterator[Entry]:
        """Yield the entries that can be read.

        :raises ArchiveUnreadable: as ``records``
        """
        return (record.received.entry for record in self.records() if record.received is not None)

    def body(self, stored: StoredBody) -> bytes:
        """Return what stood in the object store beside the job.

        :raises BodyMissing: it is not in the archive
        :raises ArchiveUnreadable: the archive is not whole
        """
        for line in _lines(self.path):
            if stored.digest in {line.get("chunk"), line.get("body")}:
                return _bytes(line)
        raise BodyMissing(stored.digest, f"nor is it in {self.path}")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with gzip.open(path, "rb") as file:
            for line in file:
                fields = json.loads(line)
                if not isinstance(fields, dict):
                    raise ArchiveUnreadable(path, "a line of it is no object")
                yield fields
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise ArchiveUnreadable(path, str(error) or type(error).__name__) from error


def _raw(path: Path, line: dict[str, Any]) -> Raw:
    try:
        return Raw(int(line["seq"]), line["subject"], _bytes(line), line["headers"], _nanoseconds(line["time"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArchiveUnreadable(path, f"an entry of it lacks something: {error}") from error


def _read(raw: Raw, bodies: dict[str, bytes]) -> Received | None:
    try:
        message = decode(raw.body)
        if isinstance(message, StoredBody):
            if message.digest not in bodies:
                return None
            message = decode(bodies[message.digest])
        return held_to_subject(raw, message)
    except (ProtocolError, SubjectForged):
        return None


def _told(body: bytes) -> dict[str, str]:
    """Return bytes as they stand in a line: as text where they are."""
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def _bytes(line: dict[str, Any]) -> bytes:
    return line["text"].encode() if "text" in line else base64.b64decode(line["base64"])


def _time(nanoseconds: int) -> str:
    """Return a time as a person reads it, to the nanosecond."""
    at = datetime.fromtimestamp(nanoseconds // _SECOND, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{nanoseconds % _SECOND:09d}Z"


def _nanoseconds(text: str) -> int:
    whole, _, part = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * _SECOND + int(part or 0)
