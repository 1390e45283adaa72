"""How many copies the broker keeps of a stream, and how many of them are whole."""

from dataclasses import dataclass
from typing import Any

from interlock.runtime._jetstream import api
from interlock.runtime._wire import Wire


@dataclass(frozen=True, slots=True)
class Copies:
    """How safe a stream is against the loss of nodes."""

    stream: str
    kept: int
    """How many replicas it has."""
    current: int
    """How many of them have all of it right now."""
    wished: int
    """How many it should have."""


async def copies_of(wire: Wire, stream: str, wished: int) -> Copies:
    """Return how many copies there are of ``stream``.

    :raises BusError: the broker is out of reach, or lets these credentials not ask that
    """
    info = await api(wire, f"STREAM.INFO.{stream}")
    others: list[dict[str, Any]] = (info.get("cluster") or {}).get("replicas") or []
    whole = sum(bool(one.get("current")) and not one.get("offline") for one in others)
    return Copies(stream, info["config"]["num_replicas"], 1 + whole, wished)
