"""What is known of a tool without running it, and what a grant lets an attempt do with it. Plain data.

The catalogue of a job's tools travels in ``job.submitted``: what a tool is (above all its effect class) is settled
when the job begins, and no process that has the tool's code can make it look more harmless later.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from interlock.protocol.base import Json, Strict

__all__ = ["EFFECT_CLASSES", "ArgumentKind", "EffectClass", "Pin", "ToolGrant", "ToolName", "ToolSpec"]

EffectClass = Literal["read", "idempotent", "once", "irreversible"]
"""What a call changes outside. ``read``: nothing. ``idempotent``: the same key again changes nothing more. ``once``:
doing it twice is wrong. ``irreversible``: it cannot be made good, so a person is asked first."""

EFFECT_CLASSES: tuple[EffectClass, ...] = ("read", "idempotent", "once", "irreversible")
"""From the most harmless to the gravest."""

ArgumentKind = Literal["text", "path", "url", "command"]
"""How an argument is brought into one form before rules look at it: a ``path`` is made absolute and resolved through
links, a ``url`` is decoded and lowercased where case means nothing, a ``command`` is parsed into all the commands that
a shell would run."""

ToolName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*(\.[a-zA-Z0-9_-]+)+$", max_length=128)]
"""A dotted name, such as ``files.read`` or ``tickets.create``."""


class ToolSpec(Strict):
    """One tool as its callers and its judges see it."""

    name: ToolName
    description: str = ""
    parameters: dict[str, Json] = {"type": "object", "properties": {}}
    """JSON Schema of the arguments: an object."""
    effect: EffectClass = "irreversible"
    """A tool that does not say what it does is taken for the worst."""
    network: bool = False
    """Whether it sends anything beyond this machine, its arguments included."""
    outside: bool = True
    """Whether what it returns is text from outside, that nobody of the team wrote and that may lie."""
    kinds: dict[str, ArgumentKind] = {}
    """The arguments that are more than text to the rules."""
    primary: str | None = None
    """The argument that a rule means which names none, as in ``files.read(./docs/**)``."""
    destinations: tuple[str, ...] = ()
    """The arguments that say where an effect goes: recipients, addresses, paths."""
    probe: bool = False
    """Whether the tool can say afterwards if an effect with a given key took place."""


class Pin(Strict):
    """The one value that an argument may have, as the plan says it."""

    value: Json
    tainted: bool = False
    """Whether text from outside went into it, so that it is no decision of whoever wrote the plan."""


class ToolGrant(Strict):
    """A tool that an attempt may call; several grants for one tool are alternatives."""

    tool: ToolName
    pins: dict[str, Pin] = {}
    """A call must have these values; what it leaves out is filled in with them."""
    times: int | None = Field(default=None, ge=1)
    """How many calls of one attempt it is good for; None: as many as it likes."""
