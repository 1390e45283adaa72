"""Workers and verifiers over a real broker, with models that misbehave in ways that no model error says."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from tests.integration.runtime.crew import give, team_of
from tests.killable_broker import KillableBroker

from interlock.backends.chat import ChatReply, ChatRequest
from interlock.observability.tracing import Tracing
from interlock.protocol.base import Usage
from interlock.protocol.state import JobState
from interlock.protocol.team import Agent, ModelSettings, Team
from interlock.runtime import roles
from interlock.runtime._jetstream import api
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BrokerComplaint
from interlock.runtime.client import watch
from interlock.runtime.config import BrokerLogin, ProcessConfig
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.roles import RoleIncomplete
from interlock.runtime.verifier_role import serve_verifier
from interlock.runtime.worker_role import serve_worker

pytestmark = pytest.mark.timeout(60)


class Model:
    """A chat model that does what it is told to."""

    provider = "openai"
    name = "m"
    url = "http://model.test/v1"

    def __init__(self, answer: Callable[[ChatRequest], Awaitable[str]]) -> None:
        self.answer = answer
        self.closed = False

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer by script."""
        return ChatReply(await self.answer(request), "stop", "m", Usage(calls=1), "r")

    async def aclose(self) -> None:
        """Remember it."""
        self.closed = True


def config(kind: str, ns: str, address: BrokerAddress, *, agent: str, model: bool, slots: int = 8) -> ProcessConfig:
    settings = ModelSettings(url="http://model.test/v1") if model else None
    return ProcessConfig.model_validate(
        {
            "kind": kind,
            "name": agent,
            "ns": ns,
            "broker": BrokerLogin.of(address),
            "team": "t",
            "agent_name": agent,
            "agent": Agent.model_validate({"kind": kind}),
            "model": settings,
            "slots": slots,
        }
    )


async def _fine(_: ChatRequest) -> str:
    return "fine"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """Give every process of the test this one model, which says that it is fine unless told otherwise."""
    made = Model(_fine)
    monkeypatch.setattr(roles, "open_chat", lambda _: made)
    return made


@asynccontextmanager
async def staffed(bus: Bus, address: BrokerAddress) -> AsyncIterator[None]:
    """Run a manager, a worker and a verifier while the block runs."""
    ready = [anyio.Event(), anyio.Event()]
    async with anyio.create_task_group() as group:
        worker = config("worker", bus.ns, address, agent="w", model=True)
        verifier = config("verifier", bus.ns, address, agent="v", model=False)
        group.start_soon(serve_worker, worker, bus, Tracing(), ready[0].set)
        group.start_soon(serve_verifier, verifier, bus, Tracing(), ready[1].set)
        for event in ready:
            await event.wait()
        group.start_soon(Coordinator(bus, Tracing()).run)
        yield
        group.cancel_scope.cancel()


async def outcome(bus: Bus, team: Team) -> JobState:
    state = JobState()
    async for progress in watch(bus, await give(bus, team)):
        state = progress.state
    return state


async def test_a_mistake_over_one_message_takes_nothing_else_down(
    bus: Bus, broker: BrokerAddress, model: Model
) -> None:
    """An exception that nobody foresaw fails its own task, with its name as the reason; the others are done."""

    async def answer(request: ChatRequest) -> str:
        if "poison" in str(request.messages):
            raise ZeroDivisionError("no such thing")
        return await _fine(request)

    model.answer = answer
    team = team_of({"step": "s", "for_each": ["a", "poison", "c"], "do": "{{ item }}", "attempts": 1})
    async with staffed(bus, broker):
        state = await outcome(bus, team)
    assert [state.tasks[f"s:{n}"].outcome for n in range(3)] == ["accepted", "failed", "accepted"]
    assert "the worker failed: ZeroDivisionError: no such thing" in state.tasks["s:1"].reason
    assert model.closed


async def test_a_verifier_that_fails_over_a_result_passes_nothing(
    bus: Bus, broker: BrokerAddress, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in the verifier itself is a verdict: uncertain, with the exception as its evidence."""

    async def broken(*_: object) -> None:
        raise KeyError("gone")

    monkeypatch.setattr("interlock.runtime.verifier_role.judge_result", broken)
    async with staffed(bus, broker):
        state = await outcome(bus, team_of({"step": "s", "attempts": 1}))
    verdict = state.tasks["s"].current.verdict
    assert verdict is not None
    assert verdict.verdict == "uncertain"
    assert "KeyError" in verdict.criteria[0].evidence
    assert state.tasks["s"].outcome == "failed"
    assert model.closed


async def test_answers_wait_for_a_broker_that_is_away(killable_broker: KillableBroker, ns: str, model: Model) -> None:
    """Results that are ready while the broker is down are appended once it is back, and only once."""
    working, go_on = anyio.Event(), anyio.Event()

    async def answer(request: ChatRequest) -> str:
        working.set()
        await go_on.wait()
        return await _fine(request)

    model.answer = answer
    async with Bus.connect(killable_broker.address, ns, "test") as bus, staffed(bus, killable_broker.address):
        job = await give(bus, team_of({"step": "s"}))
        await working.wait()
        await killable_broker.kill()
        go_on.set()
        await killable_broker.restart()
        state = JobState()
        async for progress in watch(bus, job):
            state = progress.state
    assert state.closed is not None
    assert state.closed.status == "succeeded"
    assert len(state.tasks["s"].attempts) == 1


async def test_a_message_that_the_broker_gives_twice_is_worked_on_once(
    bus: Bus, broker: BrokerAddress, model: Model
) -> None:
    """A broker that forgot whom it gave an assignment to gives it again, and its model is still asked once."""
    asked: list[ChatRequest] = []
    forgotten, given_again = anyio.Event(), anyio.Event()

    async def answer(request: ChatRequest) -> str:
        asked.append(request)
        if not forgotten.is_set():
            await api(bus._wire, f"CONSUMER.DELETE.IL_{bus.ns}.assigned-w@t")
            forgotten.set()
        await given_again.wait()
        return "fine"

    async def see_it_given_again() -> None:
        await forgotten.wait()
        while not given_again.is_set():
            with suppress(BrokerComplaint):  # it has to be made again first
                info = await api(bus._wire, f"CONSUMER.INFO.IL_{bus.ns}.assigned-w@t")
                if info["num_ack_pending"]:
                    given_again.set()
            await anyio.sleep(0.01)

    model.answer, state = answer, JobState()
    async with staffed(bus, broker), anyio.create_task_group() as group:
        group.start_soon(see_it_given_again)
        state = await outcome(bus, team_of({"step": "s"}))
    assert [task.outcome for task in state.tasks.values()] == ["accepted"]
    assert len(asked) == 1


@pytest.mark.parametrize("missing", ["agent", "agent_name", "team", "model"])
async def test_a_role_without_what_it_takes(bus: Bus, broker: BrokerAddress, missing: str) -> None:
    """A process that is told to serve a role and not which one says so."""
    incomplete = config("worker", bus.ns, broker, agent="w", model=True).model_copy(update={missing: None})
    with pytest.raises(RoleIncomplete, match="process w is to serve a role"):
        await serve_worker(incomplete, bus, Tracing(), lambda: None)
