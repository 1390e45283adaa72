"""Reading a log beside the command that runs its broker."""

import os
import signal
from pathlib import Path

import anyio
import pytest
from tests.waiting import eventually

from interlock.protocol.subjects import log_subjects
from interlock.runtime import place
from interlock.runtime.broker import embedded_broker
from interlock.runtime.bus_errors import BrokerUnreachable
from interlock.runtime.place import Place, open_log


def _server_of(state: Path) -> int:
    [ports] = state.glob("nats-server_*.ports")
    return int(ports.stem.rpartition("_")[2])


async def _read_for_ever(state: Path, reads: anyio.Event) -> None:
    async with open_log(Place(state), "test") as bus, bus.follow([log_subjects(bus.ns)]) as batches:
        reads.set()
        async for batch in batches:
            assert not batch.entries


async def test_who_reads_beside_a_command_that_ends_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that goes with its command ends what waits for its log, with an error that says so."""
    monkeypatch.setattr(place, "_GONE", 0.5)
    reads, runs = anyio.Event(), anyio.Event()

    async def run() -> None:
        async with embedded_broker(tmp_path):
            runs.set()
            await reads.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await runs.wait()
        with anyio.fail_after(20), pytest.raises(BrokerUnreachable, match="the command that ran it has ended"):
            await _read_for_ever(tmp_path, reads)


async def test_a_broker_that_is_started_again_is_waited_for(tmp_path: Path) -> None:
    """A broker that dies and comes back ends nobody's reading."""
    async with embedded_broker(tmp_path), open_log(Place(tmp_path), "test") as bus:
        os.kill(_server_of(tmp_path), signal.SIGKILL)
        await eventually(lambda: not bus.is_connected)
        with anyio.fail_after(20):
            await bus.wait_connected()
        assert await bus.jobs() == []
