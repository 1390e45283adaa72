"""Permission rules: what may be called with which arguments. Pure.

``deny`` beats ``ask`` beats ``allow``, no match is deny, and layers (operator, team, agent, step) can only narrow.
"""

from typing import Annotated, Literal

from pydantic import Discriminator, Tag

from interlock.protocol.base import Strict
from interlock.protocol.tools import EffectClass

__all__ = ["ArgumentRule", "PermissionRule", "Permissions", "RuleSpec", "Source"]

Source = Literal["pinned", "instructed", "field", "data"]
"""Where the value of an argument comes from. ``pinned``: the plan fixed it before anything from outside came in.
``instructed``: it stands as a whole in the untainted part of the instruction. ``field``: it is a whole field of a
structured result. ``data``: anything else."""


class ArgumentRule(Strict):
    """What an argument must be for a rule to match."""

    like: tuple[str, ...] = ("**",)
    """Patterns; one of them must fit."""
    source: tuple[Source, ...] = ("pinned",)
    """Where the value may come from once text from outside is in the context."""


class RuleSpec(Strict):
    """A rule in its long form."""

    tool: str = "*"
    """The tool's name; ``*`` stands for any part of it."""
    effect: tuple[EffectClass, ...] = ()
    """Only calls of these effect classes; empty: of any."""
    network: bool | None = None
    """Only tools that do (or do not) reach beyond this machine."""
    arguments: dict[str, ArgumentRule] = {}
    """By the argument's name; ``*`` stands for all that are not named."""


PermissionRule = Annotated[
    Annotated[str, Tag("text")] | Annotated[RuleSpec, Tag("rule")],
    Discriminator(lambda value: "rule" if isinstance(value, (dict, RuleSpec)) else "text"),
]
"""A rule as text, such as ``files.read(./docs/**)``, or in its long form."""


class Permissions(Strict):
    """The rules of one layer. A layer without any rule narrows nothing."""

    allow: tuple[PermissionRule, ...] = ()
    ask: tuple[PermissionRule, ...] = ()
    deny: tuple[PermissionRule, ...] = ()
