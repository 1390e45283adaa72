"""Jobs whose manager makes the plan, over a real broker and with a scripted model: what the log has of it."""

import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.cli import agent_pids, kill, read_log, running
from tests.integration.runtime.crew import crew, ended, log_of, team_of

from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json
from interlock.protocol.codec import kind_of
from interlock.protocol.control import ControlOrder, JobScope
from interlock.protocol.messages import (
    JOB_TASK,
    PlanAccepted,
    PlanProposed,
    PlanRejected,
    TaskAssigned,
    TaskResult,
)
from interlock.protocol.state import Entry, JobState
from interlock.runtime.bus import Bus
from interlock.runtime.client import submit, watch
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.manager_model import proposers_of
from interlock.runtime.questions import give_answer
from interlock.runtime.report import report_of
from interlock.testing import Call, Hang, Reply, ScriptedServer

pytestmark = pytest.mark.timeout(60)

Script = Callable[[Call], Reply | str | dict[str, Json]]


def a_step(name: str, *, needs: tuple[str, ...] = (), agent: str = "w", do: str = "Say it.") -> dict[str, Json]:
    """Return a step as the model writes it."""
    criterion: Json = {"kind": "lacks", "field": "", "value": "nonsense"}
    return {
        "step": name,
        "agent": agent,
        "do": do,
        "needs": list(needs),
        "for_each": "",
        "output": [],
        "criteria": [criterion],
    }


def a_plan(*steps: dict[str, Json], text: str = "", **more: Json) -> dict[str, Json]:
    """Return a plan as the model writes it."""
    return {"makes": "plan", "text": text, "steps": list(steps), **more}


@asynccontextmanager
async def planning(bus: Bus, monkeypatch: pytest.MonkeyPatch, script: Script) -> AsyncIterator[ScriptedServer]:
    """Manage every job with a model that follows ``script``."""
    async with ScriptedServer(script) as server:
        monkeypatch.setenv("INTERLOCK_MODEL_URL", server.url)
        async with managing(bus):
            yield server


@asynccontextmanager
async def managing(bus: Bus) -> AsyncIterator[None]:
    """Run a manager while the block runs."""
    async with anyio.create_task_group() as group:
        group.start_soon(Coordinator(bus, Tracing(), proposers=proposers_of(bus, Tracing())).run)
        yield
        group.cancel_scope.cancel()


async def give(bus: Bus, *, approve_plan: bool = False, **team: Any) -> str:
    """Submit a job of a team without a plan and return its id."""
    await submit(bus, Tracing(), team_of(**team), "go", {}, "j1", approve_plan=approve_plan)
    return "j1"


async def until(bus: Bus, job: str, holds: Callable[[JobState], bool]) -> JobState:
    """Return the first state of a job in which something holds."""
    async for progress in watch(bus, job):
        if holds(progress.state):
            return progress.state
    raise AssertionError("the job ended before")


def chain(log: list[Entry]) -> list[str]:
    """Return the kinds of the entries in the job's own chain."""
    return [kind_of(type(one.message)) for one in log if one.message.task == JOB_TASK]


def of_kind(log: list[Entry], kind: type[Any]) -> list[Any]:
    """Return the messages of a kind."""
    return [one.message for one in log if isinstance(one.message, kind)]


