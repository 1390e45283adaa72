"""A worker over a real broker that is told to drain, or that a job is killed."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from tests.integration.runtime.crew import give, team_of
from tests.integration.runtime.test_roles import Model, config
from tests.waiting import eventually

from interlock.backends.chat import ChatRequest
from interlock.observability.tracing import Tracing
from interlock.protocol.messages import TaskResult
from interlock.protocol.subjects import result_subjects
from interlock.runtime import roles
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.told import Told
from interlock.runtime.worker_role import serve_worker

pytestmark = pytest.mark.timeout(60)


class Gate:
    """A model that answers once it is opened."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.left: list[str] = []
        """What nobody waits for an answer to any more."""
        self.open = anyio.Event()

    async def answer(self, request: ChatRequest) -> str:
        """Answer when the gate is open."""
        text = str(request.messages)
        self.asked.append(text)
        try:
            await self.open.wait()
        except BaseException:
            self.left.append(text)
            raise
        return "fine"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Give the worker of the test a model behind a gate."""
    made = Gate()
    monkeypatch.setattr(roles, "open_chat", lambda _: Model(made.answer))
    return made


@asynccontextmanager
async def working(bus: Bus, address: BrokerAddress, told: Told) -> AsyncIterator[Callable[[], bool]]:
    """Run a manager and a worker with two slots; yield what says whether the worker has ended."""
    ended = anyio.Event()

    async def work() -> None:
        worker = config("worker", bus.ns, address, agent="w", model=True, slots=2)
        await serve_worker(worker, bus, Tracing(), lambda: None, told)
        ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(Coordinator(bus, Tracing()).run)
        group.start_soon(work)
        yield ended.is_set
        group.cancel_scope.cancel()


async def results(bus: Bus, job: str) -> int:
    """Return how many results of a job are in the log."""
    entries = await bus.entries(result_subjects(bus.ns, job))
    return sum(isinstance(entry.message, TaskResult) for entry in entries)


async def test_who_drains_ends_what_he_has_and_takes_no_more(bus: Bus, broker: BrokerAddress, gate: Gate) -> None:
    """Two in hand of five: both get their results, none of the others is begun, and the worker ends by itself."""
    told = Told()
    async with working(bus, broker, told) as ended:
        await give(bus, team_of({"step": "s", "for_each": [1, 2, 3, 4, 5], "do": "{{ item }}"}), "j")
        await eventually(lambda: len(gate.asked) == 2)
        assert told.in_hand == 2
        told.hear("drain")
        await anyio.wait_all_tasks_blocked()
        assert not ended()
        gate.open.set()
        await eventually(ended)
        assert (len(gate.asked), told.in_hand, await results(bus, "j")) == (2, 0, 2)


async def test_who_is_told_of_a_killed_job_lets_go_of_it_alone(bus: Bus, broker: BrokerAddress, gate: Gate) -> None:
    """The killed job's attempt is cancelled and said to be, none of it is begun any more, and the other one is done."""
    said: list[str] = []
    told = Told(said.append)
    async with working(bus, broker, told):
        await give(bus, team_of({"step": "s", "do": "bad"}), "j1")
        await give(bus, team_of({"step": "s", "do": "good"}), "j2")
        await eventually(lambda: len(gate.asked) == 2)
        told.hear("kill j1")
        await eventually(lambda: said == ["dropped j1"])
        assert ["bad" in text for text in gate.left] == [True]
        told.hear("kill j3")
        assert said == ["dropped j1", "dropped j3"], "what is not in hand is let go of at once"
        await give(bus, team_of({"step": "s", "do": "worse"}), "j3")
        gate.open.set()
        await eventually(lambda: told.in_hand == 0)
        assert (await results(bus, "j1"), await results(bus, "j2")) == (0, 1)
        told.hear("what only a newer version knows")
        assert not any("worse" in text for text in gate.asked)
        told.hear("spare j3")
        await eventually(lambda: any("worse" in text for text in gate.asked))  # it was put aside and is not lost
