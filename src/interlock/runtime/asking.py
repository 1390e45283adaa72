"""Questions in words: what a person is asked, with which exact call, until when, and what to type."""

import json
from collections.abc import Iterator
from datetime import datetime

from interlock.protocol.base import Json
from interlock.protocol.messages import JOB_TASK, Approval
from interlock.runtime.report import QuestionReport

__all__ = [
    "call_in_words",
    "deadline_in_words",
    "plainly",
    "question_in_words",
    "span_in_words",
    "to_answer",
    "waiting_line",
]

_SHORT = 160
"""Characters of a call that a single line shows."""

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def to_answer(question: QuestionReport) -> str:
    """Return what to type to answer."""
    answers = "|".join((*question.options, "TEXT") if question.about == "plan" else question.options) or "TEXT"
    return f"interlock answer {question.job} {question.id} {answers}"


def waiting_line(question: QuestionReport) -> str:
    """Return the question as one line: what is asked and how to answer it. What is long is cut."""
    call = call_in_words(question.approval) if question.approval else ""
    text = "; ".join(question.text.split("\n"))
    shown = call if len(call) <= _SHORT else f"{call[:_SHORT]}..."
    return plainly(" ".join(filter(None, [text, shown, f"waits for your answer: {to_answer(question)}"])))


def question_in_words(question: QuestionReport) -> Iterator[str]:
    """Yield the lines of a question, its call in full, every argument exactly as the tool would get it."""
    named = f"{question.task} {question.label}" if question.label else question.task
    whose = (
        f"the manager, {question.by}"
        if question.task == JOB_TASK
        else f"{named}, attempt {question.attempt} by {question.by}"
    )
    yield plainly(f"{question.id}  {whose}, job {question.job}")
    yield from (plainly(f"  {line}") for line in question.text.split("\n"))
    if question.approval is not None:
        yield f"  {question.approval.tool} ({question.approval.effect})"
        yield from (f"    {line}" for line in _arguments(question.approval.arguments))


def call_in_words(approval: Approval) -> str:
    """Return a call as one line: the tool and its arguments."""
    return plainly(f"{approval.tool}({', '.join(_arguments(approval.arguments))})")


def plainly(text: str) -> str:
    """Return ``text`` with every character written out that would be invisible, or would change what is seen."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def span_in_words(seconds: float) -> str:
    """Return a span of time in its two largest units, such as ``59 min 48 s``."""
    rest = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def _arguments(arguments: Json) -> list[str]:
    if not isinstance(arguments, dict):
        return [_exactly(arguments)]
    return [f"{plainly(name)}={_exactly(value)}" for name, value in arguments.items()]


def _exactly(value: Json) -> str:
    return plainly(json.dumps(value, ensure_ascii=False))


def deadline_in_words(question: QuestionReport, now: datetime) -> str:
    """Return how long a question has been open and what comes when nobody answers it."""
    asked = f"asked {span_in_words((now - question.asked).total_seconds())} ago"
    if question.expires is None:
        return f"{asked}; it waits as long as the job does"
    left = span_in_words((question.expires - now).total_seconds())
    return f"{asked}; without an answer in {left} {_default(question)}"


def _default(question: QuestionReport) -> str:
    if question.about == "doubt" and question.default is None:
        return "it stays in doubt"
    return f"{plainly(question.default or 'no')!r} counts"
