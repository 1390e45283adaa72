"""Messages to bytes and back: UTF-8 JSON, defaults left out, every failure a ``ProtocolError``."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from interlock.protocol.base import Strict
from interlock.protocol.errors import (
    BodyNotJson,
    BodyTooLarge,
    KindUnknown,
    MessageInvalid,
    ProtocolError,
    VersionUnknown,
)
from interlock.protocol.messages import MESSAGE_TYPES, VERSION, Envelope, Message
from interlock.protocol.versions import NEW_KINDS, fields_since, left_out

__all__ = ["MAX_BODY", "MAX_INLINE", "StoredBody", "decode", "encode", "kind_of"]

MAX_INLINE = 256 * 1024
"""The most bytes of a body that stand in the log itself; a larger one goes to the object store."""

MAX_BODY = 64 * 1024 * 1024
"""The most bytes of a body at all."""

_PROBLEMS_SHOWN = 5
_TEXT_SHOWN = 200


class StoredBody(Strict):
    """What stands in the log in place of a body that is in the object store."""

    v: Literal[1, 2] = VERSION
    kind: Literal["body.stored"] = "body.stored"
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    size: int = Field(gt=0, le=MAX_BODY)
    """Bytes."""


_WIRE: TypeAdapter[Message | StoredBody] = TypeAdapter(Annotated[Message | StoredBody, Field(discriminator="kind")])


def kind_of(message: type[Envelope | StoredBody]) -> str:
    """Return the kind of a type of messages, such as ``task.result``."""
    return str(message.model_fields["kind"].default)


_KINDS = (*(kind_of(model) for model in MESSAGE_TYPES), kind_of(StoredBody))


def encode(message: Envelope | StoredBody, version: int = VERSION) -> bytes:
    """Return the body of ``message``, for readers of ``version`` and of later ones.

    A message that was made for an older version is written in that one.

    :raises BodyTooLarge: it would be more than ``MAX_BODY`` bytes
    :raises NotInVersion: readers of ``version`` cannot be told what it says
    """
    written = min(message.v, version)
    later = left_out(message, written) if written < VERSION and isinstance(message, Envelope) else ()
    fields = message.model_dump_json(exclude_defaults=True, exclude={"v", "kind", *later})
    kind = kind_of(type(message))
    body = f'{{"v":{written},"kind":"{kind}",{fields[1:]}'.encode()
    if len(body) > MAX_BODY:
        raise BodyTooLarge(len(body), MAX_BODY)
    return body


def decode(body: bytes, newest: int = VERSION) -> Message | StoredBody:
    """Return the message that ``body`` is, or the reference to it, as a reader that knows versions up to ``newest``.

    :raises BodyTooLarge: more than ``MAX_BODY`` bytes
    :raises BodyNotJson: not JSON, or nested too deeply to read
    :raises VersionUnknown: another version of the schema
    :raises KindUnknown: no such kind, or none of its version
    :raises MessageInvalid: wrong, missing or unknown fields, or such as its version does not have
    """
    if len(body) > MAX_BODY:
        raise BodyTooLarge(len(body), MAX_BODY)
    try:
        message = _WIRE.validate_json(body)
    except ValidationError as error:
        raise _explain(body, error, newest) from None
    if "v" not in message.model_fields_set:
        raise VersionUnknown(None, newest)
    if message.v > newest:
        raise VersionUnknown(message.v, newest)
    if message.v < VERSION and isinstance(message, Envelope) and (later := fields_since(message)):
        raise _too_new(message, later)
    return message


def _too_new(message: Message, later: Sequence[str]) -> ProtocolError:
    """Return why a message is none: it has what came after its version."""
    if later == ["kind"]:
        known = tuple(kind_of(one) for one in MESSAGE_TYPES if NEW_KINDS.get(one, 1) <= message.v)
        return KindUnknown(message.kind, known)
    return MessageInvalid(message.kind, tuple(f"{name}: version {message.v} has no such field" for name in later))


def _explain(body: bytes, error: ValidationError, newest: int) -> Exception:
    """Find the one condition that ``error`` stands for; only bodies that are refused pay for this second look."""
    problems = error.errors(include_url=False, include_input=False)
    if problems[0]["type"] == "json_invalid":
        return BodyNotJson(problems[0]["msg"])
    document = from_json(body)
    if not isinstance(document, dict):
        return BodyNotJson(f"it is {_json_type(document)}")
    if (version := document.get("v")) not in range(1, newest + 1):
        return VersionUnknown(_brief(version), newest)
    if (kind := document.get("kind")) not in _KINDS:
        return KindUnknown(_brief(kind), _KINDS)
    told = [
        f"{_brief('.'.join(str(part) for part in problem['loc'][1:])) or kind}: {_brief(problem['msg'])}"
        for problem in problems[: _PROBLEMS_SHOWN + 1]
    ]
    more = [f"and {len(problems) - _PROBLEMS_SHOWN} more"] if len(told) > _PROBLEMS_SHOWN else []
    return MessageInvalid(str(kind), (*told[:_PROBLEMS_SHOWN], *more))


def _brief(value: Any) -> Any:
    """Return ``value``, or how its text begins: an error can be read and logged whatever was sent."""
    text = str(value)
    return value if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}..."


def _json_type(value: Any) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")
