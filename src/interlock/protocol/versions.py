"""What is new in each version of the messages, and what may be left out for readers of an older one.

Readers take every version from 1 to ``VERSION``. A writer writes the lowest that all readers know: what is new since is
left out where a reader without it does its work all the same, and where it does not the message is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from interlock.protocol.errors import NotInVersion
from interlock.protocol.messages import (
    VERSION,
    Envelope,
    JobRetried,
    JobSubmitted,
    PlanExpanded,
    TaskResult,
    TaskVerdict,
)

__all__ = ["NEW_FIELDS", "NEW_INSIDE", "NEW_KINDS", "NewField", "fields_since", "left_out"]


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
    JobSubmitted: {"items": _NEEDED, "stored": _NEEDED, "priority": _USEFUL},
    PlanExpanded: {"stored": _USEFUL},  # without it the items are worked out again
    TaskResult: {"poison": _USEFUL, "exchanges": _USEFUL, "seen": _USEFUL},
    TaskVerdict: {"exchanges": _USEFUL},
}
"""The fields that came later than their kind."""


_AHEAD = 2
"""The version since which the limits of a team may have ``ahead``."""

NEW_INSIDE = frozenset({("Limits", "ahead")})
"""The fields that came later and stand further inside of a message, each with its model."""


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
    if version < _AHEAD and isinstance(message, JobSubmitted) and message.team.limits.ahead:
        raise NotInVersion("job.submitted", "limits.ahead of its team", _AHEAD, version)
    return frozenset(later)


def fields_since(message: Envelope) -> list[str]:
    """Return what ``message`` was given although its version does not have it yet, ``kind`` if it is that."""
    kind = type(message)
    if NEW_KINDS.get(kind, 1) > message.v:
        return ["kind"]
    given = message.model_fields_set
    return [name for name, new in NEW_FIELDS.get(kind, {}).items() if new.since > message.v and name in given]
