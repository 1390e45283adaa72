"""Who is there, over a real broker."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import anyio
import pytest
from tests.integration.bus.proxy import Proxy

from interlock.protocol.team import Team
from interlock.runtime import presence as presence_module
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.config import Toolkit
from interlock.runtime.presence import Node, Presence, Served


def node(name: str = "one", **fields: object) -> Node:
    """Return a machine."""
    now = datetime.now(UTC)
    plain = {"id": f"{name}-1", "name": name, "host": "h", "pid": 7, "version": "0.1", "protocol": 1}
    return Node.model_validate({**plain, "began": now, "seen": now, **fields})


TEAM = Team.model_validate(
    {
        "interlock": 1,
        "team": "digest",
        "agents": {"reader": {"kind": "worker"}, "checker": {"kind": "verifier"}},
        "plan": [{"step": "s", "agent": "reader", "do": "x"}],
    }
)


async def becomes(asked: Callable[[], Awaitable[bool]], wanted: bool, seconds: float = 10) -> None:
    """Wait until asking the broker gives what is wanted."""
    with anyio.fail_after(seconds):
        while await asked() is not wanted:  # noqa: ASYNC110 -- the broker sets no event here
            await anyio.sleep(0.02)


async def test_a_machine_is_there_while_it_tells_so(bus: Bus) -> None:
    """What a machine tells is read as it was told, its news at once, and nothing of it is left once it has gone."""
    presence = Presence(bus)
    assert await presence.nodes() == []
    served = Served(role="reader@digest", kind="worker", processes=2, slots=8)
    async with presence.announced(node(serves=[served])) as told, presence.announced(node("another")):
        found = await presence.nodes()
        assert [one.name for one in found] == ["another", "one"]
        assert found[1].serves == (served,)
        told.tell(told.node.model_copy(update={"draining": True, "in_hand": 3}))

        async def drains() -> bool:
            return (await presence.nodes())[1].draining

        await becomes(drains, True, seconds=0.9)  # sooner than it would have told by itself
        assert (await presence.nodes())[1].in_hand == 3
    assert await presence.nodes() == []


async def test_room_is_what_workers_have_that_are_there(bus: Bus) -> None:
    """The places of a team's workers add up over machines; verifiers and machines that drain have none to give."""
    presence = Presence(bus)
    serves = [
        Served(role="reader@digest", kind="worker", processes=2, slots=8),
        Served(role="writer@digest", kind="worker", processes=1, slots=3),
        Served(role="checker@digest", kind="verifier", processes=1, slots=64),
        Served(role="manager", kind="manager", processes=1, slots=0),
    ]
    async with presence.announced(node(serves=serves)), presence.announced(node("b", serves=serves[:1])) as other:
        assert await presence.rooms() == {"digest": 19}
        other.tell(other.node.model_copy(update={"draining": True}))

        async def fewer() -> bool:
            return await presence.rooms() == {"digest": 11}

        await becomes(fewer, True)


async def test_a_machine_that_falls_silent_is_forgotten(
    broker: BrokerAddress, bus: Bus, ns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is cut off from the broker is soon gone from the list, and there again when it is back."""
    monkeypatch.setattr(presence_module, "PRESENCE_SECONDS", 1.0)
    monkeypatch.setattr(presence_module, "_BEAT", 0.2)
    presence = Presence(bus)

    async def there() -> bool:
        return bool(await presence.nodes())

    async with (
        Proxy.run(broker) as proxy,
        Bus.connect(proxy.address, ns, "cut") as cut,
        Presence(cut).announced(node()),
    ):
        with pytest.raises(TimeoutError):  # it is kept for longer than one word is good for
            await becomes(there, False, seconds=2.5)
        proxy.lose_requests = proxy.lose_replies = True
        await becomes(there, False)
        await proxy.cut()
        await becomes(there, True)


async def test_teams_stand_as_they_were_last_brought_up(bus: Bus) -> None:
    """The last definition of each team is there, with its folder, and no other."""
    presence = Presence(bus)
    assert await presence.team("digest") is None
    await presence.publish_team(TEAM)
    await presence.publish_team(TEAM.model_copy(update={"team": "other"}))
    await presence.publish_team(TEAM.model_copy(update={"description": "new"}), Toolkit(base="/srv/digest"))
    assert [one.team.team for one in await presence.teams()] == ["digest", "other"]
    found = await presence.team("digest")
    assert found is not None
    assert (found.team.description, found.toolkit.base) == ("new", "/srv/digest")
    assert found.team.model_copy(update={"description": ""}) == TEAM


async def test_what_another_version_tells_harms_nobody(bus: Bus) -> None:
    """More than is known is left out, what cannot be read is skipped, and the others are there."""
    presence = Presence(bus)
    newer = node("newer").model_dump_json().replace("{", '{"mood":"good",', 1)
    await bus.state.put("node.operator.newer-1", newer.encode())
    await bus.state.put("node.operator.broken", b'{"id":')
    await bus.state.put("team.broken", b"[]")
    assert [one.name for one in await presence.nodes()] == ["newer"]
    assert await presence.teams() == []
