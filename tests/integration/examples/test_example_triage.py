"""The triage example, run for real: redo, handover, a second step over some of the first's results, honest counts."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.examples.standins import FOLDER, answers_of, run, shown_but_missing, tasks_by_label

from interlock.testing import Call, ScriptedServer

TEAM = FOLDER / "triage" / "team.yaml"
TICKETS = ["T-101", "T-102", "T-103", "T-104", "T-105", "T-106"]


@pytest.fixture
def stand_in() -> Iterator[str]:
    """Start the stand-in as the README says, on a free port, and yield its URL."""
    script = f"{FOLDER / 'triage' / 'model.py'}:answer"
    command = [sys.executable, "-m", "interlock.testing", "--script", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGTERM)


async def test_it_runs_as_its_readme_says(tmp_path: Path, stand_in: str) -> None:
    """All is accepted: a ticket after a redo, one by the senior, replies to the urgent two; the README shows it."""
    done = await run(TEAM, stand_in, cwd=tmp_path)
    assert done.status == 0, done.err
    sorted_, replies = tasks_by_label(done, "classify"), tasks_by_label(done, "reply")
    assert list(sorted_) == TICKETS
    assert {label: (task["agent"], task["attempts"]) for label, task in sorted_.items()} == {
        **dict.fromkeys(TICKETS, ("clerk", 1)),
        "T-102": ("clerk", 2),
        "T-106": ("senior", 3),
    }
    assert [label for label, task in sorted_.items() if task["output"]["urgent"]] == list(replies) == ["T-101", "T-105"]
    assert sorted_["T-106"]["output"].keys() == {"topic", "urgent", "minutes", "orders", "why"}, "no reasoning in it"
    assert all(task["output"].startswith("Dear ") for task in replies.values())
    minutes = sum(task["output"]["minutes"] for task in sorted_.values())
    assert f"6 of 6 tickets sorted, {minutes} minutes of work.\n" in done.report["result"]
    assert "NO" not in done.report["result"]
    assert shown_but_missing("triage", done.err + done.report["result"]) == []


async def test_what_failed_is_counted_and_named(tmp_path: Path) -> None:
    """A ticket that nobody can sort and a reply that never fits: the rest stands, and the result names the two."""
    answer = answers_of("triage")

    def stubborn(call: Call) -> Any:
        if "green" in call.conversation:
            return {**answer(call), "topic": f"colours {call.number}"}
        return f"No {call.number}." if call.schema is None and "Yuki Tan" in call.conversation else answer(call)

    async with ScriptedServer(stubborn) as server:
        done = await run(TEAM, server.url, cwd=tmp_path)
        seniors = [call for call in server.calls if "You are the senior" in call.conversation]
    assert done.status == 3, done.err
    failed = [task for task in done.report["tasks"] if task["status"] != "accepted"]
    assert [(task["id"], task["label"], task["agent"], task["attempts"]) for task in failed] == [
        ("classify:3", "T-104", "senior", 3),
        ("reply:1", "T-105", "clerk", 2),
    ]
    assert ["Sam Whitlock" in call.conversation for call in seniors].count(True) == 1
    assert all("is none of" in call.conversation for call in seniors), "who takes over sees what was wrong before"
    lines = done.report["result"].splitlines()
    assert "5 of 6 tickets sorted" in done.report["result"]
    assert "1 of 2 urgent tickets have a reply." in lines
    assert [line.partition(":")[0] for line in lines if line.startswith("NO")] == ["NOT SORTED T-104", "NO REPLY T-105"]


async def test_one_s_own_tickets_with_a_mistake(tmp_path: Path) -> None:
    """A ticket without a customer fails with the name that is missing; with nothing urgent there is no reply."""
    tickets = [
        {"id": "X", "text": "Where is my parcel?"},
        {"id": "Y", "customer": "Ann", "text": "Where is my parcel?"},
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, tickets)))
    async with ScriptedServer(answers_of("triage")) as server:
        done = await run(TEAM, server.url, "--input", "tickets=mine.jsonl", cwd=tmp_path)
        assert len(server.calls) == 1
    assert done.status == 3, done.err
    assert [task["status"] for task in done.report["tasks"]] == ["failed", "accepted"]
    assert "there is no 'item.customer'; there are: id, text" in done.report["tasks"][0]["reason"]
    assert "0 of 0 urgent tickets have a reply." in done.report["result"]