async def test_a_plan_is_made_and_followed(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manager proposes, accepts and follows; one call of its model, which counts in the job's usage."""
    plan = a_plan(a_step("one"), a_step("two", needs=("one",)))
    async with planning(bus, monkeypatch, lambda _: plan) as server, crew(bus):
        state = await ended(bus, await give(bus))
    log = await log_of(bus)
    assert chain(log) == ["job.submitted", "plan.proposed", "plan.accepted", "job.closed"]
    assert state.closed is not None
    assert (state.closed.status, state.refused, len(server.calls)) == ("succeeded", 0, 1)
    assert state.closed.usage.calls == 1
    assert [one.task for one in of_kind(log, TaskAssigned)] == ["one", "two"]
    (proposed,) = of_kind(log, PlanProposed)
    assert len(proposed.exchanges) == 1
    assert report_of(state).plan.proposed == 1


async def test_a_bad_plan_is_repaired(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that cannot run goes back with what is wrong by name; the next one runs, and nothing of the first did."""
    plans = [a_plan(a_step("one", agent="nobody")), a_plan(a_step("two"))]
    async with planning(bus, monkeypatch, lambda call: plans[call.number - 1]) as server, crew(bus):
        state = await ended(bus, await give(bus))
    log = await log_of(bus)
    kinds = ["job.submitted", "plan.proposed", "plan.rejected", "plan.proposed", "plan.accepted", "job.closed"]
    assert chain(log) == kinds
    (rejected,) = of_kind(log, PlanRejected)
    assert "nobody" in " ".join(rejected.reasons)
    assert "nobody" in server.calls[1].conversation
    assert {one.task for one in of_kind(log, TaskAssigned)} == {"two"}
    assert state.closed is not None
    assert state.closed.status == "succeeded"
    assert report_of(state).plan.rejected[0].reasons == rejected.reasons


async def test_the_tries_run_out(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """After ``limits.plans`` proposals that cannot run the job fails, with the last reasons, and nobody worked."""
    async with planning(bus, monkeypatch, lambda _: "I would rather not.") as server, crew(bus):
        state = await ended(bus, await give(bus, limits={"plans": 2}))
    log = await log_of(bus)
    assert (len(of_kind(log, PlanRejected)), len(server.calls), of_kind(log, TaskAssigned)) == (2, 2, [])
    assert state.closed is not None
    assert state.closed.status == "failed"
    assert state.closed.reason.startswith("no plan came of 2 tries; the last was rejected: ")
    assert of_kind(log, PlanRejected)[-1].reasons[0] in state.closed.reason


async def test_no_model_is_there(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody says where the model is the job fails and says so: it does not wait for ever."""
    monkeypatch.delenv("INTERLOCK_MODEL_URL", raising=False)
    async with managing(bus):
        state = await ended(bus, await give(bus))
    assert state.closed is not None
    assert state.closed.status == "failed"
    assert "INTERLOCK_MODEL_URL" in state.closed.reason


async def test_a_question_is_answered_without_a_plan(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A direct answer is the result; nothing is accepted and nobody assigned."""
    reply: dict[str, Json] = {"makes": "answer", "text": "4", "steps": []}
    async with planning(bus, monkeypatch, lambda _: reply):
        state = await ended(bus, await give(bus))
    assert chain(await log_of(bus)) == ["job.submitted", "plan.proposed", "job.closed"]
    assert state.closed is not None
    assert (state.closed.status, state.closed.result) == ("succeeded", "4")


async def test_the_manager_asks_and_plans_with_the_answer(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its model asks is asked in the job's chain; the answer is known when it is asked again."""
    replies: list[dict[str, Json]] = [{"makes": "question", "text": "Which year?", "steps": []}]
    replies.append(a_plan(a_step("one")))
    async with planning(bus, monkeypatch, lambda call: replies[call.number - 1]) as server, crew(bus):
        job = await give(bus)
        state = await until(bus, job, lambda now: now.question is not None)
        assert report_of(state).question is not None
        answered = await give_answer(bus, job, "q-", "2024")
        assert (answered.task, answered.by, answered.text) == (JOB_TASK, "manager@t", "Which year?")
        state = await ended(bus, job)
    assert chain(await log_of(bus))[1:5] == ["plan.proposed", "question.asked", "question.answered", "plan.proposed"]
    assert "2024" in server.calls[1].conversation
    assert state.closed is not None
    assert (state.closed.status, len(server.calls)) == ("succeeded", 2)


async def test_a_person_approves_of_the_plan(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing begins before the yes; words instead of it make the manager plan again."""
    plans = [a_plan(a_step("one")), a_plan(a_step("two"))]
    async with planning(bus, monkeypatch, lambda call: plans[call.number - 1]) as server, crew(bus):
        job = await give(bus, approve_plan=True)
        first = await until(bus, job, lambda now: now.question is not None)
        assert first.question is not None
        await give_answer(bus, job, first.question.asked.question, "call it two")
        second = await until(bus, job, lambda now: now.question is not None and now.tries == 1)
        assert second.question is not None
        assert not second.tasks
        await give_answer(bus, job, second.question.asked.question, "YES")
        state = await ended(bus, job)
    assert "call it two" in server.calls[1].conversation
    assert state.closed is not None
    assert (state.closed.status, list(state.tasks)) == ("succeeded", ["two"])


async def test_a_new_version_keeps_what_was_accepted(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that failed for good leads to a new version: what was accepted is not done again, the rest is replaced."""
    first = a_plan(a_step("one"), a_step("two", needs=("one",)), a_step("three", needs=("two",)))
    second = a_plan(a_step("four", needs=("one",)) | {"replaces": "two"}, keep=["one"], text="two cannot be done")
    plans = [first, second]

    def judge(result: TaskResult) -> Any:
        return "fail" if result.task == "two" else "pass"

    async with planning(bus, monkeypatch, lambda call: plans[call.number - 1]), crew(bus, _differently, judge=judge):
        state = await ended(bus, await give(bus))
    log = await log_of(bus)
    accepted = of_kind(log, PlanAccepted)
    assert [[step.step for step in one.steps] for one in accepted] == [["one", "two", "three"], ["one", "four"]]
    assert [one.task for one in of_kind(log, TaskAssigned)] == ["one", "two", "two", "two", "four"]
    assert state.closed is not None
    assert (state.closed.status, state.refused) == ("succeeded", 0)
    report = report_of(state)
    assert {task.id: task.status for task in report.tasks} == {
        "one": "accepted",
        "two": "failed",
        "three": "cancelled",
        "four": "accepted",
    }
    assert [one.why for one in report.plan.versions] == ["", "two cannot be done"]


def _differently(assigned: TaskAssigned) -> Json:
    return f"{assigned.task} {assigned.attempt}"


async def test_a_kill_ends_the_call_of_the_model(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while its manager's model thinks, the job ends at once, and so does the call."""
    async with planning(bus, monkeypatch, lambda _: Hang()) as server:
        job = await give(bus)
        await server.until(lambda now: len(now.calls) == 1)
        order = ControlOrder(
            id=uuid.uuid4().hex, stop=True, scope=JobScope(job=job), reason="enough", at=datetime.now(UTC)
        )
        with anyio.fail_after(2):
            await bus.orders.write(order)
            state = await ended(bus, job)
            await server.until(lambda now: now.seen[0].client_left)
    assert state.closed is not None
    assert state.closed.status == "killed"
    assert chain(await log_of(bus)) == ["job.submitted", "job.closed"]


async def test_two_managers_make_one_plan(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ask their models; the chain takes the proposal of one of them, and the plan is followed once."""

    def script(call: Call) -> dict[str, Json]:
        return a_plan(a_step(f"step{call.number}"))

    async with planning(bus, monkeypatch, script), managing(bus), crew(bus):
        state = await ended(bus, await give(bus))
    log = await log_of(bus)
    assert chain(log) == ["job.submitted", "plan.proposed", "plan.accepted", "job.closed"]
    assert len(of_kind(log, TaskAssigned)) == 1
    assert state.refused == 0


TEAM: dict[str, Json] = {
    "interlock": 1,
    "team": "t",
    "agents": {"w": {"kind": "worker"}, "v": {"kind": "verifier"}},
}


async def test_the_manager_dies_while_it_plans(tmp_path: Path) -> None:
    """``kill -9`` of the manager while its model thinks: the next one asks again, and nothing is doubled."""
    path = tmp_path / "team.yaml"
    path.write_text(json.dumps(TEAM))

    def script(call: Call) -> Reply | str | dict[str, Json]:
        if call.schema is None or "steps" not in str(call.schema):
            return "said"
        return Hang() if call.repeat == 1 else a_plan(a_step("one"))

    async with ScriptedServer(script) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(path), "go", "--json", env=env, cwd=tmp_path) as command:
            await server.until(lambda now: len(now.calls) == 1)
            kill(agent_pids(command.process.pid, "manager")[0])
            done = await command.finish()
    assert done.status == 0, done.err
    assert "manager ended with SIGKILL" in done.err
    assert chain(await read_log(tmp_path / ".interlock")) == [
        "job.submitted",
        "plan.proposed",
        "plan.accepted",
        "job.closed",
    ]
    assert done.report["plan"]["proposed"] == 1
    assert done.report["usage"]["calls"] == 2
