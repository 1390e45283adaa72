"""What `interlock plan` does: asks a team's manager for a plan, shows it as a table and a graph, and runs nothing."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import anyio

from interlock.agents.demands import demand
from interlock.agents.plan_problems import plan_problems
from interlock.agents.planning import ask_for_plan, manager_of
from interlock.agents.planning_prompt import Occasion
from interlock.agents.proposals import completed
from interlock.backends.engines import open_chat, resolve_endpoint
from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json, Usage
from interlock.protocol.control import NO_POLICY
from interlock.protocol.criteria import criterion_label
from interlock.protocol.items import StoredItems
from interlock.protocol.messages import JobSubmitted
from interlock.protocol.plan import sinks
from interlock.protocol.team import Files, JsonLines, PinnedTool, Step, Team, tool_of
from interlock.runtime.client import new_job_id
from interlock.runtime.commands import model_problem, toolkit_of
from interlock.runtime.model_engines import engines_for
from interlock.runtime.show import one_line, print_out
from interlock.runtime.sources import freeze, parse_inputs
from interlock.runtime.teamfile import load_team

__all__ = ["COMMANDS", "Plan", "graph_of", "table_of"]

_FLUSH = 0.4
"""Seconds that the last spans have to leave."""
_CELL = 40
"""The most characters of a cell of the table."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What came of asking for a plan."""

    makes: Literal["plan", "answer", "question", "refusal"] | None
    """None: nothing that can be used."""
    text: str = ""
    steps: tuple[Step, ...] = ()
    rejected: tuple[tuple[str, ...], ...] = ()
    """What was wrong with each proposal before."""
    usage: Usage = field(default_factory=Usage)

    @property
    def status(self) -> int:
        """The exit status of the command."""
        return 0 if self.makes in {"plan", "answer"} else 1

    def as_json(self) -> Json:
        """Return the plan for a program: its steps as team files have them."""
        steps: list[Json] = [one.model_dump(mode="json", exclude_defaults=True) for one in self.steps]
        return {
            "makes": self.makes,
            "text": self.text,
            "steps": steps,
            "rejected": [list[Json](reasons) for reasons in self.rejected],
            "usage": self.usage.model_dump(mode="json"),
        }


def _plan(options: argparse.Namespace) -> int:
    loaded = load_team(options.team)
    frozen = freeze(loaded, parse_inputs(options.input), Path.cwd())
    if loaded.team.plan:
        _tell(f"{options.team} has a plan, which is followed whatever the goal is")
        return _show(options, Plan("plan", steps=completed(loaded.team.plan)))
    toolkit, team = toolkit_of(loaded), frozen.team
    if (problem := model_problem(_manager_alone(team))) is not None:
        raise problem
    submitted = JobSubmitted(
        id="plan",
        ns="main",
        job=new_job_id(team.team),
        at=datetime.now(UTC),
        team=team,
        goal=options.goal or team.description,
        inputs=frozen.inputs,
        stored={name: StoredItems() for name in frozen.lists},
        tools=toolkit.catalogue,
        base=toolkit.base,
    )
    tracing = Tracing.from_environment("interlock-client")
    try:
        plan = anyio.run(_asked, submitted, tracing, backend_options={"use_uvloop": True})
    finally:
        tracing.shutdown(_FLUSH)
    return _show(options, plan)


def _manager_alone(team: Team) -> Team:
    """Return the team as far as its manager's model goes: nobody else is asked."""
    return team.model_copy(update={"agents": {name: one for name, one in team.agents.items() if one.kind == "manager"}})


