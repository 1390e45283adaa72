"""What a strategy makes of a task: the form that the model's answer must have, and how to read it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from interlock.protocol.base import Json

__all__ = ["Form", "Schema", "Strategy", "Thought"]

Schema: TypeAlias = dict[str, Json]
"""A JSON Schema."""


@dataclass(frozen=True, slots=True)
class Thought:
    """An answer taken apart."""

    output: Json
    """What the task asked for."""
    reasoning: str = ""
    """How the model came to it, in its own words."""


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an answer."""

    schema: Schema | None
    """What the answer is bound to; None: free text."""
    hint: str
    """What the model is told about the form; may be empty."""
    split: Callable[[Json], Thought | None]
    """Takes an answer apart; None where it does not have this form."""


Strategy: TypeAlias = Callable[[Schema | None], Form]
"""From the JSON Schema of the output (None: text) to the form of the answer."""
