"""Small values that change: the stream of a namespace that keeps the last message of each subject, and forgets in time.

Nothing in it decides anything about a job. All of it is made again by those who are there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from interlock.runtime._jetstream import SEQUENCE_WRONG, answer_of, api, ensure_stream, last_on
from interlock.runtime._names import state_stream, state_subject
from interlock.runtime._wire import Wire
from interlock.runtime.bus_errors import BrokerComplaint


@dataclass(frozen=True, slots=True)
class Value:
    """What stands at a key."""

    seq: int
    """Of the stream: what a swap has to name."""
    body: bytes
    """Empty: who wrote it took it back."""


NOTHING = Value(0, b"")
"""What stands where nobody wrote anything, or where its time ran out."""


class StateStore:
    """The values of one namespace. A key is a subject's tokens, such as ``lease.7``."""

    def __init__(self, wire: Wire, ns: str) -> None:
        self._wire = wire
        self._ns = ns
        self._stream = state_stream(ns)

    async def ensure(self, replicas: int | None) -> None:
        """Make the stream unless it is there.

        :raises PublishDenied: these credentials make no streams
        """
        config = {
            "name": self._stream,
            "subjects": [state_subject(self._ns, ">")],
            "max_msgs_per_subject": 1,
            "allow_msg_ttl": True,
            "num_replicas": replicas,
        }
        await ensure_stream(self._wire, config)

    async def get(self, key: str) -> Value:
        """Return what stands at a key, or the last that was written where it is a wildcard.

        :raises BusError: the broker is out of reach, or lets these credentials read nothing
        """
        raw = await last_on(self._wire, self._stream, state_subject(self._ns, key))
        return NOTHING if raw is None else Value(raw.seq, raw.body)

    async def put(self, key: str, body: bytes, *, seconds: float | None = None) -> int:
        """Write a value, to stand for so many ``seconds`` or for good, and return its sequence.

        :raises BusError: the broker is out of reach, or does not let these credentials
        """
        return await self._write(key, body, _headers(seconds))

    async def swap(self, key: str, body: bytes, expected: int) -> int | None:
        """Write a value where the last one is that of sequence ``expected``; return its own, None where it is not.

        :raises BusError: the broker is out of reach, or does not let these credentials
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        try:
            return await self._write(key, body, headers)
        except BrokerComplaint as error:
            if error.code not in SEQUENCE_WRONG:
                raise
        return None

    async def values(self, below: str) -> dict[str, Value]:
        """Return what stands at the keys that begin with ``below`` and a dot, by the rest of the key.

        :raises BusError: the broker is out of reach, or lets these credentials read nothing
        """
        prefix = state_subject(self._ns, f"{below}.")
        info = await api(self._wire, f"STREAM.INFO.{self._stream}", {"subjects_filter": f"{prefix}>"})
        found: dict[str, Value] = {}
        for subject in sorted(info["state"].get("subjects") or {}):
            raw = await last_on(self._wire, self._stream, subject)
            if raw is not None and raw.body:
                found[subject.removeprefix(prefix)] = Value(raw.seq, raw.body)
        return found

    async def _write(self, key: str, body: bytes, headers: Mapping[str, str]) -> int:
        subject = state_subject(self._ns, key)
        return int(answer_of(subject, await self._wire.request(subject, body, headers))["seq"])


def _headers(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"Nats-TTL": f"{max(1, math.ceil(seconds))}s"}
