"""All that writing a tool takes: the mark ``@tool``, and what a tool can ask to be given besides its arguments.

::

    @tool(effect="once", network=True, destinations=("to",))
    async def send(to: str, text: str, key: Key, token: Annotated[str, Secret("MAIL_TOKEN")]) -> str:
        "Send a mail."

``key`` and ``token`` are no arguments: they never come from a model and never stand in the tool's schema.
"""

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, TypeVar

from interlock.agents.tools.isolation import Sandbox
from interlock.protocol.tools import ArgumentKind, EffectClass

__all__ = [
    "NOT_DONE",
    "Declaration",
    "IdempotencyKey",
    "Key",
    "NotDone",
    "Secret",
    "ToolContext",
    "declaration_of",
    "tool",
]

_MARK = "__interlock_tool__"
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Marks the parameter that gets the call's idempotency key."""


Key: TypeAlias = Annotated[str, IdempotencyKey()]
"""The type of a parameter that gets the call's idempotency key: the same text whenever the same call of the same task
is made again, in whichever attempt."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Marks the parameter that gets a secret of the team: ``token: Annotated[str, Secret("MAIL_TOKEN")]``."""

    name: str
    """Its name under ``secrets`` in the team file."""


class NotDone(enum.Enum):
    """What a probe answers where the effect did not take place."""

    NOT_DONE = enum.auto()


NOT_DONE: Final = NotDone.NOT_DONE
"""The effect did not take place, so the call may be made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """The call that a tool is part of; a parameter annotated with it gets it."""

    job: str
    task: str
    attempt: int
    """Counted from 1."""
    key: str
    """The idempotency key, as in :data:`Key`."""
    base: Path
    """The folder of the team file, absolute."""
    sandbox: Callable[[], Awaitable[Sandbox]] = field(repr=False)
    """Where to run what nobody trusts. :raises SandboxMissing: none works on this machine"""
    allow_url: Callable[[str], Awaitable[None]] = field(repr=False)
    """To be asked before a tool goes to an address that its arguments do not name. :raises ToolRefused: it may not"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """What ``@tool`` says of a function. The fields mean what they mean in :class:`ToolSpec`."""

    effect: EffectClass
    name: str | None = None
    network: bool = False
    outside: bool = True
    destinations: tuple[str, ...] = ()
    kinds: Mapping[str, ArgumentKind] = field(default_factory=dict)
    primary: str | None = None
    probe: Callable[..., Any] | None = None


def tool(
    *,
    effect: EffectClass,
    name: str | None = None,
    network: bool = False,
    outside: bool = True,
    destinations: tuple[str, ...] = (),
    kinds: Mapping[str, ArgumentKind] | None = None,
    primary: str | None = None,
    probe: Callable[..., Any] | None = None,
) -> Callable[[_Function], _Function]:
    """Mark a function, async or not, as a tool; it stays what it was and can be called as before.

    Its arguments are those of its parameters that are not annotated with :data:`Key`, :class:`Secret` or
    :class:`ToolContext`; its docstring is what a model reads of it. A function that is not async runs in a thread.

    :param effect: what a call changes outside; there is no default, since none would be safe
    :param name: ``something.name``; left out: the file's name and the function's
    :param network: whether it sends anything beyond this machine, its arguments included
    :param outside: whether it returns text that nobody of the team wrote; False only where that is certain
    :param destinations: the arguments that say where the effect goes
    :param kinds: the arguments that are paths, URLs or commands; those annotated as ``Path`` or as a URL of pydantic
        need not be named
    :param primary: the argument that a rule means which names none; left out: the only one, if there is one only
    :param probe: ``probe(key, ...)`` with any of the tool's parameters says what the call with that key returned, or
        :data:`NOT_DONE`
    """
    declaration = Declaration(
        effect=effect,
        name=name,
        network=network,
        outside=outside,
        destinations=destinations,
        kinds=dict(kinds or {}),
        primary=primary,
        probe=probe,
    )

    def mark(function: _Function) -> _Function:
        setattr(function, _MARK, declaration)
        return function

    return mark


def declaration_of(value: object) -> Declaration | None:
    """Return what ``@tool`` said of ``value``; None where it is not marked."""
    found: object = getattr(value, _MARK, None)
    return found if isinstance(found, Declaration) else None
