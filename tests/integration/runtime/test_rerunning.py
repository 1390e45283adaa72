"""Jobs that are run again from their record: over real brokers, with the scripted model the first time only."""

import argparse
import json
import re
import shutil
import uuid
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.integration.runtime.serving import serving
from tests.integration.tools.desk import BOX_TOOLS

from interlock.agents import worker
from interlock.agents.prompts import work_messages
from interlock.agents.strategies.form import Form
from interlock.agents.tools.catalogue import catalogue
from interlock.backends.chat import ChatMessage
from interlock.observability.tracing import Tracing
from interlock.protocol.items import StoredItems
from interlock.protocol.messages import (
    JobClosed,
    JobRetried,
    QuestionAnswered,
    QuestionAsked,
    TaskAssigned,
    TaskResult,
    TaskVerdict,
)
from interlock.protocol.state import Entry
from interlock.protocol.team import Agent, Input, Team
from interlock.runtime.address import BrokerAddress
from interlock.runtime.archiving import archive
from interlock.runtime.bus import Bus
from interlock.runtime.client import submit, watch
from interlock.runtime.closing import close_killed
from interlock.runtime.config import Toolkit
from interlock.runtime.itemstore import ItemStore
from interlock.runtime.replaying import Source
from interlock.runtime.rerunning import Record, read_record, rerun, rerun_command
from interlock.testing import Answer, Call, CallTool, Fail, Hang, Reply, ScriptedServer

pytestmark = pytest.mark.timeout(120)

_SHORT = {"criteria": [{"check": "words", "max": 4}]}
_AGENTS = {
    "w": {"kind": "worker", "tools": ["box.look", "box.put", "box.burn"]},
    "h": {"kind": "worker", "strategy": "cot"},
    "v": {"kind": "verifier"},
}


def _team(*plan: dict[str, Any], **more: Any) -> Team:
    return Team.model_validate(
        {
            "interlock": 1,
            "team": "t",
            "agents": _AGENTS,
            "tools": {"modules": ["box_tools.py"]},
            "permissions": {"allow": ["box.*"]},
            "plan": plan,
            **more,
        }
    )


_WHOLE = _team(
    {
        "step": "read",
        "for_each": ["plain", "wordy", "stubborn", "hopeless"],
        "agent": "w",
        "do": "Item {{ item }}.",
        "tools": [],
        "attempts": 2,
        "on_failure": {"agent": "h", "attempts": 1},
        "verify": {"criteria": [{"check": "words", "max": 4}, {"judge": "It is about the item."}]},
    },
    {"step": "put", "agent": "w", "do": "Put {{ steps.read.outputs | length }}.", "tools": ["box.look", "box.put"]}
    | {"verify": _SHORT},
    {"step": "burn", "agent": "w", "do": "Burn {{ steps.put.output }}.", "tools": ["box.burn"], "verify": _SHORT},
    result="{{ steps.burn.output }}",
)
"""Redo, judge, handover, a failed item, tools with effects, and a question."""


def _script(call: Call) -> Reply | str:
    text = call.conversation
    if "You check an answer" in text:
        return Answer({"c1": {"evidence": "it is", "holds": True, "change": ""}})
    if "Put " in text:
        calls = (CallTool("box.look", {"what": "all"}), CallTool("box.put", {"what": "one"}))
        return calls[len(call.observations)] if len(call.observations) < len(calls) else "It is put"
    if "Burn " in text:
        return "Burnt" if call.observations else CallTool("box.burn", {"what": "one"})
    if "hopeless" in text or ("stubborn" in text and call.schema is None):
        return f"far too many words for this check number {len(text)}"
    if call.schema is not None:
        return Answer({"reasoning": "shorter", "answer": "short at last"})
    return "short enough" if "plain" in text or "not accepted" in text else "this one has far too many words"


async def _answer(bus: Bus, job: str) -> None:
    """Say yes to whatever is asked."""
    async with bus.follow() as batches:
        async for batch in batches:
            for entry in batch.entries:
                asked = entry.message
                if isinstance(asked, QuestionAsked) and asked.job == job:
                    await bus.append(
                        QuestionAnswered(
                            **asked.model_dump(include={"ns", "job", "task", "attempt"}),
                            id=uuid.uuid4().hex,
                            at=datetime.now(UTC),
                            answers=entry.seq,
                            question=asked.question,
                            answer="yes",
                            note="go on",
                        )
                    )


Script = Callable[[Call], Reply | str]


async def _recorded(
    bus: Bus,
    broker: BrokerAddress,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    team: Team,
    script: Script = _script,
    *,
    stored: dict[str, StoredItems] | None = None,
    beside: Callable[[], Coroutine[Any, Any, None]] = anyio.lowlevel.checkpoint,
) -> Record:
    """Run a job of ``team`` to its end and return its record; afterwards there is no model any more."""
    shutil.copy(BOX_TOOLS, base)
    toolkit = Toolkit(tuple(catalogue(team, base).values()), str(base))
    async with ScriptedServer(script) as server, anyio.create_task_group() as group:
        with monkeypatch.context() as patch:
            patch.setenv("INTERLOCK_MODEL_URL", server.url)
            patch.setenv("INTERLOCK_MODEL", "m")
            await submit(bus, Tracing(), team, "go", {}, "j1", toolkit=toolkit, stored=stored)
            group.start_soon(_answer, bus, "j1")
            group.start_soon(beside)
            async with serving(bus, broker, team, toolkit), aclosing(watch(bus, "j1")) as news:
                with anyio.fail_after(60):
                    async for _ in news:
                        pass
            group.cancel_scope.cancel()
    return await read_record(Source("j1", bus))


