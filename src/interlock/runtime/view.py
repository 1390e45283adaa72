"""What a person sees of a running job: a live table in a terminal, plain lines elsewhere. Always on standard error."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from interlock.protocol.machine import Entry, JobState, Phase, StepState, TaskState
from interlock.protocol.messages import JobClosed, JobSubmitted, PlanExpanded, TaskAssigned, TaskClosed, TaskVerdict
from interlock.runtime.client import Progress

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["LiveView", "PlainView", "Redraw", "View", "describe", "draw", "open_view"]

_EVENTS_SHOWN = 8
_REFRESH = 0.1
"""Seconds between two drawings of the live table."""

_SUMMARY_EVERY = 1.0
"""Seconds between two progress lines of the plain view."""


class View(Protocol):
    """Something that shows how a job goes."""

    def show(self, progress: Progress) -> None:
        """Take in the news."""

    def say(self, text: str) -> None:
        """Tell the person something that is not in the log, on a line of its own."""


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
        """Print one line."""
        print(text, file=self._stream, flush=True)


class LiveView:
    """A table of the steps and the last events, redrawn in place."""

    def __init__(self, redraw: "Redraw") -> None:
        self._redraw = redraw
        self._events: list[str] = []
        self._drawn = 0.0

    def show(self, progress: Progress) -> None:
        """Keep what is worth telling and redraw the table, ten times a second at most."""
        lines = (describe(entry, progress.state) for entry in progress.entries)
        self._events = [*self._events, *filter(None, lines)][-_EVENTS_SHOWN:]
        now = time.monotonic()
        if progress.state.closed is None and now - self._drawn < _REFRESH:
            return
        self._drawn = now
        self._redraw(progress.state, self._events)

    def say(self, text: str) -> None:
        """Put a line among the events; it is drawn with the next news."""
        self._events = [*self._events, text][-_EVENTS_SHOWN:]


class Redraw(Protocol):
    """Draws a state and the last events."""

    def __call__(self, state: JobState, events: list[str], /) -> None: ...


@contextmanager
def open_view(stream: TextIO = sys.stderr) -> Iterator[View]:
    """Open the view that suits ``stream``: live in a terminal, plain elsewhere."""
    if not stream.isatty():
        yield PlainView(stream)
        return
    from rich.console import Console  # noqa: PLC0415 -- only a terminal needs it
    from rich.live import Live  # noqa: PLC0415

    with Live(console=Console(file=stream), auto_refresh=False) as live:

        def redraw(state: JobState, events: list[str]) -> None:
            live.update(draw(state, events), refresh=True)

        yield LiveView(redraw)


def draw(state: JobState, events: list[str]) -> "Table":
    """Return the table of the steps with the last events below."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    outer = Table.grid()
    table = Table(title=_title(state), title_justify="left")
    table.add_column("step")
    table.add_column("agent")
    for name in ("tasks", "waiting", "working", "checking", "accepted", "redone", "failed"):
        table.add_column(name, justify="right")
    for name in state.order:
        table.add_row(*_row(state, state.steps[name]))
    outer.add_row(table)
    outer.add_row(Text("\n".join(events), overflow="ellipsis", no_wrap=True))
    return outer


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
            return ""


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _name(state: JobState, task: str) -> str:
    known = state.tasks.get(task)
    return f"{task} {known.label}" if known and known.label else task


def _title(state: JobState) -> str:
    submitted = state.submitted
    if submitted is None:
        return ""
    tokens = state.usage.prompt_tokens + state.usage.completion_tokens
    status = state.closed.status if state.closed else "running"
    return f"{submitted.job}  {status}  {state.usage.calls} calls, {tokens} tokens"


def _row(state: JobState, step: StepState) -> tuple[str, ...]:
    working, checking = _phases(state, step)
    size = step.size
    waiting = "?" if size is None else str(size - step.closed - step.open)
    counts = (working, checking, step.accepted, step.redone, step.failed + step.cancelled)
    return (
        step.spec.step,
        step.spec.agent,
        "?" if size is None else str(size),
        waiting,
        *(str(count or "") for count in counts),
    )


def _phases(state: JobState, step: StepState) -> tuple[int, int]:
    """Return how many tasks of ``step`` are being worked on and how many are being checked."""
    if not step.open:
        return 0, 0
    tasks: list[TaskState] = [task for task in state.open_tasks() if task.step == step.spec.step]
    working = sum(task.phase is Phase.ASSIGNED for task in tasks)
    return working, len(tasks) - working


def _summary(step: StepState) -> str:
    size = "?" if step.size is None else str(step.size)
    more = [
        f"{count} {word}"
        for count, word in ((step.open, "open"), (step.redone, "redone"), (step.failed, "failed"))
        if count
    ]
    return f"{step.spec.step} {step.accepted}/{size}" + (f" ({', '.join(more)})" if more else "")
