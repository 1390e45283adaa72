"""The seam between thinking and acting: what an agent may call, and what comes of it.

Thinking (``react``) knows nothing of rules, effects and approvals; whatever stands behind a :class:`Toolbox` does.
"""

from dataclasses import dataclass
from typing import Protocol

from interlock.backends.chat import ToolCall, ToolOffer
from interlock.protocol.base import Json
from interlock.protocol.messages import ActionTaken

__all__ = ["NO_TOOLS", "AttemptLost", "AttemptSuspended", "Observation", "Suspended", "Toolbox"]


@dataclass(frozen=True, slots=True)
class Observation:
    """What a model is told of a call: outside text, put to it as quoted data."""

    text: str
    """What the tool returned, or why it did not; a long one is cut before the model sees it."""
    failed: bool = False
    """Whether the call did not do what it should: refused, or tried and failed."""


class Toolbox(Protocol):
    """The tools of one attempt."""

    @property
    def offers(self) -> tuple[ToolOffer, ...]:
        """What the model may call, each name once; it stays the same throughout the attempt."""
        ...

    @property
    def actions(self) -> tuple[ActionTaken, ...]:
        """What was done so far in this attempt, oldest first."""
        ...

    async def call(self, call: ToolCall) -> Observation:
        """Do what the model asks for, or say why not; one call after the other, never two at once.

        ``call.name`` is one of the offers' and ``call.arguments`` the canonical JSON text of an object; whether it
        fits the tool's parameters is still to be checked. ``call.id`` is unique within the attempt. A call that
        suspended the attempt is made again, with the same id, when it goes on.

        It is cancelled when the attempt's time runs out or the attempt is stopped.

        :raises Suspended: a person has to be asked first
        :raises AttemptLost: the attempt is not ours any more
        """
        ...


class Suspended(Exception):
    """A person has to be asked before a call can be made."""

    waits = True
    """For spans: this is no failure."""

    def __init__(self, question: object) -> None:
        super().__init__("a person has to be asked first")
        self.question = question
        """What whoever raised it has to know again; nothing in between looks at it."""


class AttemptSuspended(Exception):
    """An attempt stopped in the middle until a person has answered; it can go on in any process."""

    waits = True
    """For spans: this is no failure."""

    def __init__(self, question: object, transcript: Json) -> None:
        super().__init__("the attempt waits for a person")
        self.question = question
        """That of :class:`Suspended`."""
        self.transcript = transcript
        """What :func:`interlock.agents.worker.execute` has to be given to go on."""


class AttemptLost(Exception):
    """The attempt is no longer ours or was killed: no further call of a model or a tool, no result."""

    def __init__(self, reason: str = "the attempt is no longer this process's") -> None:
        super().__init__(reason)
        self.reason = reason


class _NoTools:
    """The toolbox of an attempt that only thinks."""

    offers: tuple[ToolOffer, ...] = ()
    actions: tuple[ActionTaken, ...] = ()

    async def call(self, call: ToolCall) -> Observation:
        return Observation(f"there is no tool {call.name}: there are none", failed=True)


NO_TOOLS: Toolbox = _NoTools()
"""Offers nothing and does nothing."""
