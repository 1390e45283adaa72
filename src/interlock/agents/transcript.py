"""What an attempt that waits for a person has to remember, as JSON that any process can go on from."""

from typing import Literal

from pydantic import Field, ValidationError

from interlock.backends.chat import ChatMessage
from interlock.protocol.base import Json, Strict, Usage

__all__ = ["Transcript", "TranscriptUnreadable", "read_transcript"]


class Transcript(Strict):
    """An attempt up to the call that it waits with."""

    v: Literal[1] = 1
    messages: tuple[ChatMessage, ...]
    """The conversation so far. The calls of its last turn that no message answers are still to be made."""
    usage: Usage
    """Of all model calls so far."""
    last: Usage
    """Of the last one, which tells how large the conversation has become."""
    seconds: float = Field(ge=0)
    """How long the attempt has worked; waiting for the person does not count."""


class TranscriptUnreadable(ValueError):
    """A JSON value is no transcript of this version."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"this is no transcript of an attempt that can be gone on with: {problem}")
        self.problem = problem


def read_transcript(value: Json) -> Transcript:
    """Return the transcript that ``value`` is.

    :raises TranscriptUnreadable: it is none
    """
    try:
        return Transcript.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TranscriptUnreadable(f"{where}: {first['msg']}" if where else first["msg"]) from None
