"""Messages as they come out of the log: decoded, their stored bodies fetched, and checked against their subjects."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from interlock.observability.attributes import HEADER_ORIGIN, HEADER_TRACEPARENT
from interlock.protocol.codec import StoredBody, decode
from interlock.protocol.errors import ProtocolError
from interlock.protocol.messages import VERSION, Message
from interlock.protocol.state import Entry
from interlock.protocol.subjects import log_subject
from interlock.runtime._blobs import Blobs
from interlock.runtime._jetstream import Raw
from interlock.runtime.bus_errors import BodyCorrupt, BodyMissing, SubjectForged

__all__ = ["UNREADABLE", "Batch", "Reader", "Received", "held_to_subject"]

UNREADABLE = (ProtocolError, SubjectForged, BodyMissing, BodyCorrupt)
"""Why an entry cannot be read by anybody, now or later."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """One message of the log with what the broker says of it."""

    seq: int
    """Stream sequence."""
    message: Message
    subject: str
    headers: Mapping[str, str]

    @property
    def traceparent(self) -> str | None:
        """W3C traceparent of the publish, None where the sender did not trace."""
        return self.headers.get(HEADER_TRACEPARENT)

    @property
    def origin(self) -> str | None:
        """W3C traceparent of the agent's span that made the message, on results and verdicts."""
        return self.headers.get(HEADER_ORIGIN)

    @property
    def entry(self) -> Entry:
        """The message as the protocol's machine takes it."""
        return Entry(self.seq, self.message, self.origin)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a follower gets at once, oldest first; empty only where there was nothing to begin with."""

    received: tuple[Received, ...]
    pending: int
    """How many more messages were stored already; 0: caught up."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The messages as the protocol's machine takes them."""
        return tuple(one.entry for one in self.received)


def held_to_subject(raw: Raw, message: Message | StoredBody) -> Received:
    """Return the message of ``raw``, whose body is read already.

    :raises SubjectForged: it says something else than its subject
    """
    claimed = "a stored body" if isinstance(message, StoredBody) else log_subject(message)
    if isinstance(message, StoredBody) or claimed != raw.subject:
        raise SubjectForged(raw.subject, claimed)
    return Received(raw.seq, message, raw.subject, raw.headers)


class Reader:
    """Reads raw messages and counts those that nobody can read."""

    def __init__(self, blobs: Blobs, newest: int = VERSION) -> None:
        self._blobs = blobs
        self._newest = newest
        self.unreadable = 0
        """How many messages were left out."""

    async def read(self, raw: Raw) -> Received:
        """Return the message of ``raw``.

        :raises ProtocolError: its bytes are no message
        :raises SubjectForged: it says something else than its subject
        :raises BodyMissing: its stored body is gone
        :raises BodyCorrupt: its stored body is another one
        """
        message = decode(raw.body, self._newest)
        if isinstance(message, StoredBody):
            message = decode(await self._blobs.get(message), self._newest)
        return held_to_subject(raw, message)

    async def read_or_skip(self, raw: Raw) -> Received | None:
        """Return the message of ``raw``, or None, logged and counted, where nobody can read it."""
        try:
            return await self.read(raw)
        except UNREADABLE as error:
            self.unreadable += 1
            _log.error("entry %d at %s cannot be read and is left out: %s", raw.seq, raw.subject, error)
            return None
