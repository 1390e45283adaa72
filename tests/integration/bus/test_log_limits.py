"""A log that may not grow without end: what is too much is refused, and nothing is thrown away."""

import pytest
from tests.integration.bus.messages import assigned

from interlock.protocol.messages import TaskAssigned
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus, BusSettings
from interlock.runtime.bus_errors import LogFull
from interlock.runtime.failures import BROKER_AWAY

_SMALL = BusSettings(max_bytes=64 * 1024)


async def _fill(bus: Bus) -> tuple[list[str], TaskAssigned]:
    """Append until the log is full; return the ids that entered and the message that did not."""
    entered: list[str] = []
    for number in range(100):
        message = assigned(bus.ns, task=f"t:{number}", instruction="x" * 4000)
        try:
            await bus.append(message)
        except LogFull:
            return entered, message
        entered.append(message.id)
    raise AssertionError("the log took more than its limit")


async def _ids(bus: Bus) -> list[str]:
    async with bus.follow() as batches:
        ids: list[str] = []
        async for batch in batches:
            ids += [entry.message.id for entry in batch.entries]
            if not batch.pending:
                break
    return ids


async def test_a_full_log_refuses_and_keeps_what_it_has(broker: BrokerAddress, ns: str) -> None:
    """An append to a full log raises ``LogFull``, which passes by itself; everything from before is still there."""
    async with Bus.connect(broker, ns, "small", settings=_SMALL) as bus:
        entered, refused = await _fill(bus)
        assert entered
        assert await _ids(bus) == entered
        with pytest.raises(BROKER_AWAY, match="interlock archive"):
            await bus.append(refused)


async def test_a_log_that_is_given_room_takes_what_it_refused(broker: BrokerAddress, ns: str) -> None:
    """The same message enters, once, as soon as there is room; who sets no limit leaves the one that stands."""
    async with Bus.connect(broker, ns, "small", settings=_SMALL) as bus:
        entered, refused = await _fill(bus)
        async with Bus.connect(broker, ns, "other") as other:
            with pytest.raises(LogFull):
                await other.append(refused)
        async with Bus.connect(broker, ns, "larger", settings=BusSettings(max_bytes=0)):
            await bus.append(refused)
        assert await _ids(bus) == [*entered, refused.id]


async def test_of_a_batch_it_is_told_what_entered(broker: BrokerAddress, ns: str) -> None:
    """Of many messages at once that do not all fit, those that are said to have entered have, and no others."""
    async with Bus.connect(broker, ns, "small", settings=_SMALL) as bus:
        messages = [assigned(ns, task=f"t:{number}", instruction="x" * 4000) for number in range(40)]
        outcomes = await bus.append_all([(message, {}) for message in messages])
        assert {type(one) for one in outcomes} == {int, LogFull}
        entered = [message.id for message, one in zip(messages, outcomes, strict=True) if isinstance(one, int)]
        assert await _ids(bus) == entered
