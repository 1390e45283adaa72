"""What a person sees of a running job: a live table in a terminal, plain lines elsewhere. Always on standard error."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TextIO

from interlock.observability.logging import configure_logging
from interlock.protocol.messages import (
    JOB_TASK,
    EffectInDoubt,
    JobClosed,
    JobRetried,
    JobSubmitted,
    PlanAccepted,
    PlanExpanded,
    PlanProposed,
    PlanRejected,
    QuestionAnswered,
    QuestionAsked,
    TaskAssigned,
    TaskClosed,
    TaskVerdict,
)
from interlock.protocol.state import Entry, JobState, Phase, StepState
from interlock.runtime.asking import plainly, to_answer, waiting_line
from interlock.runtime.client import Progress
from interlock.runtime.report import question_report
from interlock.runtime.show import one_line, reader_may_leave

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["LiveView", "PlainView", "View", "describe", "open_view"]

_EVENTS_SHOWN = 8

_QUESTIONS_SHOWN = 4

_DRAWN_PER_SECOND = 4

_SUMMARY_EVERY = 1.0
"""Seconds between two progress lines of the plain view."""


class View(Protocol):
    """Something that shows how a job goes."""

    def show(self, progress: Progress) -> None:
        """Take in the news."""

    def say(self, text: str) -> None:
        """Tell the person something that is not in the log, on a line of its own."""

    def wait(self, text: str) -> None:
        """Tell the person how far something is that is waited for; the next such line may take its place."""


class PlainView:
    """One line for everything worth one: what was refused and why, what ended, and how far the steps are."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._summarised = 0.0

    def show(self, progress: Progress) -> None:
        """Print a line for each entry that is worth one, and now and then how far the steps are."""
        for entry in progress.entries:
            if line := describe(entry, progress.state):
                self.say(line)
        now = time.monotonic()
        if progress.state.tasks and not progress.state.closed and now - self._summarised >= _SUMMARY_EVERY:
            self._summarised = now
            self.say("; ".join(_summary(progress.state.steps[name]) for name in progress.state.order))

    def say(self, text: str) -> None:
        """Print one line; once nobody reads them any more, the job goes on in silence."""
        with reader_may_leave(self._stream):
            print(one_line(text), file=self._stream, flush=True)

    def wait(self, text: str) -> None:
        """Print one line."""
        self.say(text)


class LiveView:
    """A table of the steps and the last events."""

    def __init__(self) -> None:
        self._state = JobState()
        self._events: tuple[str, ...] = ()
        self._waited = ""
        """The last line, where another one may take its place."""

    def show(self, progress: Progress) -> None:
        """Keep the state and what is worth telling for the next drawing."""
        lines = (describe(entry, progress.state) for entry in progress.entries)
        self._events = (*self._events, *filter(None, lines))[-_EVENTS_SHOWN:]
        self._state = progress.state

    def say(self, text: str) -> None:
        """Put a line among the events."""
        self._events = (*self._events, text)[-_EVENTS_SHOWN:]

    def wait(self, text: str) -> None:
        """Put a line among the events, in the place of the last one if that was of this kind."""
        if self._waited and self._events[-1:] == (self._waited,):
            self._events = self._events[:-1]
        self.say(text)
        self._waited = text

    def draw(self) -> "Table":
        """Return the table with the last events below. May be called from another thread."""
        from rich.table import Table  # noqa: PLC0415 -- only a terminal needs it
        from rich.text import Text  # noqa: PLC0415

        state, outer = self._state, Table.grid()
        table = Table(title=Text(_title(state)), title_justify="left")
        table.add_column("step")
        table.add_column("agent")
        for name in ("tasks", "waiting", "working", "asking", "checking", "accepted", "redone", "failed"):
            table.add_column(name, justify="right")
        doing = Counter((task.step, _DOING.get(task.phase, "checking")) for task in state.open_tasks())
        for name in state.order:
            table.add_row(*_row(state.steps[name], [doing[name, what] for what in ("working", "asking", "checking")]))
        outer.add_row(table)
        outer.add_row(Text("\n".join(_open_questions(state)), overflow="ellipsis", no_wrap=True, style="bold"))
        outer.add_row(Text("\n".join(map(one_line, self._events)), overflow="ellipsis", no_wrap=True))
        return outer


@contextmanager
def open_view(stream: TextIO | None = None) -> Iterator[View]:
    """Open the view that suits ``stream`` (by default standard error): live in a terminal, plain elsewhere.

    While the live view is open, logs appear above it.
    """
    shown_on: TextIO = stream or sys.stderr
    if not shown_on.isatty():
        yield PlainView(shown_on)
        return
    from rich.console import Console  # noqa: PLC0415 -- only a terminal needs it
    from rich.live import Live  # noqa: PLC0415

    view = LiveView()
    try:
        with Live(get_renderable=view.draw, console=Console(file=shown_on), refresh_per_second=_DRAWN_PER_SECOND):
            configure_logging("interlock")  # standard error is the view's now
            yield view
    finally:
        configure_logging("interlock")


