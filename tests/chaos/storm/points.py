"""The named points at which managers and verifiers are killed: where a moment more or less makes a difference."""

from dataclasses import dataclass
from random import Random
from typing import Any

__all__ = ["Point", "manager_points", "verifier_points"]


@dataclass(frozen=True, slots=True)
class Point:
    """Where a process dies."""

    name: str
    process: str
    """What the process's name begins with."""
    call: str
    """``append``, ``send`` (each message of a batch), ``ack`` or ``read``."""
    when: str
    """``before`` the call or ``after`` it."""
    kind: str = ""
    """Of the message that it is about; empty: any."""
    nth: int = 1
    """How often a process comes there before it dies."""
    attempt: int = 0
    """The least attempt that the message is about."""

    def told(self) -> dict[str, Any]:
        """Return it as the fault injector wants it."""
        return {name: getattr(self, name) for name in self.__slots__}


def manager_points(dice: Random) -> list[Point]:
    """Return the points at which a manager dies, in about the order in which a job comes to them."""

    def at(name: str, when: str, kind: str, nth: int = 1, attempt: int = 0) -> Point:
        return Point(name, "manager", "append", when, kind, nth, attempt)

    return [
        at("decided the plan and did not append it", "before", "plan.accepted"),
        at("appended the plan and did not fold it", "after", "plan.accepted"),
        at("decided on a list of items", "before", "plan.expanded"),
        at("appended a list of items", "after", "plan.expanded"),
        Point("in the middle of a batch", "manager", "send", "after", "task.assigned", dice.randint(2, 40)),
        at("appended a batch and did not fold it", "after", "task.assigned", dice.randint(2, 40)),
        at("decided an assignment", "before", "task.assigned", dice.randint(5, 15)),
        at("decided an end and did not append it", "before", "task.closed", dice.randint(2, 20)),
        at("appended an end and did not fold it", "after", "task.closed", dice.randint(2, 20)),
        Point("in the middle of reading its log", "manager", "read", "after", nth=dice.randint(2, 4)),
        at("decided a redo", "before", "task.assigned", dice.randint(1, 3), attempt=2),
        at("appended a redo", "after", "task.assigned", dice.randint(1, 3), attempt=2),
        at("decided the end of the job", "before", "job.closed"),
        at("appended the end of the job", "after", "job.closed"),
    ]


def verifier_points(dice: Random) -> list[Point]:
    """Return the points at which a verifier dies."""

    def at(name: str, call: str, when: str, kind: str) -> Point:
        return Point(name, "checker", call, when, kind, dice.randint(1, 30))

    return [
        at("computed a verdict and did not commit it", "append", "before", "task.verdict"),
        at("committed a verdict and did not acknowledge", "append", "after", "task.verdict"),
        at("is about to acknowledge", "ack", "before", ""),
        at("has acknowledged", "ack", "after", ""),
    ]
