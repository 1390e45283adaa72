"""Many messages appended as one: what enters, where, and what the sender learns of each."""

import anyio
import pytest
from tests.integration.bus.messages import assigned, result
from tests.integration.bus.proxy import Proxy
from tests.killable_broker import KillableBroker

from interlock.protocol import codec
from interlock.protocol.errors import BodyTooLarge
from interlock.runtime._batch import MOST, MOST_BYTES, WORTH, Ready, portions
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus, BusSettings
from interlock.runtime.bus_errors import AnswerRefused, BrokerUnreachable


async def _log(bus: Bus) -> dict[str, int]:
    """Return where each message stands in the log, by its id."""
    found: dict[str, int] = {}
    count = 0
    async with bus.follow() as batches:
        async for batch in batches:
            found |= {entry.message.id: entry.seq for entry in batch.entries}
            count += len(batch.entries)
            if not batch.pending:
                break
    assert count == len(found), "a message stands in the log twice"
    return found


async def test_each_message_learns_where_it_stands(bus: Bus) -> None:
    """More messages than one batch holds enter once, in order, and the sequences are those of the log."""
    messages = [assigned(bus.ns, task=f"t{number}") for number in range(MOST + 10)]
    outcomes = await bus.append_all([(message, {}) for message in messages])
    assert await _log(bus) == {message.id: seq for message, seq in zip(messages, outcomes, strict=True)}


@pytest.mark.parametrize("others", [1, WORTH])
async def test_one_that_is_refused_keeps_no_other_out(bus: Bus, others: int) -> None:
    """A message whose chain has moved on learns that, and the others enter, be they few or a batch."""
    first = assigned(bus.ns, task="taken")
    seq = await bus.append(first)
    late, free = assigned(bus.ns, task="taken"), [assigned(bus.ns, task=f"free{number}") for number in range(others)]
    refused, *entered = await bus.append_all([(late, {}), *((message, {}) for message in free)])
    assert isinstance(refused, AnswerRefused)
    assert str(seq) in str(refused)
    answer = result(first, seq)
    [answered] = await bus.append_all([(answer, {})])
    places = {message.id: place for message, place in zip(free, entered, strict=True)}
    assert await _log(bus) == {first.id: 1, **places, answer.id: answered}


async def test_a_batch_whose_answer_was_lost_stands_once(broker: BrokerAddress, ns: str) -> None:
    """Where the connection breaks before the answer, what entered is found, and nothing enters twice."""
    settings = BusSettings(settle_seconds=10)
    async with Proxy.run(broker) as proxy, Bus.connect(proxy.address, ns, "test", settings=settings) as bus:
        messages = [assigned(ns, task=f"t{number}") for number in range(WORTH + 20)]
        proxy.lose_replies = True
        outcomes: list[int | Exception] = []
        async with anyio.create_task_group() as group:

            async def send() -> None:
                outcomes.extend(await bus.append_all([(message, {}) for message in messages]))

            group.start_soon(send)
            async with Bus.connect(broker, ns, "look") as other:
                with anyio.fail_after(20):
                    while len(await _log(other)) < len(messages):
                        await anyio.lowlevel.checkpoint()
            await proxy.cut()
        assert await _log(bus) == {message.id: seq for message, seq in zip(messages, outcomes, strict=True)}


async def test_nothing_enters_later_by_itself(killable_broker: KillableBroker, ns: str) -> None:
    """A batch for a broker that is down fails at once, each message of it, and none appears after its return."""
    async with Bus.connect(killable_broker.address, ns, "test") as bus:
        await killable_broker.kill()
        with anyio.fail_after(10):
            while bus.is_connected:
                await anyio.lowlevel.checkpoint()
            outcomes = await bus.append_all([(assigned(ns, task=f"t{number}"), {}) for number in range(WORTH)])
        assert [type(one) for one in outcomes] == [BrokerUnreachable] * WORTH
        await killable_broker.restart()
        await bus.wait_connected()
        assert await _log(bus) == {}


async def test_a_message_that_is_too_large_is_told(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is more than a body may be is an error for that message alone."""
    monkeypatch.setattr(codec, "MAX_BODY", 2500)
    large, small = assigned(bus.ns, task="l", instruction="x" * 3000), assigned(bus.ns, task="s")
    outcomes = await bus.append_all([(large, {}), (small, {})])
    assert isinstance(outcomes[0], BodyTooLarge)
    assert await _log(bus) == {small.id: outcomes[1]}


def test_portions_hold_what_a_batch_can() -> None:
    """No portion has too many messages or too many bytes, except one message that is too large by itself."""
    sizes = [MOST_BYTES // 3] * 7 + [MOST_BYTES * 2] + [1] * (2 * MOST)
    messages = [Ready("s", b"x" * size, {}) for size in sizes]
    found = portions(messages)
    assert [message for portion in found for message in portion] == messages
    assert all(len(portion) <= MOST for portion in found)
    assert all(len(portion) == 1 or sum(len(one.body) for one in portion) <= MOST_BYTES for portion in found)
    assert portions([]) == []
