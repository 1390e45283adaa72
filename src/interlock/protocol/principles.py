"""Principles: checks on plans and on actions that nothing overrides. Pure."""

from typing import Annotated

from pydantic import Discriminator, Tag

from interlock.protocol.base import Strict
from interlock.protocol.permissions import RuleSpec

__all__ = ["Principle", "PrincipleSpec"]


class PrincipleSpec(Strict):
    """A principle in its long form: what must never be done."""

    never: RuleSpec
    """The calls that it is about."""
    before: RuleSpec | None = None
    """Only as long as no call like this was made in the job."""
    after: RuleSpec | None = None
    """Only once a call like this was made in the job."""
    tainted: bool = False
    """Only where text from outside is in the context."""
    name: str = ""
    """What people call it."""


Principle = Annotated[
    Annotated[str, Tag("text")] | Annotated[PrincipleSpec, Tag("principle")],
    Discriminator(lambda value: "principle" if isinstance(value, (dict, PrincipleSpec)) else "text"),
]
"""A principle as a sentence, such as ``never send anything outside``, or in its long form."""
