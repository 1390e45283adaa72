"""The manager's role: one job, or its share of all the jobs of a namespace."""

import os
import secrets
import socket
from collections.abc import Callable, Mapping

import anyio

from interlock.observability.tracing import Tracing
from interlock.runtime.bus import Bus
from interlock.runtime.config import ProcessConfig
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.partitions import Partitions
from interlock.runtime.presence import Presence

__all__ = ["serve_manager"]


async def serve_manager(config: ProcessConfig, bus: Bus, tracing: Tracing, ready: Callable[[], None]) -> None:
    """Carry the configured job, or all jobs of the leased partitions, until cancelled.

    ``ready`` is called once the log is followed.

    :raises BusError: what no waiting will cure, such as missing permissions; in a group
    """
    presence = Presence(bus)

    async def rooms() -> Mapping[str, int]:
        found: dict[str, int] = {}
        for node in await presence.nodes():
            for served in node.serves:
                found[served.role] = found.get(served.role, 0) + served.slots * (not node.draining)
        return found

    if config.job is not None:
        await Coordinator(bus, tracing).run(config.job, ready)
        await anyio.sleep_forever()  # its supervisor ends it, and would start again who ends by himself
    holder = f"{socket.gethostname().partition('.')[0]}-{os.getpid()}-{secrets.token_hex(4)}"
    await Coordinator(bus, tracing, rooms=rooms).run_leased(Partitions(bus, holder).run, ready)
