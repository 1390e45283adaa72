"""Reports in words: the account of one job, and the list of all."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from interlock.protocol.base import Json
from interlock.protocol.lineage import depth_of
from interlock.protocol.state import JobState, TaskState
from interlock.runtime.asking import waiting_line
from interlock.runtime.lean import SMALL, size_of
from interlock.runtime.report import (
    EffectReport,
    EffectsReport,
    EngineReport,
    Listed,
    Report,
    TaskReport,
    overview_of,
    report_of,
    task_report,
)

__all__ = [
    "account",
    "one_line",
    "print_engine",
    "print_jobs",
    "print_out",
    "print_report",
    "print_state",
    "reader_may_leave",
    "result_text",
    "still_read",
]


_MISSED = 50
"""The most tasks of a large job that are shown in words."""

_RESULT = 20_000
"""Characters of a result that are shown in a terminal."""

_ACTIONS = 5
"""The most tool calls of a task that are shown in words."""

_EFFECTS = 20
"""The most effects that are done that are shown in words."""

_CUT = 100
"""Characters of a call's arguments and of its outcome that are shown in words."""


def print_report(report: Report) -> None:
    """Print the result to standard output and the account of the job to standard error."""
    _print_both(report.result, account(report))


def print_state(state: JobState) -> None:
    """Print what ``print_report`` does of a job that may have any number of tasks, and so a lean state.

    Of many tasks it is told how many were accepted, and which were not.
    """
    if size_of(state) <= SMALL:
        print_report(report_of(state))
        return
    order = {name: place for place, name in enumerate(state.steps_ever)}
    missed = sorted(_missed(state), key=lambda task: (order[task.step], task.index or 0))
    report = overview_of(state, tuple(task_report(state, task) for task in missed[:_MISSED]))
    _print_both(report.result, account(report, tuple(_step_lines(state)), len(missed) - len(report.tasks)))


def print_engine(engine: EngineReport) -> None:
    """Print what an engine told of a job to standard error."""
    cache = engine.prefix_cache
    if cache.share is None:
        return
    with reader_may_leave(sys.stderr):
        told = f"{cache.hits} of {cache.queries} prompt tokens"
        print(f"{engine.name}: {cache.share:.0%} of the prompts from the prefix cache ({told})", file=sys.stderr)


def _print_both(result: Json, told: str) -> None:
    if result is not None:
        print_out(_bounded(result_text(result)) if sys.stdout.isatty() else result_text(result))
    with reader_may_leave(sys.stderr):
        print(told, file=sys.stderr)


def _bounded(text: str) -> str:
    """Return as much of a result as a person reads in a terminal."""
    if len(text) <= _RESULT:
        return text
    return f"{text[:_RESULT]}\n... and {len(text) - _RESULT} more characters, which --json shows"


def _missed(state: JobState) -> Iterator[TaskState]:
    """Yield the tasks that began and were not accepted, or are not yet."""
    return (task for task in state.tasks.values() if task.outcome != "accepted")


def _step_lines(state: JobState) -> Iterator[str]:
    for name in state.order:
        step = state.steps[name]
        counts = ((step.failed, "failed"), (step.cancelled, "cancelled"), (step.open, "open"), (step.redone, "redone"))
        more = "".join(f", {count} {word}" for count, word in counts if count)
        yield f"{name}: {step.accepted} of {'?' if step.size is None else step.size} accepted{more}"


def print_out(text: str) -> None:
    """Print to standard output, as far as somebody still reads it."""
    with reader_may_leave(sys.stdout):
        print(text, flush=True)


def result_text(result: Json) -> str:
    """Return a result as a person reads it: text as it is, everything else as JSON."""
    return result.rstrip() if isinstance(result, str) else json.dumps(result, indent=2, ensure_ascii=False)


def account(report: Report, steps: Sequence[str] = (), more: int = 0) -> str:
    """Return what became of each task, and what the job took.

    Where the report has not all tasks, ``steps`` are lines about those of each step, and so many ``more`` were not
    accepted than the report has.
    """
    lines = [one_line(f"{report.job_id}: {report.status}" + (f" ({report.reason})" if report.reason else ""))]
    lines += (one_line(line) for line in _plan_lines(report))
    lines += (f"  {one_line(line)}" for line in steps)
    for task in report.tasks:
        lines.append(f"  {one_line(_task_line(task))}")
        lines += (f"    {line}" for line in _details(task))
    if more:
        lines.append(f"  and {more} more that were not accepted, which --json shows")
    lines += (one_line(line) for line in _effect_lines(report.effects))
    usage = report.usage
    lines.append(
        f"{usage.calls} model calls, {usage.prompt_tokens} + {usage.completion_tokens} tokens, "
        f"{report.seconds:.1f} s, trace {report.trace_id}"
    )
    return "\n".join(lines)


