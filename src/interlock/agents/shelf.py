"""What a planner needs besides the state of its job, and what was brought to it: items, outputs, whole inputs.

The state holds no lists of items and no outputs of items that were settled: these are in the object store and in the
log. A planner says what a message is made of (``Wanted``), and whoever carries the job brings it (``Shelf``).
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

from interlock.protocol.base import Json
from interlock.protocol.items import Chunk, StoredItems
from interlock.protocol.state import StepState

__all__ = ["NOTHING", "NOTHING_BROUGHT", "NotBrought", "Outputs", "Places", "Shelf", "Stream", "Wanted", "standing"]


class NotBrought(LookupError):
    """Something that a message is made of is not there. ``reason`` says why, as far as that is known."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what} cannot be had: {reason or 'nobody brought it'}")


@dataclass(frozen=True, slots=True)
class Stream:
    """A list that is a step's accepted outputs, and need not be held to be stored."""

    step: str
    member: Literal["outputs", "results"]
    """As in templates: outputs only, or ``{index, item, output}``."""
    items: StoredItems | None = None
    """The step's own items, where they are stored."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the message of a command is made of, as far as the state does not hold it."""

    chunks: tuple[Chunk, ...] = ()
    """Of items."""
    outputs: tuple[str, ...] = ()
    """The steps of which all accepted outputs are needed."""
    inputs: Mapping[str, StoredItems] = field(default_factory=dict[str, StoredItems])
    """Lists that are needed as a whole, by the names of the inputs."""
    bound: int | None = None
    """The bytes of JSON beyond which the outputs of a step are not wanted after all."""
    stream: Stream | None = None
    """What the items of the step are that is expanded."""


NOTHING = Wanted()


class Outputs:
    """The accepted outputs of a step, each with the position of its item, in order."""

    def __init__(self, entries: Iterable[tuple[int, Json]]) -> None:
        self.entries = tuple(entries)
        self.values: list[Json] = [output for _, output in self.entries]
        self.results: list[Json] | None = None
        """``{index, item, output}`` of each, once somebody has put them together."""


class Places:
    """Where each item of a stored list is."""

    def __init__(self, stored: StoredItems) -> None:
        self.stored = stored
        self._ends = list(accumulate(chunk.items for chunk in stored.chunks))

    def find(self, index: int) -> tuple[Chunk, int] | None:
        """Return the chunk that the item at a position is in and its position there; None if there is no such item."""
        number = bisect_right(self._ends, index)
        if number == len(self._ends):
            return None
        return self.stored.chunks[number], index - (self._ends[number - 1] if number else 0)


@dataclass(frozen=True, slots=True)
class Shelf:
    """What was brought. All of it is there or ``missing`` says why not."""

    chunks: Mapping[Chunk, Sequence[Json]] = field(default_factory=dict[Chunk, Sequence[Json]])
    outputs: Mapping[str, Outputs] = field(default_factory=dict[str, Outputs])
    inputs: Mapping[str, list[Json]] = field(default_factory=dict[str, list[Json]])
    beyond: frozenset[str] = frozenset()
    """The steps whose outputs are more than the bound."""
    expanded: StoredItems | Sequence[Json] | None = None
    """The items of the step that is expanded: where they are, or they themselves if they are few. None: they need not
    be worked out, or cannot be."""
    missing: str = ""


NOTHING_BROUGHT = Shelf()


def standing(step: StepState) -> tuple[int, ...]:
    """Return what tells this end of a step from every other that it had before something of it was put back.

    What is kept of what a step that is over delivered is good as long as this is the same.
    """
    return (step.size or 0, step.accepted, step.failed, step.cancelled, step.redone)
