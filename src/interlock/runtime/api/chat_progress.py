"""What a conversation is told: how its job goes, what it asks, and what came of it. Pure: the time is an argument."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from interlock.agents.answers import NotJson, embedded_json, parse_json
from interlock.agents.checks.schema import check_schema
from interlock.protocol.base import Json
from interlock.protocol.messages import (
    JobClosed,
    JobSubmitted,
    PlanAccepted,
    PlanExpanded,
    PlanRejected,
    QuestionAsked,
    TaskAssigned,
    TaskClosed,
)
from interlock.protocol.state import Entry, JobState, StepState
from interlock.runtime.api.chat_jobs import Mark, marked, schema_of, without_marks
from interlock.runtime.api.chat_wire import ChatError, ResponseFormat
from interlock.runtime.asking import deadline_in_words, plainly, question_in_words
from interlock.runtime.report import QuestionReport
from interlock.runtime.view import describe

__all__ = ["AnswerUnfit", "JobFailed", "Teller", "answer_turn", "pieces", "question_turn"]

_SUMMARY_EVERY = 1.0
"""Seconds between two lines on how far the steps are."""

_LINES = 20
"""The most lines that are told at once."""

_LONG = 400
"""Characters of a line, at most."""

_MANY = 8
"""Tasks of a step up to which each is told of."""

_PIECE = 400
"""Characters of an answer that go out at once, about."""


class JobFailed(ChatError):
    """The job ended without a result."""

    def __init__(self, closed: JobClosed, why: Sequence[str] = ()) -> None:
        self.status_of_job = closed.status
        told = "; ".join(_short(one) for one in (closed.reason, *why) if one)
        reasons = f": {told}" if told else ""
        did = "was stopped" if closed.status == "killed" else "failed"
        super().__init__(
            422, f"job {closed.job} {did}{reasons}", kind="job_error", code=f"job_{closed.status}", param=None
        )


class AnswerUnfit(ChatError):
    """The job has a result, but not one of the form that was asked for."""

    def __init__(self, job: str, problem: str) -> None:
        where = f"GET /v1/jobs/{job} has it as it is"
        super().__init__(
            422,
            f"job {job} has a result, but not in the form that is wanted: {problem}; {where}",
            kind="job_error",
            code="response_format_mismatch",
            param="response_format",
        )


class Teller:
    """Tells how a job goes, a line for what is worth one. Questions and the end are turns of their own."""

    def __init__(self) -> None:
        self._summarised = 0.0

    def lines(self, entries: Iterable[Entry], state: JobState, now: float) -> list[str]:
        """Return the lines that ``entries`` are worth, ``state`` being what they led to; ``now`` in seconds."""
        told = [_short(line) for entry in entries if (line := _line(entry, state))]
        if len(told) > _LINES:
            told = [*told[:_LINES], f"... and {len(told) - _LINES} more"]
        many = [step for name in state.order if (step := state.steps[name]).size is not None and step.size > _MANY]
        if many and not state.closed and now - self._summarised >= _SUMMARY_EVERY:
            self._summarised = now
            told.append("; ".join(map(_how_far, many)))
        return told


def _short(line: str) -> str:
    shown = without_marks(plainly(line))
    return shown if len(shown) <= _LONG else f"{shown[:_LONG]} ..."


def _line(entry: Entry, state: JobState) -> str:
    message = entry.message
    match message:
        case JobSubmitted():
            return f"job {message.job} of team {message.team.team} began"
        case PlanAccepted():
            steps = ", ".join(f"{step.step} ({step.agent})" for step in message.steps)
            return f"plan {message.version}: {steps}"
        case TaskAssigned() if message.attempt == 1 and not message.resumes:
            return (
                "" if _is_one_of_many(state, message.task) else f"{message.task}: {message.role.split('@')[0]} begins"
            )
        case TaskClosed() if message.outcome == "accepted" and _is_one_of_many(state, message.task):
            return ""
        case QuestionAsked() | JobClosed():
            return ""
        case PlanExpanded() | PlanRejected() | _:
            return describe(entry, state)


def _is_one_of_many(state: JobState, task: str) -> bool:
    step = state.steps.get(task.partition(":")[0])
    return step is not None and (step.size or 0) > _MANY


def _how_far(step: StepState) -> str:
    more = f", {step.failed} failed" if step.failed else ""
    return f"{step.spec.step}: {step.accepted} of {step.size} done{more}"


def question_turn(question: QuestionReport, now: datetime, before: str = "") -> str:
    """Return the assistant's turn that asks a person, after the sentence ``before``."""
    asked = question.text.split("\n")
    parts = [before, "\n".join(map(plainly, asked)).strip()]
    if question.approval is not None:
        call = list(question_in_words(question))[1 + len(asked) :]  # after whose it is and what is asked
        parts.append("\n".join(f"    {line.removeprefix('  ')}" for line in call))
    parts.append(_how_to_answer(question, now))
    return marked("\n\n".join(filter(None, parts)), Mark(question.job, question.id))


def _how_to_answer(question: QuestionReport, now: datetime) -> str:
    how = f"Answer with {_listed(question.options)}." if question.options else "What do you say?"
    if question.expires is None:
        return how
    left = deadline_in_words(question, now).partition("; ")[2]
    return f"{how} {left[:1].upper()}{left[1:]}."


def _listed(options: Sequence[str]) -> str:
    shown = [plainly(one) for one in options]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"


def answer_turn(closed: JobClosed, wanted: ResponseFormat | None, before: str = "", why: Sequence[str] = ()) -> str:
    """Return the assistant's turn that a job ended with, after the sentence ``before`` where it is text.

    ``why`` says more of what went wrong, where it has no result.

    :raises JobFailed: it ended without a result
    :raises AnswerUnfit: its result has not the form that is wanted
    """
    if closed.status in {"failed", "killed"}:
        raise JobFailed(closed, why)
    if wanted is not None and wanted.type != "text":
        return json.dumps(_in_form(closed, wanted), ensure_ascii=False)
    text = closed.result if isinstance(closed.result, str) else _as_text(closed.result)
    note = f"(This is partial: {closed.reason})" if closed.status == "partial" else ""
    return without_marks("\n\n".join(filter(None, [before, text, note])))


def _as_text(result: Json) -> str:
    return "" if result is None else json.dumps(result, ensure_ascii=False, indent=2)


def _in_form(closed: JobClosed, wanted: ResponseFormat) -> Json:
    """Return the result as JSON of the form that is wanted: itself, or what its text holds."""
    schema = schema_of(wanted)
    found = list(_readings(closed.result))
    if schema is None:
        return next((one for one in found if isinstance(one, dict)), {"result": closed.result})
    findings = [(one, check_schema(schema, one)) for one in found]
    for one, finding in findings:
        if finding.holds:
            return one
    raise AnswerUnfit(closed.job, findings[0][1].evidence)


def _readings(result: Json) -> Iterator[Json]:
    """Yield a result, and what its text reads as where it is one."""
    if isinstance(result, str):
        try:
            yield parse_json(result)
        except NotJson:
            yield from embedded_json(result)
    yield result


def pieces(text: str) -> Iterator[str]:
    """Yield ``text`` in the pieces that a stream brings it in: whole lines, and long lines in parts."""
    piece = ""
    for line in text.splitlines(keepends=True):
        if piece and len(piece) + len(line) > _PIECE:
            yield piece
            piece = ""
        piece += line
        while len(piece) > _PIECE:
            yield piece[:_PIECE]
            piece = piece[_PIECE:]
    if piece:
        yield piece