def describe(entry: Entry, state: JobState) -> str:
    """Return the line that an entry is worth in the plain view; empty for most."""
    message = entry.message
    match message:
        case JobSubmitted():
            return f"job {message.job}: {message.goal or message.team.description or message.team.team}"
        case PlanExpanded():
            return f"{message.step}: {message.reason or _counted(message.items, 'task')}"
        case TaskAssigned() if message.attempt > 1:
            return f"{_name(state, message.task)}: attempt {message.attempt} by {message.role.partition('@')[0]}"
        case TaskVerdict() if message.verdict != "pass":
            objections = "; ".join(f"{c.criterion}: {c.evidence}" for c in message.criteria if c.holds is not True)
            return f"{_name(state, message.task)}: attempt {message.attempt} {message.verdict}: {objections}"
        case TaskClosed() if message.outcome != "accepted":
            return f"{_name(state, message.task)}: {message.outcome}: {message.reason}"
        case TaskClosed():
            attempts = len(state.tasks[message.task].attempts) if message.task in state.tasks else message.attempt
            return f"{_name(state, message.task)}: accepted" + (f" after {attempts} attempts" if attempts > 1 else "")
        case JobClosed():
            return f"job {message.job}: {message.status}" + (f": {message.reason}" if message.reason else "")
        case _:
            return _describe_waiting(entry, state)


def _describe_waiting(entry: Entry, state: JobState) -> str:
    """Return the line of what stops a job or makes it wait, and of what nobody knows."""
    message = entry.message
    match message:
        case PlanProposed() | PlanAccepted() | PlanRejected():
            return _describe_plan(message, state)
        case JobRetried():
            told = f": {message.reason}" if message.reason else ""
            return f"job {message.job}: put back {_counted(len(message.tasks), 'task')}{told}"
        case TaskAssigned() if message.resumes:
            return f"{_name(state, message.task)}: attempt {message.attempt} goes on"
        case QuestionAsked():
            return f"{_name(state, message.task)}: {waiting_line(question_report(message, ''))}"
        case QuestionAnswered():
            told = "nobody answered in time, which counts as" if message.by_default else "the answer is"
            return f"{_name(state, message.task)}: {told} {message.answer}"
        case EffectInDoubt():
            effect = state.effects.get(message.key)
            return f"{_name(state, message.task)}: {effect.tool if effect else 'an effect'} in doubt: {message.reason}"
        case _:
            return ""


def _describe_plan(message: PlanProposed | PlanAccepted | PlanRejected, state: JobState) -> str:
    """Return the line of what becomes of a plan that the manager makes; one that is in the team file needs none."""
    match message:
        case PlanProposed(makes="plan", unreadable=""):
            return f"the manager proposes {_counted(len(message.steps), 'step')}"
        case PlanRejected():
            reasons = "; ".join(message.reasons)
            made = state.rejected is None or state.rejected.id != message.id
            return f"the proposal is rejected: {reasons}" if made else f"the plan is rejected: {reasons}"
        case PlanAccepted() if state.proposals:
            why = next((one.why for one in state.plans if one.version == message.version), "")
            steps = ", ".join(step.step for step in message.steps)
            return f"version {message.version} of the plan: {steps}" + (f": {why}" if why else "")
        case _:
            return ""


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _name(state: JobState, task: str) -> str:
    if task == JOB_TASK:
        return "the manager"
    known = state.tasks.get(task)
    return f"{task} {known.label}" if known and known.label else task


def _title(state: JobState) -> str:
    submitted, closed = state.submitted, state.closed
    if submitted is None:
        return ""
    seconds = ((closed.at if closed else datetime.now(UTC)) - submitted.at).total_seconds()
    tokens = state.usage.prompt_tokens + state.usage.completion_tokens
    status = closed.status if closed else "running"
    return f"{submitted.job}  {status}  {seconds:.0f} s, {state.usage.calls} calls, {tokens} tokens"


_DOING = {Phase.ASSIGNED: "working", Phase.ANSWERED: "working", Phase.ASKED: "asking"}


def _open_questions(state: JobState) -> Iterator[str]:
    """Yield how to answer what is open, and what it is, oldest first."""
    questions = (state.question, *(state.tasks[name].question for name in state.asking))
    asked = sorted((one.asked for one in questions if one and one.answer is None), key=lambda one: one.at)
    for one in asked[:_QUESTIONS_SHOWN]:
        yield plainly(f"{to_answer(question_report(one, ''))}   {_name(state, one.task)}: {one.text}")
    if len(asked) > _QUESTIONS_SHOWN:
        yield f"and {len(asked) - _QUESTIONS_SHOWN} more questions: interlock questions"


def _row(step: StepState, doing: Sequence[int]) -> tuple[str, ...]:
    size = step.size
    waiting = "?" if size is None else str(size - step.closed - step.open)
    counts = (*doing, step.accepted, step.redone, step.failed + step.cancelled)
    return (
        step.spec.step,
        step.spec.agent,
        "?" if size is None else str(size),
        waiting,
        *(str(count or "") for count in counts),
    )


def _summary(step: StepState) -> str:
    size = "?" if step.size is None else str(step.size)
    more = [
        f"{count} {word}"
        for count, word in ((step.open, "open"), (step.redone, "redone"), (step.failed, "failed"))
        if count
    ]
    return f"{step.spec.step} {step.accepted}/{size}" + (f" ({', '.join(more)})" if more else "")
