"""Budgets: whose pay for a task, and when a step has used up its own. Pure."""

from collections.abc import Iterator
from typing import Literal

from interlock.protocol.messages import Allowance, JobSubmitted
from interlock.protocol.team import Step

__all__ = ["allowances_of", "counter_of", "owner_of"]


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


def counter_of(allowance: Allowance, unit: Literal["calls", "tokens", "used"]) -> str:
    """Return the counter at the broker: of calls and of tokens what is reserved, of tokens also what is ``used``."""
    owner = allowance.job if allowance.step is None else f"{allowance.job}.{allowance.step}"
    return f"{owner}.{unit}"


def owner_of(allowance: Allowance) -> str:
    """Return whose it is, in words."""
    return f"job {allowance.job}" if allowance.step is None else f"step {allowance.step} of job {allowance.job}"
