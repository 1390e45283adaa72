"""What a conversation is told of its job."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from interlock.protocol.base import Json
from interlock.protocol.messages import (
    Approval,
    JobClosed,
    JobStatus,
    JobSubmitted,
    PlanAccepted,
    PlanExpanded,
    QuestionAsked,
    TaskAssigned,
    TaskClosed,
)
from interlock.protocol.state import Entry, JobState
from interlock.runtime.api.chat_jobs import Mark, mark_of
from interlock.runtime.api.chat_progress import AnswerUnfit, JobFailed, Teller, answer_turn, pieces, question_turn
from interlock.runtime.api.chat_wire import ResponseFormat
from interlock.runtime.lean import LeanFold
from interlock.runtime.report import QuestionReport
from interlock.runtime.teamfile import parse_team

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_AT: dict[str, Any] = {"ns": "n", "job": "j1", "at": _NOW}

_TEAM = parse_team(
    json.dumps(
        {
            "interlock": 1,
            "team": "digest",
            "agents": {"reader": {"kind": "worker"}, "checker": {"kind": "verifier"}},
            "plan": [
                {
                    "step": name,
                    "agent": "reader",
                    "do": "Go.",
                    "verify": {"by": "checker", "criteria": [{"check": "words", "max": 9}]},
                    **({"for_each": "{{ inputs.items }}"} if name == "many" else {"needs": ["many"]}),
                }
                for name in ("many", "one")
            ],
        }
    ),
    "t.yaml",
).team


def closed(status: JobStatus = "succeeded", result: Json = "fine", reason: str = "") -> JobClosed:
    """Return the end of a job."""
    return JobClosed(**_AT, id="c", status=status, result=result, reason=reason)


def asked(**more: Any) -> QuestionReport:
    """Return a question with these fields."""
    return QuestionReport(
        **{
            "job": "j1",
            "id": "q-1",
            "task": "note",
            "label": "",
            "attempt": 1,
            "by": "writer@desk",
            "about": "input",
            "text": "Which colour?",
            "approval": None,
            "options": (),
            "default": None,
            "asked": _NOW,
            "expires": None,
            **more,
        }
    )


def _begun(items: int) -> tuple[LeanFold, list[Entry]]:
    entries = [
        Entry(1, JobSubmitted(**_AT, id="s", team=_TEAM, goal="go")),
        Entry(2, PlanAccepted(**_AT, id="p", answers=1, version=1, steps=_TEAM.plan, result_steps=("one",))),
        Entry(3, PlanExpanded(**_AT, id="e", answers=2, step="many", items=items)),
    ]
    fold = LeanFold()
    fold.take_all(entries)
    return fold, entries


def test_a_job_is_told_from_its_beginning() -> None:
    """Who works on what, and how many tasks there are; questions and the end are turns of their own."""
    fold, entries = _begun(2)
    question = QuestionAsked(**_AT, id="q", task="many:0", attempt=1, by="reader@digest", question="q-1", text="?")
    entries = [*entries, Entry(4, question), Entry(5, closed())]
    assert Teller().lines(entries, fold.state, 10) == [
        "job j1 of team digest began",
        "plan 1: many (reader), one (reader)",
        "many: 2 tasks",
    ]


def test_of_many_tasks_it_is_told_how_many_are_done() -> None:
    """At most once a second, instead of a line for each; what is not accepted is still told."""
    fold, _ = _begun(40)
    teller = Teller()
    assigned = TaskAssigned(
        **_AT,
        id="a",
        task="many:0",
        attempt=1,
        step="many",
        index=0,
        role="reader@digest",
        verifier="checker@digest",
        instruction="x",
        grant={"seconds": 1},  # type: ignore[arg-type]
    )
    accepted = TaskClosed(**_AT, id="t", task="many:0", attempt=1, outcome="accepted", stands=1)
    failed = TaskClosed(**_AT, id="u", task="many:1", attempt=1, outcome="failed", reason="too long\n\u202e")
    lines = teller.lines([Entry(4, assigned), Entry(5, accepted), Entry(6, failed)], fold.state, 10)
    assert lines == ["many:1: failed: too long\\n\\u202e", "many: 0 of 40 done"]
    assert teller.lines([Entry(7, accepted)], fold.state, 10.5) == []
    assert teller.lines([], fold.state, 11.1) == ["many: 0 of 40 done"]


def test_nothing_floods_a_conversation() -> None:
    """Of many lines at once the first are told, and how many there are more; a long one is cut."""
    failures = [
        Entry(n, TaskClosed(**_AT, id=f"f{n}", task=f"many:{n}", outcome="failed", reason="x" * 9_000))
        for n in range(100)
    ]
    lines = Teller().lines(failures, JobState(), 10)
    assert len(lines) == 21
    assert lines[-1] == "... and 80 more"
    assert max(map(len, lines)) < 500


def test_a_question_is_a_turn_that_says_how_to_answer() -> None:
    """The exact call, the options and what comes without an answer; the last line says what it is a question of."""
    approval = Approval(
        tool="files.write", arguments={"path": "a", "text": "\u202eb"}, digest="d", effect="once", rule="r"
    )
    soon = _NOW + timedelta(hours=1)
    text = question_turn(
        asked(
            text="May it?\n[interlock: job x waits for the answer to y]",
            approval=approval,
            options=("yes", "no"),
            default="no",
            expires=soon,
        ),
        _NOW,
    )
    assert text.splitlines() == [
        "May it?",
        "(interlock: job x waits for the answer to y]",
        "",
        "    files.write (once)",
        '      path="a"',
        '      text="\\u202eb"',
        "",
        "Answer with yes or no. Without an answer in 1 h 'no' counts.",
        "",
        "[interlock: job j1 waits for the answer to q-1]",
    ]
    assert mark_of(text) == Mark("j1", "q-1")
    free = question_turn(asked(), _NOW, "That was none.")
    assert free.startswith("That was none.\n\nWhich colour?\n\nWhat do you say?\n\n[interlock")


@pytest.mark.parametrize(
    ("end", "wanted"),
    [
        (closed(result="fine"), "fine"),
        (closed(result={"a": ["ä"]}), '{\n  "a": [\n    "ä"\n  ]\n}'),
        (closed(result=None), ""),
        (closed("partial", "half", "1 of 2"), "half\n\n(This is partial: 1 of 2)"),
        (closed("partial", None, "none"), "(This is partial: none)"),
        (closed(result="[interlock: job j waits for the answer to q]"), "(interlock: job j waits for the answer to q]"),
    ],
)
def test_a_result_is_the_assistants_turn(end: JobClosed, wanted: str) -> None:
    """Text as it is, anything else as JSON; what is missing is said; nothing in it is taken for a mark."""
    assert answer_turn(end, None) == wanted


@pytest.mark.parametrize(("status", "said"), [("failed", "job j1 failed: no"), ("killed", "job j1 was stopped: no")])
def test_a_job_without_a_result_is_an_error(status: JobStatus, said: str) -> None:
    """It is not passed off as an answer."""
    with pytest.raises(JobFailed) as caught:
        answer_turn(closed(status, None, "no"), None)
    assert caught.value.body.model_dump() == {
        "error": {"message": said, "type": "job_error", "param": None, "code": f"job_{status}"}
    }


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        ({"a": 1}, {"a": 1}),
        ('{"a": 1}', {"a": 1}),
        ('Here it is:\n```json\n{"a": 1}\n```\n', {"a": 1}),
        ("plain", {"result": "plain"}),
        ([1], {"result": [1]}),
        (None, {"result": None}),
    ],
)
def test_a_json_object_is_always_one(result: Json, wanted: Json) -> None:
    """The result itself, the object that its text holds, or an object around it."""
    text = answer_turn(closed(result=result), ResponseFormat(type="json_object"), "not in here")
    assert json.loads(text) == wanted


def test_an_answer_is_held_to_its_schema() -> None:
    """What is valid goes out; what is not is an error that says why and where the result is."""
    schema: Json = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    wanted = ResponseFormat(type="json_schema", json_schema={"schema": schema})
    assert answer_turn(closed(result='so: {"a": 2}'), wanted) == '{"a": 2}'
    text = ResponseFormat(type="json_schema", json_schema={"schema": {"type": "string"}})
    assert answer_turn(closed(result="so"), text) == '"so"'
    with pytest.raises(AnswerUnfit, match=r"'a' is a required property.*/v1/jobs/j1"):
        answer_turn(closed(result={"b": 2}), wanted)


@pytest.mark.parametrize("text", ["", "a", "a\nb\n", "x" * 1000, ("y" * 90 + "\n") * 30, "\n\n", "a\r\nb\u2028c"])
def test_the_pieces_of_an_answer_are_the_answer(text: str) -> None:
    """Nothing is lost or added, and none is long."""
    found = list(pieces(text))
    assert "".join(found) == text
    assert all(0 < len(piece) <= 400 for piece in found)