def _plan_lines(report: Report) -> Iterator[str]:
    """Yield how the manager came to its plan; nothing where that stands in the team file and stayed so."""
    plan = report.plan
    for rejected in plan.rejected:
        yield f"  proposed for version {rejected.version} of the plan and rejected: {'; '.join(rejected.reasons)}"
    if plan.proposed:
        for one in plan.versions:
            yield f"  version {one.version} of the plan: {', '.join(one.steps)}" + (f": {one.why}" if one.why else "")
    if report.question is not None:
        yield f"  {waiting_line(report.question)}"


def print_jobs(jobs: Sequence[Listed]) -> None:
    """Print a line for each job to standard output, those of teams within teams further in."""
    for job in jobs:
        counts = "archived" if job.accepted is None else f"{job.accepted}/{job.tasks} accepted"
        if job.asking:
            counts += f", {job.asking} waiting for an answer"
        indent = "  " * (depth_of(job.report.job_id) - 1)
        print_out(one_line(f"{indent}{job.report.job_id}  {job.report.status:9}  {counts}  {job.report.goal}"))


def _task_line(task: TaskReport) -> str:
    name = f"{task.id} {task.label}" if task.label else task.id
    reason = f": {task.reason}" if task.reason and task.status != "accepted" else ""
    if not task.attempts:
        return f"{name}  {task.status}{reason}"
    verdicts = ", ".join(verdict.verdict for verdict in task.verdicts)
    attempts = f"{task.attempts} attempt{'' if task.attempts == 1 else 's'}"
    return f"{name}  {task.agent}  {task.status} after {attempts} ({verdicts or 'no verdict'}){reason}"


def _details(task: TaskReport) -> Iterator[str]:
    """Yield what a task waits with, and what its attempts did with tools."""
    if task.question is not None:
        yield waiting_line(task.question)
    yield from (f"done as job {job}" for job in task.jobs)
    for action in task.actions[:_ACTIONS]:
        arguments = json.dumps(action.arguments, ensure_ascii=False)
        yield one_line(f"attempt {action.attempt}: {action.tool} {_cut(arguments)}: {_cut(action.outcome)}")
    if len(task.actions) > _ACTIONS:
        yield f"and {len(task.actions) - _ACTIONS} more calls, which --json shows"


def _cut(text: str) -> str:
    return text if len(text) <= _CUT else f"{text[: _CUT - 3]}..."


def _effect_lines(effects: EffectsReport) -> Iterator[str]:
    """Yield what was changed outside: every doubt, and of what is surely done as much as a person reads."""
    for effect in effects.done[:_EFFECTS]:
        yield f"done: {_effect_line(effect)}"
    if len(effects.done) > _EFFECTS:
        yield f"and {len(effects.done) - _EFFECTS} more effects that are done, which --json shows"
    for effect in effects.in_doubt:
        yield f"IN DOUBT: {_effect_line(effect)}: {effect.reason}"


def _effect_line(effect: EffectReport) -> str:
    return f"{effect.tool} ({effect.effect}) of {effect.task}, attempt {effect.attempt}, key {effect.key}"


def one_line(text: str) -> str:
    """Return ``text`` as one line that a terminal takes for text: what models write can hold anything."""
    return "".join(char if char.isprintable() else " " for char in text)


def still_read(text: str) -> bool:
    """Print ``text``, which ends its lines itself, and return whether anybody still reads."""
    with reader_may_leave(sys.stdout):
        sys.stdout.write(text)
        sys.stdout.flush()
        return True
    return False


@contextmanager
def reader_may_leave(stream: TextIO | None) -> Iterator[None]:
    """Let nobody notice when whoever reads ``stream`` is gone, as after ``| head -1``; it is silent from then on.

    None is what Python has in place of a stream that was closed before it started.
    """
    try:
        yield
        if stream is not None:
            stream.flush()
    except BrokenPipeError:
        if stream is not None:
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
