"""Budgets: whose pay for a task, and when a step has used up its own. Pure."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from interlock.protocol.messages import Allowance, JobSubmitted
from interlock.protocol.state import JobState, StepState
from interlock.protocol.team import Budget, Step

__all__ = [
    "allowances_of",
    "counter_of",
    "later",
    "narrower",
    "overdue",
    "owner_of",
    "seconds_for",
    "spent_steps",
    "step_deadlines",
]

_Bound = TypeVar("_Bound", int, float)

_NO_TIME = 0.001
"""Seconds, where none are left: a grant has some."""


def allowances_of(submitted: JobSubmitted, step: Step | None = None) -> tuple[Allowance, ...]:
    """Return what pays for the requests of a job's manager, or of a task of ``step``, the outermost job's first.

    Where nothing is limited but time, nothing pays.
    """
    return (*submitted.allowances, *_own(submitted, step))


def _own(submitted: JobSubmitted, step: Step | None) -> Iterator[Allowance]:
    budgets = [(None, submitted.budget)] + ([(step.step, step.budget)] if step else [])
    for name, budget in budgets:
        if budget.calls is not None or budget.tokens is not None:
            yield Allowance(job=submitted.job, step=name, calls=budget.calls, tokens=budget.tokens)


def narrower(one: Budget, other: Budget) -> Budget:
    """Return what both budgets allow."""
    return Budget(
        seconds=_least(one.seconds, other.seconds),
        tokens=_least(one.tokens, other.tokens),
        calls=_least(one.calls, other.calls),
    )


def _least(one: _Bound | None, other: _Bound | None) -> _Bound | None:
    """Return the smaller bound; None is none."""
    return min((bound for bound in (one, other) if bound is not None), default=None)


def counter_of(allowance: Allowance, unit: Literal["calls", "tokens", "used"]) -> str:
    """Return the counter at the broker: of calls and of tokens what is reserved, of tokens also what is ``used``."""
    owner = allowance.job if allowance.step is None else f"{allowance.job}.{allowance.step}"
    return f"{owner}.{unit}"


def owner_of(allowance: Allowance) -> str:
    """Return whose it is, in words."""
    return f"job {allowance.job}" if allowance.step is None else f"step {allowance.step} of job {allowance.job}"


def spent_steps(state: JobState, now: datetime) -> dict[str, str]:
    """Return the steps that are over before all of their tasks are, each with the reason: its time or its budget."""
    found: dict[str, str] = {}
    for name, step in state.steps.items():
        if step.complete:
            continue
        if late := overdue(step, now):
            found[name] = late
        elif step.spent:
            found[name] = f"out of budget: {step.spent}"
    return found


def overdue(step: StepState, now: datetime) -> str:
    """Return that the time of a step is over, in words, or an empty string."""
    end = _end_of(step)
    if end is None or now < end:
        return ""
    return f"out of time: step {step.spec.step} had to be over by {end.isoformat(timespec='seconds')}"


def step_deadlines(state: JobState) -> Iterator[datetime]:
    """Yield when the time of each step is over that is at work and has a bound."""
    for step in state.steps.values():
        if not step.complete and (end := _end_of(step)) is not None:
            yield end


def seconds_for(state: JobState, step: Step, at: datetime) -> float:
    """Return how long an attempt of ``step`` may take that is assigned at this time."""
    known = state.steps.get(step.step)
    began = (known.began if known else None) or at
    end = later(began, step.budget.seconds)
    return step.timeout if end is None else min(step.timeout, max((end - at).total_seconds(), _NO_TIME))


def _end_of(step: StepState) -> datetime | None:
    return later(step.began, step.spec.budget.seconds) if step.began else None


def later(start: datetime, seconds: float | None) -> datetime | None:
    """Return the time so many ``seconds`` after ``start``; None where there is no such time."""
    try:
        return start + timedelta(seconds=seconds) if seconds else None
    except OverflowError:  # later than a calendar reaches is never
        return None
