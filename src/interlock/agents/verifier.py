"""What a verifier says of a result: pass only where every criterion was evaluated and holds.

A worker that gave up, a check that crashes, a judge that hangs or writes nonsense: none of it is ever a pass.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, TypeVar

import anyio

from interlock.agents.checks.finding import Finding, failed, held, quoted, undecided, writable
from interlock.agents.checks.registry import evaluate, verdict_of
from interlock.agents.checks.schema import check_schema
from interlock.agents.checks.values import type_name
from interlock.agents.judge import judge
from interlock.agents.thinking import NO_TRACING
from interlock.backends.chat import ChatModel
from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json, Usage
from interlock.protocol.criteria import AnyCriterion, JudgeCriterion, criterion_label
from interlock.protocol.messages import CriterionVerdict, TaskAssigned, TaskResult, Verdict
from interlock.protocol.team import Agent, ModelSettings

__all__ = ["TOO_LATE", "Check", "Judgement", "judge_result", "verdict_from"]

_T = TypeVar("_T")

Check: TypeAlias = Callable[[AnyCriterion, Json], Awaitable[CriterionVerdict]]
"""Says of an output whether a criterion holds that needs no model."""

TOO_LATE = "could not be checked within "
"""How the evidence begins of what there was no time for."""

_OUTPUT = "output"
"""How verdicts call the form of the output."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a verifier found: the fields of a ``task.verdict`` that are the verifier's."""

    verdict: Verdict
    criteria: tuple[CriterionVerdict, ...]
    usage: Usage = field(default_factory=Usage)


async def judge_result(
    assignment: TaskAssigned,
    result: TaskResult,
    agent: Agent,
    model: ChatModel | None,
    settings: ModelSettings,
    tracing: Tracing = NO_TRACING,
    check: Check | None = None,
) -> Judgement:
    """Judge a result, criterion by criterion, within as many seconds as the attempt was granted.

    The first criterion is always the form of the output: valid against its schema, or text that is not empty; where
    that fails, the others are not evaluated. ``model`` is needed for judges' sentences only. Whatever goes wrong in
    a criterion leaves it undecided, with the reason as its evidence. Cancelling it raises as usual.

    :param check: evaluates a criterion that needs no model, in place of what the registry has
    """
    if (result.job, result.task, result.attempt) != (assignment.job, assignment.task, assignment.attempt):
        return _judgement([verdict_of("result", undecided("the result is not of the attempt that was assigned"))])
    if result.status != "done":
        told = f"the worker's status is {result.status}: {result.reason or 'no reason given'}"
        return _judgement([verdict_of("result", failed(writable(told), "Give a complete answer to the task."))])
    limit = _Limit(anyio.current_time(), assignment.grant.seconds)
    form = await limit.guard(_OUTPUT, lambda: _form(assignment, result.output))
    if form.holds is False:
        return _judgement([form])
    plain = [criterion for criterion in assignment.criteria if not isinstance(criterion, JudgeCriterion)]
    asked = [criterion for criterion in assignment.criteria if isinstance(criterion, JudgeCriterion)]
    checked = [await limit.guard(criterion_label(one), partial(check or evaluate, one, result.output)) for one in plain]
    opinion = partial(judge, asked, assignment, result.output, agent, model, settings, tracing)
    judged, usage = await limit.guard_judge([criterion_label(one) for one in asked], opinion)
    return _judgement([form, *_in_order(assignment.criteria, checked, judged)], usage)


async def _form(assignment: TaskAssigned, output: Json) -> CriterionVerdict:
    return verdict_of(_OUTPUT, _form_finding(assignment.output_schema, output))


def _form_finding(schema: dict[str, Json] | None, output: Json) -> Finding:
    if schema is not None:
        return check_schema(schema, output)
    if isinstance(output, str):
        return held("text") if output.strip() else failed("the output is empty", "Write an answer.")
    return failed(f"the output must be text, found {type_name(output)}", "Write the answer as text.")


def _in_order(
    criteria: Iterable[AnyCriterion], checked: Iterable[CriterionVerdict], judged: Iterable[CriterionVerdict]
) -> list[CriterionVerdict]:
    """Return the verdicts in the order of their criteria."""
    checks, judges = iter(checked), iter(judged)
    return [next(judges if isinstance(one, JudgeCriterion) else checks) for one in criteria]


@dataclass(frozen=True, slots=True)
class _Limit:
    """How long a judgement may take, and the one place where what goes wrong in it becomes "undecided"."""

    begun: float
    """By the clock of the event loop."""
    seconds: float

    async def guard(self, label: str, look: Callable[[], Awaitable[CriterionVerdict]]) -> CriterionVerdict:
        """Return what ``look`` finds, or that the criterion called ``label`` could not be decided and why."""
        found = await self._tried(look)
        return verdict_of(label, undecided(found)) if isinstance(found, str) else found

    async def guard_judge(
        self, labels: Sequence[str], look: Callable[[], Awaitable[tuple[list[Finding], Usage]]]
    ) -> tuple[list[CriterionVerdict], Usage]:
        """Return what the judge finds, or that none of the criteria could be decided; no labels, no call."""
        found = await self._tried(look) if labels else ([], Usage())
        findings, usage = ([undecided(found)] * len(labels), Usage()) if isinstance(found, str) else found
        return [verdict_of(label, finding) for label, finding in zip(labels, findings, strict=True)], usage

    async def _tried(self, look: Callable[[], Awaitable[_T]]) -> _T | str:
        """Return what ``look`` returns, or as text why there is nothing."""
        try:
            with anyio.CancelScope(deadline=self.begun + self.seconds):
                return await look()
        except Exception as problem:  # noqa: BLE001 -- whatever breaks in a check, it is told and is never a pass
            return f"could not be checked: {type(problem).__name__}: {quoted(str(problem), 300)}"
        return f"{TOO_LATE}{self.seconds:g} seconds"


def _judgement(criteria: Iterable[CriterionVerdict], usage: Usage | None = None) -> Judgement:
    found = tuple(criteria)
    return Judgement(verdict_from(found), found, usage or Usage())


def verdict_from(criteria: Sequence[CriterionVerdict]) -> Verdict:
    """Return pass where there are criteria and all hold, fail where one does not hold, and else uncertain."""
    if any(found.holds is False for found in criteria):
        return "fail"
    return "pass" if criteria and all(found.holds is True for found in criteria) else "uncertain"
