"""What an attempt is told of those before it."""

from typing import TypedDict

from interlock.protocol.messages import AttemptSummary, Feedback
from interlock.protocol.state import Attempt

__all__ = ["Redo", "redo"]


class Redo(TypedDict, total=False):
    """What an attempt is told of those before it."""

    feedback: tuple[Feedback, ...]
    earlier: AttemptSummary | None
    replaces: str | None


def redo(before: tuple[Attempt, ...]) -> Redo:
    """Return what the attempt after ``before`` is told: why each was not accepted, and what the last came to."""
    if not before:
        return {}
    feedback = tuple(Feedback(attempt=one.number, criteria=one.objections) for one in before)
    return {"feedback": feedback, "earlier": _summary(before[-1]), "replaces": before[-1].origin}


def _summary(attempt: Attempt) -> AttemptSummary:
    result = attempt.result
    return AttemptSummary(
        attempt=attempt.number, output=result.output if result else None, reason=result.reason if result else ""
    )