async def test_rerun_gives_the_same_report(
    bus: Bus, broker: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redo, judge, handover, a failed item, effects and a question come out the same, without a model or an effect."""
    record = await _recorded(bus, broker, tmp_path, monkeypatch, _WHOLE)
    (tmp_path / "outside.log").rename(tmp_path / "then.log")
    report = await rerun(record)
    assert [str(one) for one in report.departures] == []
    assert [str(one) for one in report.taken] == []
    assert report.same
    kinds = [entry.message.kind for entry in record.entries]
    assert {"question.asked", "effect.done", "task.verdict", "job.closed"} <= set(kinds)
    assert report.answered == sum(
        len(one.message.exchanges) for one in record.entries if isinstance(one.message, TaskResult | TaskVerdict)
    )
    assert report.answered > 15
    assert not (tmp_path / "outside.log").exists()
    json.dumps(report.as_json())


async def test_another_prompt_is_named(
    bus: Bus, broker: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the code asks for something else than then, the rerun says in which call and shows the new words."""
    record = await _recorded(bus, broker, tmp_path, monkeypatch, _team(*_plan("wordy")))

    def other(assignment: TaskAssigned, agent: Agent, form: Form, *, tools: bool = False) -> tuple[ChatMessage, ...]:
        system, *rest = work_messages(assignment, agent, form, tools=tools)
        return (ChatMessage("system", f"Be nice. {system.content}"), *rest)

    monkeypatch.setattr(worker, "work_messages", other)
    report = await rerun(record)
    assert not report.same
    told = [str(one) for one in report.departures]
    results = [one.seq for one in record.entries if isinstance(one.message, TaskResult)]
    assert len(told) == len(results) == 2
    for line, seq, attempt in zip(told, results, (1, 2), strict=True):
        assert line.startswith(f"entry {seq}, read:0, attempt {attempt}, call 1 of the model: message 1 (system)")
        assert "Be nice." in line
        assert "message 2" not in line


def _plan(*items: str) -> list[dict[str, Any]]:
    return [{"step": "read", "for_each": list(items), "agent": "w", "tools": [], "do": "{{ item }}", "verify": _SHORT}]


async def test_another_decision_ends_the_rerun(
    bus: Bus, broker: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the check says something else, the verdict departs, and so does what the manager makes of it."""
    record = await _recorded(bus, broker, tmp_path, monkeypatch, _team(*_plan("plain")))
    entries = [_stricter(entry) for entry in record.entries]
    report = await rerun(Record(entries, record.body))
    told = [str(one) for one in report.departures]
    assert any(re.search(r"read:0, attempt 1, task.verdict: verdict was .*pass.* is .*fail", line) for line in told)
    assert "the manager does task.assigned of read:0, attempt 2 instead; the rerun ends here" in told[-1]


def _stricter(entry: Entry) -> Entry:
    """Return an entry of a job whose team allows one word only, and whose record says otherwise."""
    text = entry.message.model_dump_json(by_alias=True).replace('"max":4', '"max":1')
    return Entry(entry.seq, type(entry.message).model_validate_json(text), entry.origin)


async def test_a_killed_job_is_run_again(
    bus: Bus, broker: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill comes where it came, and an attempt that never ended stays so."""
    team = _team(*_plan("plain", "later", "never"), limits={"parallel": 1})
    asked = anyio.Event()

    def script(call: Call) -> Reply | str:
        if "later" in call.conversation:
            asked.set()
            return Answer("late", delay=30)
        return "short"

    async def kill() -> None:
        await asked.wait()
        await close_killed(bus, Tracing(), "j1", "killed: enough")

    record = await _recorded(bus, broker, tmp_path, monkeypatch, team, script, beside=kill)
    closed = record.entries[-1].message
    report = await rerun(record)
    assert isinstance(closed, JobClosed)
    assert (closed.status, closed.reason) == ("killed", "killed: enough")
    assert ([str(one) for one in report.departures], report.same) == ([], True)
    assert [str(one) for one in report.taken] == []


async def test_what_cannot_be_made_anew_is_taken_as_recorded(
    bus: Bus, broker: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model's failure is an answer; an attempt out of time is taken over; a command is not run a second time."""
    marks = tmp_path / "marks"
    command = ["sh", "-c", f"cat >/dev/null; echo ran >> {marks}"]
    plan = _plan("broken", "slow", "plain")
    plan[0] |= {
        "timeout": 1.0,
        "attempts": 1,
        "verify": {"criteria": [{"check": "words", "max": 4}, {"command": command}]},
    }

    def script(call: Call) -> Reply | str:
        if "broken" in call.conversation:
            return Fail(400)
        return Hang() if "slow" in call.conversation else "short"

    record = await _recorded(bus, broker, tmp_path, monkeypatch, _team(*plan), script)
    assert marks.read_text() == "ran\n"
    report = await rerun(record)
    assert ([str(one) for one in report.departures], report.same) == ([], True)
    (taken,) = report.taken
    assert str(taken).endswith("read:1, attempt 1: it ran out of time")
    assert marks.read_text() == "ran\n"
    broken = next(one.message for one in record.entries if one.message.task == "read:0" and _is_result(one))
    assert isinstance(broken, TaskResult)
    assert [list(one.reply) for one in broken.exchanges if isinstance(one.reply, dict)] == [["error"]]


def _is_result(entry: Entry) -> bool:
    return isinstance(entry.message, TaskResult)


@pytest.mark.parametrize(
    ("budget", "why"), [({"calls": 5}, "out of budget"), ({"seconds": 2.0}, "out of time")], ids=["calls", "seconds"]
)
async def test_a_bound_stops_the_rerun_where_it_stopped_the_job(
    bus: Bus, broker: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: dict[str, Any], why: str
) -> None:
    """Results race for a budget, and time passes: the rerun has the same winners and the time of then."""

    def script(call: Call) -> Reply | str:
        return Hang() if "late" in call.conversation else "short"

    items = ["plain"] * 8 if "calls" in budget else ["plain", "late", "plain"]
    team = _team(*_plan(*items), limits={"parallel": 4}, budget=budget)
    record = await _recorded(bus, broker, tmp_path, monkeypatch, team, script)
    closed = record.entries[-1].message
    assert isinstance(closed, JobClosed)
    assert why in closed.reason
    report = await rerun(record)
    assert ([str(one) for one in report.departures], report.same) == ([], True)


async def test_a_decision_that_crossed_a_result_is_run_again(
    bus: Bus, broker: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manager that assigns before it sees that the budget ran out does so in the rerun, too."""
    team = _team(*_plan(*["plain"] * 8), limits={"parallel": 4}, budget={"calls": 5})
    record = await _recorded(bus, broker, tmp_path, monkeypatch, team, lambda _: "short")
    entries = list(record.entries)
    spent = next(at for at, one in enumerate(entries) if isinstance(one.message, TaskResult) and one.message.spent)
    last = max(at for at, one in enumerate(entries[:spent]) if isinstance(one.message, TaskAssigned))
    assert not any(one.message.task == entries[last].message.task for one in entries[last + 1 : spent + 1])
    entries.insert(spent, entries.pop(last))
    assert isinstance(entries[spent - 1].message, TaskResult)
    assert isinstance(entries[spent].message, TaskAssigned)
    report = await rerun(replace(record, entries=tuple(entries)))
    assert ([str(one) for one in report.departures], report.same) == ([], True)


async def test_a_retry_is_run_again(
    bus: Bus, broker: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an operator put back after the end goes the same way: the failure, the retry, the success."""
    mended = False

    def script(call: Call) -> str:
        return "short" if mended or "plain" in call.conversation else f"too many words for it {len(call.conversation)}"

    team = _team(*_plan("plain", "wordy"))
    record = await _recorded(bus, broker, tmp_path, monkeypatch, team, script)
    mended, closed = True, record.entries[-1]
    common: dict[str, Any] = {"id": uuid.uuid4().hex, "ns": bus.ns, "job": "j1", "at": datetime.now(UTC)}
    await bus.append(JobRetried(**common, answers=closed.seq, tasks=("read:1",), reason="mended"))
    record = await _recorded(bus, broker, tmp_path, monkeypatch, team, script)
    ends = [one.message.status for one in record.entries if isinstance(one.message, JobClosed)]
    assert ends == ["partial", "succeeded"]
    report = await rerun(record)
    assert ([str(one) for one in report.departures], report.same) == ([], True)


async def test_stored_items_are_run_again_from_an_archive(
    bus: Bus, broker: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the log nor the model is needed: the archive has all, the items beside the log too."""
    team = _team(*_plan("plain", "wordy"))
    step = team.plan[0].model_copy(update={"for_each": "{{ inputs.rows }}"})
    team = team.model_copy(update={"plan": (step,), "inputs": {"rows": Input()}})
    stored = await ItemStore(bus).put(["plain", "wordy", "plain 3"])
    await _recorded(bus, broker, tmp_path, monkeypatch, team, stored={"rows": stored})
    archived = await archive(bus, "j1", tmp_path / "out")
    options = argparse.Namespace(job=str(archived.path), json=True, state=tmp_path / "none", nats=None)
    assert await anyio.to_thread.run_sync(rerun_command, options) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["same"], told["departures"], told["taken_as_recorded"]) == (True, [], [])
    assert told["answered"] == 4
    assert not (tmp_path / "none").exists()
    options.json = False
    monkeypatch.setattr(worker, "work_messages", lambda *_, **__: (ChatMessage("user", "Hm?"),))
    assert await anyio.to_thread.run_sync(rerun_command, options) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("j1: departs from the record (")
    assert len(lines) == 5
