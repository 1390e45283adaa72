"""What is new in each version of the messages, and what may be left out for readers of an older one.

Readers take every version from 1 to ``VERSION``. A writer writes the lowest that all readers know: what is new since is
left out where a reader without it does its work all the same, and where it does not the message is refused.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from interlock.protocol.errors import NotInVersion
from interlock.protocol.messages import (
    VERSION,
    Envelope,
    JobRetried,
    JobSubmitted,
    PlanAccepted,
    PlanExpanded,
    PlanProposed,
    QuestionAsked,
    TaskAssigned,
    TaskResult,
    TaskVerdict,
)
from interlock.protocol.team import Budget, Limits, Step, Team

__all__ = ["NEW_FIELDS", "NEW_INSIDE", "NEW_KINDS", "WIDENED", "NewField", "fields_since", "left_out"]


@dataclass(frozen=True, slots=True)
class NewField:
    """A field that came with a later version than 1. It always has a default."""

    since: int
    needed: bool = False
    """Whether a message that has it means something else without it."""


_USEFUL = NewField(2)
_NEEDED = NewField(2, needed=True)

NEW_KINDS: Mapping[type[Envelope], int] = {JobRetried: 2}
"""The version that each kind came with; 1 where it is not here."""

NEW_FIELDS: Mapping[type[Envelope], Mapping[str, NewField]] = {
    JobSubmitted: {
        "items": _NEEDED,
        "stored": _NEEDED,
        "priority": _USEFUL,
        "bounds": _NEEDED,
        "taint": _NEEDED,
        "approve_plan": _NEEDED,
        "allowances": _NEEDED,
    },
    PlanProposed: {
        "makes": _NEEDED,
        "text": _USEFUL,
        "unreadable": _NEEDED,
        "usage": _USEFUL,
        "exchanges": _USEFUL,
        "spent": _NEEDED,
    },
    PlanExpanded: {"stored": _USEFUL},  # without it the items are worked out again
    TaskAssigned: {"inputs": _NEEDED, "allowances": _USEFUL},  # uncounted requests are counted in the log
    TaskResult: {
        "poison": _USEFUL,
        "exchanges": _USEFUL,
        "seen": _USEFUL,
        "spent": _USEFUL,
        "spent_of": _USEFUL,
    },
    TaskVerdict: {"exchanges": _USEFUL, "spent": _USEFUL, "spent_of": _USEFUL},
}
"""The fields that came later than their kind."""


_SECOND = 2

NEW_INSIDE = frozenset(
    {
        ("Agent", "team"),
        ("Limits", "ahead"),
        ("Limits", "depth"),
        ("Limits", "managers_span"),
        ("Limits", "plans"),
        ("Limits", "replans"),
        ("ModelSettings", "options"),
        ("Step", "budget"),
        ("Step", "inputs"),
    }
)
"""The fields that came later and stand further inside of a message, each with its model."""

WIDENED = frozenset(
    {
        ("Agent", "kind"),
        ("ModelSettings", "engine"),
        ("ModelSettings", "url"),
        ("PlanProposed", "steps"),
        ("QuestionAsked", "about"),
        ("Step", "on_failure"),
        ("Team", "plan"),
    }
)
"""The fields that take more than they did, each with its model."""


def left_out(message: Envelope, version: int) -> frozenset[str]:
    """Return the fields of ``message`` that readers of ``version`` are not told.

    :raises NotInVersion: without them the message would mean something else, or they do not know its kind
    """
    if version >= VERSION:
        return frozenset()
    kind = type(message)
    if (since := NEW_KINDS.get(kind, 1)) > version:
        raise NotInVersion(str(kind.model_fields["kind"].default), "the kind itself", since, version)
    later = {name: new for name, new in NEW_FIELDS.get(kind, {}).items() if new.since > version}
    for name, new in later.items():
        if new.needed and getattr(message, name) != kind.model_fields[name].get_default():
            raise NotInVersion(str(kind.model_fields["kind"].default), f"its field {name}", new.since, version)
    if version < _SECOND and (beyond := next(_beyond_first(message), "")):
        raise NotInVersion(str(kind.model_fields["kind"].default), beyond, _SECOND, version)
    return frozenset(later)


def fields_since(message: Envelope) -> list[str]:
    """Return what ``message`` was given although its version does not have it yet, ``kind`` if it is that."""
    kind = type(message)
    if NEW_KINDS.get(kind, 1) > message.v:
        return ["kind"]
    given = message.model_fields_set
    return [name for name, new in NEW_FIELDS.get(kind, {}).items() if new.since > message.v and name in given]


def _beyond_first(message: Envelope) -> Iterator[str]:
    """Yield what readers of version 1 do not know, further inside of a message or in a field that took less then."""
    match message:
        case JobSubmitted():
            yield from (f"{beyond} of its team" for beyond in _new_in_team(message.team))
        case PlanProposed(steps=()):
            yield "a proposal without steps"
        case PlanProposed() | PlanAccepted():
            yield from _new_in_steps(message.steps)
        case QuestionAsked(about="plan"):
            yield "a question about a plan"
        case _:
            pass


def _new_in_team(team: Team) -> Iterator[str]:
    without = Limits(parallel=team.limits.parallel, question_seconds=team.limits.question_seconds)
    yield from (f"limits.{name}" for name, value in team.limits if value != getattr(without, name))
    if not team.plan:
        yield "a plan to be made"
    for settings in (team.model, *(agent.model for agent in team.agents.values() if agent.model)):
        if settings.engine == "vllm" or settings.options or isinstance(settings.url, tuple):
            yield "the model"
    if any(agent.kind == "team" or agent.team for agent in team.agents.values()):
        yield "a team within it"
    yield from _new_in_steps(team.plan)


def _new_in_steps(steps: Iterable[Step]) -> Iterator[str]:
    yield from (
        f"step {step.step}" for step in steps if step.on_failure == "replan" or step.budget != Budget() or step.inputs
    )
