"""Attempts that act, from assignment to result: what waits for a person, what is taken from one worker by another."""

import shutil
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.chaos.box import lay_out
from tests.cli import agent_pids, alive, kill, running
from tests.integration.tools.desk import BOX_TOOLS, box_team, open_desk
from tests.waiting import eventually

from interlock.agents.tools.catalogue import catalogue
from interlock.backends.chat import ChatReply, ChatRequest, ToolCall
from interlock.observability.tracing import Tracing
from interlock.protocol.base import Usage
from interlock.protocol.control import AgentScope, ControlOrder
from interlock.protocol.messages import QuestionAnswered, QuestionAsked
from interlock.protocol.state import JobState
from interlock.protocol.team import ModelSettings
from interlock.runtime import roles
from interlock.runtime.address import BrokerAddress
from interlock.runtime.broker import embedded_broker
from interlock.runtime.bus import Bus
from interlock.runtime.client import submit, watch
from interlock.runtime.config import BrokerLogin, ProcessConfig, Toolkit, ToolSetup
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.credentials import parties_of
from interlock.runtime.place import NAMESPACE
from interlock.runtime.teamfile import load_team
from interlock.runtime.verifier_role import serve_verifier
from interlock.runtime.worker_role import serve_worker
from interlock.testing import Answer, Call, CallTool, ScriptedServer

pytestmark = pytest.mark.timeout(90)


def _burns(call: Call) -> Answer | CallTool:
    return Answer("done") if call.observations else CallTool("box.burn", {"what": "a"})


@pytest.mark.parametrize(("says", "lines"), [("yes", 1), ("no", 0)])
async def test_an_answer_goes_on_in_another_process(tmp_path: Path, says: str, lines: int) -> None:
    """The worker that asked is dead when the answer comes: the next one goes on from what stands in the log."""
    plan = [{"step": "s", "agent": "w", "do": "go", "verify": {"criteria": [{"check": "words", "max": 9}]}}]
    agents = {"w": {"kind": "worker", "tools": ["box.burn"]}, "v": {"kind": "verifier"}}
    team = box_team(agents=agents, plan=plan)
    path = lay_out(tmp_path, team.model_dump(mode="json", exclude_defaults=True))
    async with (
        embedded_broker(tmp_path / "elsewhere", parties=parties_of([load_team(path).team])) as address,
        ScriptedServer(_burns) as server,
        Bus.connect(address, NAMESPACE, "person") as bus,
    ):
        keys = str(tmp_path / "elsewhere" / "keys")
        env = {"INTERLOCK_MODEL_URL": server.url, "INTERLOCK_NATS": address.url, "INTERLOCK_NATS_KEYS": keys}
        async with running("run", str(path), "go", "--json", env=env, cwd=tmp_path) as run:
            with anyio.fail_after(60):
                asked, seq = await _question(bus)
            [worker] = agent_pids(run.process.pid, "w-")
            kill(worker)
            await eventually(lambda: not alive(worker))
            await bus.append(_answer(asked, answers=seq, says=says))
            done = await run.finish()
    assert done.status == 0, done.err
    assert _made(tmp_path) == lines
    assert asked.approval is not None
    assert (asked.approval.tool, asked.approval.arguments) == ("box.burn", {"what": "a"})


def _made(folder: Path) -> int:
    outside = folder / "outside.log"
    return len(outside.read_text().splitlines()) if outside.exists() else 0


async def _question(bus: Bus) -> tuple[QuestionAsked, int]:
    """Return the first question with its sequence."""
    async with bus.follow() as batches:
        async for batch in batches:
            for entry in batch.entries:
                if isinstance(entry.message, QuestionAsked):
                    return entry.message, entry.seq
    raise AssertionError("the log ended")


def _answer(asked: QuestionAsked, *, answers: int, says: str) -> QuestionAnswered:
    common = asked.model_dump(include={"ns", "job", "task", "attempt"})
    return QuestionAnswered(
        **common, id=uuid.uuid4().hex, at=datetime.now(UTC), answers=answers, question=asked.question, answer=says
    )


class _Model:
    """A chat model that does what it is told to."""

    provider = "openai"
    name = "m"
    url = "http://model.test/v1"

    def __init__(self, answer: Callable[[ChatRequest], Awaitable[ToolCall | None]]) -> None:
        self.answer = answer

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Make the call that the script says, or else conclude."""
        call = await self.answer(request)
        calls = (call,) if call else ()
        return ChatReply("" if call else "done", "stop", "m", Usage(calls=1), "r", calls)

    async def aclose(self) -> None:
        """Nothing is open."""


async def test_an_attempt_that_an_order_stopped_goes_on_when_it_is_lifted(
    bus: Bus, broker: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway sees that its agent is killed and does nothing; after ``resume`` the assignment comes again."""
    asked = 0

    async def order(*, stop: bool) -> None:
        scope = AgentScope(team="t", agent="w")
        await bus.orders.write(ControlOrder(id=uuid.uuid4().hex, stop=stop, scope=scope, at=datetime.now(UTC)))

    async def killed_at_first(request: ChatRequest) -> ToolCall | None:
        nonlocal asked
        asked += 1
        if asked == 1:
            await order(stop=True)
        return (
            None if any(one.role == "tool" for one in request.messages) else ToolCall("c1", "box.put", '{"what":"a"}')
        )

    monkeypatch.setattr(roles, "open_chat", lambda _: _Model(killed_at_first))
    shutil.copy(BOX_TOOLS, tmp_path)
    team = box_team()
    specs = tuple(catalogue(team, tmp_path).values())
    await submit(bus, Tracing(), team, "go", {}, "j1", toolkit=Toolkit(specs, str(tmp_path)))
    setup = ToolSetup(sources=team.tools, secrets={}, catalogue=specs, base=str(tmp_path))
    state = JobState()
    async with anyio.create_task_group() as group:
        common: dict[str, Any] = {"ns": bus.ns, "broker": BrokerLogin.of(broker), "team": "t"}
        worker = ProcessConfig(
            kind="worker",
            name="w-1",
            agent_name="w",
            agent=team.agents["w"],
            model=ModelSettings(url="http://model.test/v1"),
            tools=setup,
            **common,
        )
        verifier = ProcessConfig(kind="verifier", name="v-1", agent_name="v", agent=team.agents["v"], **common)
        group.start_soon(serve_worker, worker, bus, Tracing(), lambda: None)
        group.start_soon(serve_verifier, verifier, bus, Tracing(), lambda: None)
        group.start_soon(Coordinator(bus, Tracing()).run)
        await eventually(lambda: asked > 1)  # it came again, so it was lost once
        await order(stop=False)
        async for progress in watch(bus, "j1"):
            state = progress.state
        group.cancel_scope.cancel()
    assert _made(tmp_path) == 1
    assert state.closed is not None
    assert state.closed.status == "succeeded"


async def test_who_leaves_a_delivery_takes_it_from_nobody(bus: Bus, tmp_path: Path) -> None:
    """Who lost his attempt says nothing of its message: should the present holder die too, a third one gets it."""
    async with open_desk(bus, tmp_path) as desk:
        assignment, _ = await desk.assign()
        pull = partial(bus.pull, "assigned", assignment.role, 1, ack_wait=1)
        with anyio.fail_after(20):
            async with pull() as first:
                lost = await anext(first)
                async with pull() as second:
                    held = await anext(second)
                    await lost.leave()
                    await held.leave()
                    async with pull() as third:
                        again = await anext(third)
    assert lost.deliveries < held.deliveries < again.deliveries
