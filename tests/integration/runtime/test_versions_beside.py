"""Machines of two versions of the messages side by side on one job, and the end of such an upgrade."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime

import anyio
import pytest
from tests.integration.runtime.serving import serving
from tests.waiting import eventually

from interlock.observability.tracing import Tracing
from interlock.protocol.errors import NotInVersion
from interlock.protocol.messages import VERSION, Grant, JobRetried, TaskAssigned, TaskResult
from interlock.protocol.state import Entry, JobState
from interlock.protocol.subjects import job_subjects
from interlock.protocol.team import Team
from interlock.runtime import versions
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus, BusSettings
from interlock.runtime.client import submit, watch
from interlock.runtime.presence import Node, Presence
from interlock.runtime.versions import PROTOCOL_ENV, ProtocolInvalid, Speaks, newest_version
from interlock.testing import Call, ScriptedServer

pytestmark = pytest.mark.timeout(90)

TEAM = Team.model_validate(
    {
        "interlock": 1,
        "team": "t",
        "agents": {"w": {"kind": "worker"}, "v": {"kind": "verifier"}},
        "plan": [
            {
                "step": "s",
                "for_each": list(range(40)),
                "agent": "w",
                "do": "Item {{ item }}.",
                "attempts": 2,
                "verify": {"criteria": [{"check": "words", "max": 2}]},
            }
        ],
        "limits": {"parallel": 8},
    }
)


@asynccontextmanager
async def _machine(broker: BrokerAddress, ns: str, protocol: int) -> AsyncIterator[Bus]:
    """Have a machine that reads ``protocol`` manage, work and verify, and tell so, while the block runs."""
    now = datetime.now(UTC)
    node = Node(
        id=f"n{protocol}",
        name=f"n{protocol}",
        host="h",
        pid=protocol,
        version="0",
        protocol=protocol,
        began=now,
        seen=now,
    )
    async with AsyncExitStack() as stack:
        settings = BusSettings(newest=protocol)
        bus = await stack.enter_async_context(Bus.connect(broker, ns, node.name, settings=settings))
        await stack.enter_async_context(Presence(bus).announced(node))
        await stack.enter_async_context(serving(bus, broker, TEAM))
        yield bus


async def _run(bus: Bus, job: str) -> tuple[JobState, list[Entry]]:
    """Submit a job, and return what it came to and its log."""
    await submit(bus, Tracing(), TEAM, "go", {}, job)
    state, entries = JobState(), list[Entry]()
    with anyio.fail_after(60):
        async with aclosing(watch(bus, job)) as news:
            async for progress in news:
                state, entries = progress.state, [*entries, *progress.entries]
    return state, entries


def _script(call: Call) -> str:
    return "short" if "not accepted" in call.conversation or "1" not in call.prompt else "far too many words"


async def test_an_upgrade_loses_nothing(
    bus: Bus, broker: BrokerAddress, ns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as a machine of version 1 is there its messages are spoken and it reads all; afterwards the new ones."""
    monkeypatch.setattr(versions, "_LOOK_SECONDS", 0.05)
    async with ScriptedServer(_script) as server:
        monkeypatch.setenv("INTERLOCK_MODEL_URL", server.url)
        monkeypatch.setenv("INTERLOCK_MODEL", "m")
        async with _machine(broker, ns, VERSION) as new:
            async with _machine(broker, ns, 1) as old:
                await eventually(lambda: [one._speaks.version for one in (bus, new, old)] == [1, 1, 1])
                state, entries = await _run(bus, "j1")
                assert {entry.message.v for entry in entries} == {1}
                assert (old.unreadable, new.unreadable, bus.unreadable) == (0, 0, 0)
                _is_whole(state)
                again = _retried(state, ns)
                with pytest.raises(NotInVersion, match=r"job\.retried cannot be written in version 1"):
                    await bus.append(again)
            await eventually(lambda: [one._speaks.version for one in (bus, new)] == [VERSION, VERSION])
            state, entries = await _run(bus, "j2")
            assert {entry.message.v for entry in entries} == {VERSION}
            assert all(entry.message.exchanges for entry in entries if isinstance(entry.message, TaskResult))
            assert new.unreadable == 0
            _is_whole(state)


def _retried(state: JobState, ns: str) -> JobRetried:
    return JobRetried(id="r", ns=ns, job="j1", answers=state.head, at=datetime.now(UTC), tasks=("s:1",))