async def _asked(submitted: JobSubmitted, tracing: Tracing) -> Plan:
    """Ask the manager's model until its proposal can be used, as often as the team's limits allow."""
    team, rejected, usage = submitted.team, list[tuple[str, ...]](), Usage()
    _, settings = manager_of(team)
    async with engines_for([_manager_alone(team)], _tell, _tell) as environment:
        model = open_chat(resolve_endpoint(settings, environment))
        try:
            for tries in range(team.limits.plans):
                occasion = Occasion(submitted, tries=tries, reasons=rejected[-1] if rejected else ())
                outcome = await ask_for_plan(occasion, model, settings, tracing)
                usage += outcome.usage
                reasons: tuple[str, ...] = (outcome.unreadable,) if outcome.unreadable else ()
                if outcome.makes == "plan" and not reasons:
                    reasons = plan_problems(submitted, NO_POLICY, outcome.steps)
                if not reasons:
                    steps = completed(outcome.steps)
                    return Plan(outcome.makes, outcome.text, steps, tuple(rejected), usage)
                rejected.append(reasons)
                _tell(f"proposal {tries + 1} is rejected:")
                for reason in reasons:
                    _tell(f"  - {reason}")
        finally:
            with anyio.CancelScope(shield=True):
                await model.aclose()
    return Plan(None, rejected=tuple(rejected), usage=usage)


def _tell(text: str) -> None:
    sys.stderr.write(f"{one_line(text)}\n")
    sys.stderr.flush()


def _show(options: argparse.Namespace, plan: Plan) -> int:
    if options.json:
        print_out(json.dumps(plan.as_json(), indent=2, ensure_ascii=False))
        return plan.status
    match plan.makes:
        case "plan":
            print_out("\n".join([*_paragraph([plan.text]), *table_of(plan.steps), "", *graph_of(plan.steps)]))
            print_out("\n".join(line for step in plan.steps for line in ("", *_told(step))))
        case "answer":
            _tell("this needs no plan; the answer is:")
            print_out(plan.text)
        case "question":
            _tell(f"the manager has a question; put the answer into the goal: {plan.text}")
        case "refusal":
            _tell(f"the team cannot do this: {plan.text}")
        case None:
            _tell(f"no plan came of {len(plan.rejected)} tries")
    return plan.status


def _paragraph(lines: Sequence[str]) -> list[str]:
    return [*lines, ""] if any(lines) else []


def table_of(steps: Sequence[Step]) -> Iterator[str]:
    """Yield the lines of a table of ``steps``, one for each, with every need written out."""
    rows = [("step", "agent", "after", "for each", "criteria", "tools"), *map(_row, steps)]
    rows = [tuple(_cut(cell) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(step: Step) -> tuple[str, ...]:
    criteria = [*(["output"] if step.output else []), *map(criterion_label, step.verify.criteria)]
    tools = None if step.tools is None else [tool_of(use) for use in step.tools]
    return (
        step.step,
        step.agent,
        ", ".join(step.needs) or "-",
        _items(step),
        ", ".join(criteria),
        "its agent's" if tools is None else ", ".join(tools) or "-",
    )


def _items(step: Step) -> str:
    match step.for_each:
        case None:
            return "-"
        case str(template):
            return template.strip("{} ")
        case Files() | JsonLines():
            return "files"
        case items:
            return f"{len(items)} items"


def _cut(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= _CELL else f"{text[: _CELL - 3]}..."


def graph_of(steps: Sequence[Step]) -> Iterator[str]:
    """Yield the lines of the graph of ``steps``: what each of them leads to."""
    last = sinks(steps)
    for step in steps:
        after = [other.step for other in steps if step.step in other.needs]
        yield f"{step.step} -> {', '.join([*after, *(['(result)'] if step.step in last else [])])}"


def _told(step: Step) -> Iterator[str]:
    """Yield what a step's agent is told, and what its result has to keep to."""
    yield one_line(f"{step.step}: {step.do}".strip())
    for name, kind in (step.output or {}).items():
        yield one_line(f"  {name}: {kind if isinstance(kind, str) else json.dumps(kind)}")
    for criterion in step.verify.criteria:
        yield f"  - {demand(criterion)}"
    for use in step.tools or ():
        if isinstance(use, PinnedTool):
            yield one_line(f"  {use.tool} with {json.dumps(use.pin, ensure_ascii=False)}")


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"plan": _plan}
"""What does the command, by its name."""
