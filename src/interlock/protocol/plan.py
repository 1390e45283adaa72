"""The graph of steps: what needs what, in which order, and what the tasks of a step are called.

A step's needs are its own ``needs`` and those that its templates imply. Templates are not understood here (that is
``interlock.agents.templates``), so every function takes the whole relation as a mapping; left out, it is the ``needs``
that the steps carry, as in ``plan.accepted`` where every need is written out.

Errors, all of them ``PlanError``:

* ``StepDefinedTwice``: two steps share a name.
* ``UnknownNeed``: a step needs a step that is not there.
* ``PlanCycle``: steps need each other in a circle.
* ``TaskIdInvalid``: a text is not the id of a task.
"""

import heapq
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from interlock.protocol.team import Step

__all__ = [
    "Needs",
    "PlanCycle",
    "PlanError",
    "PlanProblem",
    "StepDefinedTwice",
    "TaskIdInvalid",
    "UnknownNeed",
    "all_needs",
    "check_graph",
    "parse_task_id",
    "sinks",
    "task_id",
    "topological_order",
]

Needs = Mapping[str, Collection[str]]
"""For each step the steps that must be over before it."""

_TASK_ID = re.compile(r"([a-z][a-z0-9_-]{0,62})(?::(0|[1-9][0-9]{0,8}))?")


class PlanError(ValueError):
    """A plan that cannot run, or a name that no plan can have."""


class StepDefinedTwice(PlanError):
    """Two steps share the name ``step``; ``first`` is the position of the earlier one, from 0."""

    def __init__(self, step: str, first: int) -> None:
        super().__init__(f"step {step!r} is defined twice, first as number {first + 1} of the plan: rename one")
        self.step = step
        self.first = first


class UnknownNeed(PlanError):
    """``step`` needs ``need``, which is not a step; ``known`` are the names that are."""

    def __init__(self, step: str, need: str, known: Iterable[str]) -> None:
        self.step = step
        self.need = need
        self.known = tuple(known)
        super().__init__(f"step {step!r} needs {need!r}, which is not a step; steps: {', '.join(self.known)}")


class PlanCycle(PlanError):
    """Steps need each other in a circle; ``path`` starts and ends with the same step, each needs the next."""

    def __init__(self, path: Iterable[str]) -> None:
        self.path = tuple(path)
        shown = " -> ".join(self.path)
        if len(self.path) == 2:  # noqa: PLR2004  (a step and itself)
            super().__init__(f"step {self.path[0]!r} needs itself")
        else:
            super().__init__(f"steps need each other in a circle: {shown} (each needs the next)")


class TaskIdInvalid(PlanError):
    """``text`` is not the id of a task."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not the id of a task: expected a step's name, or STEP:INDEX with INDEX from 0")
        self.text = text


@dataclass(frozen=True)
class PlanProblem:
    """What is wrong with one step: its position in the plan, from 0, the field, and the error."""

    index: int
    field: Literal["step", "needs"]
    error: PlanError


def task_id(step: str, index: int | None = None) -> str:
    """Return the id of a step's task: ``summarise``, or ``summarise:17`` for item 17 (from 0) of its ``for_each``."""
    return step if index is None else f"{step}:{index}"


def parse_task_id(task: str) -> tuple[str, int | None]:
    """Return the step and the item's index of a task's id; the inverse of ``task_id``.

    :raises TaskIdInvalid: ``task`` is not such an id.
    """
    match = _TASK_ID.fullmatch(task)
    if match is None:
        raise TaskIdInvalid(task)
    step, index = match.groups()
    return step, None if index is None else int(index)


def all_needs(steps: Iterable[Step], implied: Needs | None = None) -> dict[str, tuple[str, ...]]:
    """Return each step's own needs followed by the implied ones, without repetition."""
    more = implied or {}
    return {step.step: tuple(dict.fromkeys([*step.needs, *more.get(step.step, ())])) for step in steps}


def check_graph(steps: Sequence[Step], needs: Needs | None = None) -> list[PlanProblem]:
    """Return everything that keeps these steps from being a plan, in the order of the steps; empty if they are one.

    Each circle is reported once, at the first of its steps.
    """
    relation = all_needs(steps) if needs is None else needs
    first: dict[str, int] = {}
    problems: list[PlanProblem] = []
    for index, step in enumerate(steps):
        if step.step in first:
            problems.append(PlanProblem(index, "step", StepDefinedTwice(step.step, first[step.step])))
            continue
        first[step.step] = index
    for name, index in first.items():
        unknown = (need for need in relation.get(name, ()) if need not in first)
        problems += (PlanProblem(index, "needs", UnknownNeed(name, need, first)) for need in unknown)
    problems += (PlanProblem(first[path[0]], "needs", PlanCycle(path)) for path in _cycles(first, relation))
    return sorted(problems, key=lambda problem: problem.index)


def topological_order(steps: Sequence[Step], needs: Needs | None = None) -> tuple[str, ...]:
    """Return the names of the steps, each after all that it needs; where there is a choice, in the plan's order.

    :raises PlanError: the first thing that ``check_graph`` finds.
    """
    problems = check_graph(steps, needs)
    if problems:
        raise problems[0].error
    names = [step.step for step in steps]
    return tuple(_sorted(names, all_needs(steps) if needs is None else needs))


def sinks(steps: Sequence[Step], needs: Needs | None = None) -> tuple[str, ...]:
    """Return the steps that no other step needs, in the plan's order: the job's result is made of them."""
    relation = all_needs(steps) if needs is None else needs
    needed = {need for step in steps for need in relation.get(step.step, ()) if need != step.step}
    return tuple(step.step for step in steps if step.step not in needed)


def _sorted(names: Sequence[str], needs: Needs) -> list[str]:
    """Return as many of ``names`` as can be put in order; those of a circle, and what needs them, stay out."""
    position = {name: index for index, name in enumerate(names)}
    waiting = {name: {need for need in needs.get(name, ()) if need in position} for name in names}
    dependants: dict[str, list[str]] = {name: [] for name in names}
    for name, open_needs in waiting.items():
        for need in open_needs:
            dependants[need].append(name)
    ready = [position[name] for name, open_needs in waiting.items() if not open_needs]
    order: list[str] = []
    while ready:
        done = names[heapq.heappop(ready)]
        order.append(done)
        for name in dependants[done]:
            waiting[name].discard(done)
            if not waiting[name]:
                heapq.heappush(ready, position[name])
    return order


def _cycles(names: Iterable[str], needs: Needs) -> list[tuple[str, ...]]:
    """Return circles that have no step in common, each from its first step in the order of ``names``."""
    left = list(names)
    cycles: list[tuple[str, ...]] = []
    while left:
        order = set(_sorted(left, needs))
        left = [name for name in left if name not in order]
        if left:
            cycle = _walk(left, needs)
            start = min(range(len(cycle)), key=lambda index: left.index(cycle[index]))
            cycles.append((*cycle[start:], *cycle[:start], cycle[start]))
            left = [name for name in left if name not in cycle]
    return cycles


def _walk(names: Sequence[str], needs: Needs) -> list[str]:
    """Follow needs from the first of ``names``, each of which needs one of them, until a step comes again."""
    known = set(names)
    path = [names[0]]
    while True:
        following = next(need for need in needs[path[-1]] if need in known)
        if following in path:
            return path[path.index(following) :]
        path.append(following)
