"""Managers share the partitions, over a real broker."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
import pytest
from anyio.abc import TaskGroup
from tests.integration.bus.proxy import Proxy
from tests.waiting import eventually

from interlock.protocol.subjects import PARTITIONS
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.partitions import Partitions

SECONDS = 1.0
"""Of a lease here."""


class Manager:
    """A manager that only says which partitions it works on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.works_on: set[int] = set()
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()

    async def run(self, address: BrokerAddress, ns: str) -> None:
        """Work until its scope is cancelled."""
        try:
            with self.scope:
                async with Bus.connect(address, ns, self.name) as bus:
                    await Partitions(bus, self.name, SECONDS).run(self.own)
        finally:
            self.ended.set()

    async def own(self, part: int) -> None:
        """Work on a partition."""
        assert part not in self.works_on
        self.works_on.add(part)
        try:
            await anyio.sleep_forever()
        finally:
            self.works_on.discard(part)


def shared(managers: Sequence[Manager]) -> bool:
    """Whether every partition has one manager, and no manager has two more than another."""
    counts = [len(one.works_on) for one in managers]
    return (
        sum(counts) == PARTITIONS
        and set().union(*(one.works_on for one in managers)) == set(range(PARTITIONS))
        and max(counts) - min(counts) <= 1
    )


class Begin(Protocol):
    """Begins a manager, at the broker itself or through something."""

    def __call__(self, name: str, at: BrokerAddress = ..., /) -> Manager:
        """Begin a manager of this name."""
        raise NotImplementedError


@asynccontextmanager
async def beginning(address: BrokerAddress, ns: str) -> AsyncIterator[Begin]:
    """Yield what begins a manager; all end with the block."""
    begun: list[Manager] = []

    def begin(name: str, at: BrokerAddress = address, /) -> Manager:
        begun.append(manager := Manager(name))
        group.start_soon(manager.run, at, ns)
        return manager

    group: TaskGroup
    async with anyio.create_task_group() as group:
        yield begin
        for one in begun:
            one.scope.cancel()


async def test_managers_share_all_partitions_fairly(broker: BrokerAddress, ns: str) -> None:
    """One has all; whoever comes gets a share of his own; whoever leaves gives all of it back, at once."""
    async with beginning(broker, ns) as begin:
        first = begin("first")
        await eventually(lambda: shared([first]))
        second, third = begin("second"), begin("third")
        await eventually(lambda: shared([first, second, third]))
        left = time.monotonic()
        second.scope.cancel()
        await eventually(lambda: shared([first, third]))
        assert time.monotonic() - left < SECONDS


async def test_several_that_come_at_once_do_not_get_in_each_others_way(broker: BrokerAddress, ns: str) -> None:
    """Five that begin together share all partitions, two of them with a partition more or less than others."""
    async with beginning(broker, ns) as begin:
        managers = [begin(f"m{number}") for number in range(5)]
        await eventually(lambda: shared(managers))


async def test_who_falls_silent_stops_and_is_replaced_in_time(broker: BrokerAddress, ns: str) -> None:
    """Cut off, a manager rests its partitions within its lease, and another one has them a second later at most."""
    async with Proxy.run(broker) as proxy, beginning(broker, ns) as begin:
        stays, cut_off = begin("stays"), begin("cut-off", proxy.address)
        await eventually(lambda: shared([stays, cut_off]))
        proxy.lose_requests = proxy.lose_replies = True
        silent = time.monotonic()
        await eventually(lambda: not cut_off.works_on)
        assert time.monotonic() - silent < SECONDS + 0.5
        await eventually(lambda: shared([stays]))
        assert time.monotonic() - silent < SECONDS + 1
        await proxy.cut()
        await eventually(lambda: shared([stays, cut_off]))


async def test_who_dies_is_replaced_in_time(broker: BrokerAddress, ns: str) -> None:
    """What a manager had who ended without a word is another's within the lease and a second."""
    async with Proxy.run(broker) as proxy, beginning(broker, ns) as begin:
        stays, dies = begin("stays"), begin("dies", proxy.address)
        await eventually(lambda: shared([stays, dies]))
        proxy.lose_requests = proxy.lose_replies = True
        died = time.monotonic()
        dies.scope.cancel()
        await eventually(lambda: shared([stays]))
        assert time.monotonic() - died < SECONDS + 1


async def test_what_fails_is_told(broker: BrokerAddress, ns: str) -> None:
    """An error of the work on a partition ends the manager with it, and another one takes over at once."""

    async def own(part: int) -> None:
        raise ValueError(f"cannot work on {part}")

    async with Bus.connect(broker, ns, "m") as bus:
        with pytest.raises(ExceptionGroup) as caught:
            await Partitions(bus, "m", SECONDS).run(own)
    assert all(isinstance(error, ValueError) for error in caught.value.exceptions)
    async with beginning(broker, ns) as begin:
        next_one, began = begin("next"), time.monotonic()
        await eventually(lambda: shared([next_one]))
        assert time.monotonic() - began < SECONDS