def _is_whole(state: JobState) -> None:
    assert state.closed is not None
    assert state.closed.status == "succeeded"
    assert [task.outcome for task in state.tasks.values()] == ["accepted"] * 40
    assert state.refused == 0


async def test_who_is_held_back_reads_no_newer_version(bus: Bus, broker: BrokerAddress, ns: str) -> None:
    """A reader of version 1 leaves newer messages out and counts them: that is why nobody writes them to it."""
    await submit(bus, Tracing(), TEAM, "go", {}, "j1")
    async with Bus.connect(broker, ns, "old", settings=BusSettings(newest=1)) as old:
        assert [one.message.v for one in await bus.entries(job_subjects(ns, "j1"))] == [VERSION]
        assert await old.entries(job_subjects(ns, "j1")) == []
        assert old.unreadable == 1
        await submit(old, Tracing(), TEAM, "go", {}, "j2")
    assert [one.message.v for one in await bus.entries(job_subjects(ns, "j2"))] == [1]


async def test_what_is_too_new_goes_back_to_the_queue(bus: Bus, broker: BrokerAddress, ns: str) -> None:
    """A worker that is held back takes an assignment from nobody: one that can read it gets it."""
    assigned = TaskAssigned(
        id="a",
        ns=ns,
        job="j1",
        task="s",
        attempt=1,
        at=datetime.now(UTC),
        step="s",
        role="w@t",
        verifier="v@t",
        instruction="x",
        grant=Grant(seconds=9),
    )
    async with Bus.connect(broker, ns, "old", settings=BusSettings(newest=1)) as old:
        async with anyio.create_task_group() as group, old.pull("assigned", "w@t", 1) as taken:
            group.start_soon(anext, taken)
            await bus.append(assigned)
            await eventually(lambda: old.unreadable)
            group.cancel_scope.cancel()
        async with bus.pull("assigned", "w@t", 1) as deliveries:
            with anyio.fail_after(30):
                async for delivery in deliveries:
                    assert delivery.message == assigned
                    await delivery.ack()
                    break


class _Told:
    def __init__(self, body: bytes) -> None:
        self.body = body


@pytest.mark.parametrize(
    ("bodies", "spoken"),
    [
        ([], 2),
        ([b'{"protocol":2}', b'{"protocol":1}'], 1),
        ([b'{"protocol":3}'], 2),
        ([b"nonsense", b"[]", b'{"protocol":"1"}', b'{"protocol":true}', b'{"protocol":0}'], 2),
    ],
    ids=["nobody", "one-older", "one-newer", "unreadable"],
)
async def test_the_lowest_version_is_spoken(bodies: list[bytes], spoken: int) -> None:
    """Never newer than what every machine reads, never newer than we do; who cannot be understood changes nothing."""

    async def nodes() -> dict[str, _Told]:
        return {str(number): _Told(body) for number, body in enumerate(bodies)}

    speaks = Speaks(nodes, 2)
    await speaks.look()
    assert speaks.version == spoken


async def test_machines_are_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon after a machine came or went its version counts, or no more; who speaks the oldest need not look."""
    monkeypatch.setattr(versions, "_LOOK_SECONDS", 0.01)
    there = {"n": _Told(b'{"protocol":1}')}

    async def nodes() -> dict[str, _Told]:
        return there

    speaks = Speaks(nodes, 2)
    async with anyio.create_task_group() as group:
        group.start_soon(speaks.keep_looking)
        await eventually(lambda: speaks.version == 1)
        there.clear()
        await eventually(lambda: speaks.version == 2)
        group.cancel_scope.cancel()
    with anyio.fail_after(5):
        await Speaks(nodes, 1).keep_looking()


@pytest.mark.parametrize(("given", "newest"), [(None, VERSION), ("", VERSION), ("1", 1), (" 2 ", 2)])
def test_an_operator_can_hold_a_process_back(given: str | None, newest: int) -> None:
    """The environment names the newest version; without it that is the newest there is."""
    assert newest_version({} if given is None else {PROTOCOL_ENV: given}) == newest


@pytest.mark.parametrize("given", ["0", "3", "two", "-1", "1.0", "²"])
def test_what_is_no_version_is_a_mistake(given: str) -> None:
    """A version that does not exist is told with those that do."""
    with pytest.raises(ProtocolInvalid, match="from 1 to 2"):
        newest_version({PROTOCOL_ENV: given})
