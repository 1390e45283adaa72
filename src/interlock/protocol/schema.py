"""The protocol for readers in other languages: JSON Schema of the messages, and an AsyncAPI 3 document.

Both are computed from the message types and from ``interlock.protocol.subjects``, so they cannot say anything else
than the code does. They describe what senders write; a reader may take less, such as a body without ``v``.
"""

from collections.abc import Iterator, Mapping
from inspect import cleandoc
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from interlock.protocol.codec import StoredBody, kind_of
from interlock.protocol.control import ControlOrder
from interlock.protocol.messages import (
    JOB_TASK,
    MESSAGE_TYPES,
    VERSION,
    EffectDone,
    EffectInDoubt,
    Envelope,
)
from interlock.protocol.subjects import PARTITIONS, live_subject, log_subject, partition_of

__all__ = ["HEADERS", "PARTICIPANTS", "Participant", "Participants", "asyncapi", "message_schema"]

Participant = Literal["client", "manager", "worker", "verifier", "team"]
"""Who takes part in the protocol; a client is whoever submits, watches and answers for a person, a team an agent that
is one and has its tasks done as jobs."""


class Participants(NamedTuple):
    """Who sends messages of a kind and who acts on them."""

    senders: tuple[Participant, ...]
    receivers: tuple[Participant, ...]


PARTICIPANTS: Mapping[str, Participants] = {
    "job.submitted": Participants(("client", "team"), ("manager",)),
    "plan.proposed": Participants(("manager",), ("manager",)),
    "plan.accepted": Participants(("manager",), ("manager", "client")),
    "plan.rejected": Participants(("manager",), ("manager", "client")),
    "plan.expanded": Participants(("manager",), ("manager", "client")),
    "task.assigned": Participants(("manager",), ("worker", "team", "verifier")),
    "task.result": Participants(("worker", "team"), ("verifier", "manager")),
    "task.verdict": Participants(("verifier",), ("manager",)),
    "task.closed": Participants(("manager",), ("manager", "client")),
    "question.asked": Participants(("worker",), ("client", "manager")),
    "question.answered": Participants(("client", "manager"), ("manager", "worker")),
    "effect.intended": Participants(("worker",), ("manager", "worker", "client")),
    "effect.done": Participants(("worker",), ("manager", "worker", "client")),
    "effect.in_doubt": Participants(("worker",), ("manager", "worker", "client")),
    "job.closed": Participants(("manager",), ("client", "team")),
    "job.retried": Participants(("client",), ("manager",)),
}
"""For each kind of message who sends it and who acts on it; every participant may read the whole log of a job."""

HEADERS: Mapping[str, str] = {
    "Nats-Msg-Id": "The message's ``id``: the broker drops a second message with the same one.",
    "Nats-Expected-Last-Subject-Sequence": "The message's ``answers``. The broker refuses a message whose chain has "
    "moved on. Not on what is recorded outside a chain.",
    "Nats-Expected-Last-Subject-Sequence-Subject": "The wildcard over the chain that the message belongs to.",
    "Interlock-Kind": "The message's ``kind``, so that a body need not be read to know it.",
    "traceparent": "W3C Trace Context: the span that sent the message.",
    "tracestate": "W3C Trace Context: what tracing vendors add.",
    "Interlock-Root": "On ``job.submitted``: the traceparent that the job's span hangs below.",
    "Interlock-Origin": "On ``task.result`` and ``task.verdict``: the traceparent of the span that made it.",
    "Interlock-Replaces": "On ``task.assigned`` of a redo: the ``Interlock-Origin`` of the attempt that is done again.",
}
"""The broker headers that messages carry, and what each says. Values are strings."""

_PARAMETERS: Mapping[str, dict[str, Any]] = {
    "ns": {"description": "The namespace: installations that share a broker by it do not meet."},
    "part": {
        "description": f"The CRC-32 of the job's id modulo {PARTITIONS}; managers share jobs out by it.",
        "enum": [str(part) for part in range(PARTITIONS)],
    },
    "job": {"description": "The job's id."},
    "task": {"description": "The id of the task that the message is about."},
    "role": {"description": "Whose queue this is for, as ``agent@team``."},
    "by": {"description": "Who sends it, as ``agent@team``: the broker lets nobody else."},
    "event": {"description": "What kind of progress this is."},
    "scope": {"description": "What the order is about: ``all``, ``team.T``, ``job.J`` or ``agent.T.A``."},
}

_LIVE = "live"
_CONTROL = "control.order"
_STORED = kind_of(StoredBody)
_JOB_KINDS = ("job.", "plan.")
_BODIES: tuple[type[Envelope | StoredBody], ...] = (*MESSAGE_TYPES, StoredBody)


def message_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of every body that may stand in the log."""
    pointers = {kind_of(model): f"#/$defs/{model.__name__}" for model in _BODIES}
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "Interlock messages",
        "description": f"A body in the log of Interlock, version {VERSION} of the schema.",
        "oneOf": [{"$ref": pointer} for pointer in pointers.values()],
        "discriminator": {"propertyName": "kind", "mapping": pointers},
        "$defs": _schemas("#/$defs/{model}"),
    }


def asyncapi() -> dict[str, Any]:
    """Return an AsyncAPI 3.0 document: each kind's channel and message, and what each participant does with it."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Interlock",
            "version": str(VERSION),
            "description": "Teams of agents that plan, execute, verify and redo their work over NATS. What goes to a "
            "``log`` subject stands in one JetStream stream; a job's state is the fold of its messages.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "nats": {"host": "{host}", "protocol": "nats", "variables": {"host": {"default": "127.0.0.1:4222"}}},
        },
        "channels": {
            **{kind_of(model): _channel(model) for model in MESSAGE_TYPES},
            _LIVE: _live_channel(),
            _CONTROL: _control_channel(),
        },
        "operations": dict(_operations()),
        "components": {
            "messages": {
                **{kind_of(model): _message(model) for model in _BODIES},
                _LIVE: _live_message(),
                _CONTROL: _control_message(),
            },
            "schemas": _plain(_schemas("#/components/schemas/{model}", ControlOrder)) | {"Headers": _headers()},
        },
    }


def _schemas(ref_template: str, *more: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of each message, of ``more`` and of everything in them, by name."""
    _, document = models_json_schema([(model, "validation") for model in (*_BODIES, *more)], ref_template=ref_template)
    schemas: dict[str, Any] = document["$defs"]
    for model in _BODIES:  # these have defaults, for whoever makes a message, but a body always says them
        schema = schemas[model.__name__]
        schema["required"] = ["v", "kind", *schema["required"]]
    return schemas


def _plain(schema: Any) -> Any:
    """Leave out the OpenAPI ``discriminator`` objects: AsyncAPI has another use for that word."""
    match schema:
        case dict():
            return {key: _plain(value) for key, value in schema.items() if not _is_discriminator(key, value)}
        case list():
            return [_plain(value) for value in schema]
        case _:
            return schema


def _is_discriminator(key: str, value: Any) -> bool:
    return key == "discriminator" and isinstance(value, dict) and "propertyName" in value


def _channel(model: type[Envelope]) -> dict[str, Any]:
    kind = kind_of(model)
    address = _address(model)
    return {
        "address": address,
        "title": kind,
        "description": _about_chain(model),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in (kind, _STORED)},
        "parameters": _parameters_of(address),
    }


def _address(model: type[Envelope]) -> str:
    """Return the subject of a message of which every part that varies is a placeholder."""
    task = JOB_TASK if kind_of(model).startswith(_JOB_KINDS) else "{task}"
    placeholders: dict[str, Any] = {"ns": "{ns}", "job": "{job}", "task": task, "role": "{role}", "by": "{by}"}
    subject = log_subject(model.model_construct(**placeholders))
    return subject.replace(f".log.{partition_of('{job}')}.", ".log.{part}.")


def _about_chain(model: type[Envelope]) -> str:
    if issubclass(model, EffectDone | EffectInDoubt):
        return "Outside the task's chain: the broker always takes it."
    chain = "job" if kind_of(model).startswith(_JOB_KINDS) else "task"
    return f"In the {chain}'s chain: the broker refuses it unless it answers the chain's last message."


def _parameters_of(address: str) -> dict[str, Any]:
    return {name: parameter for name, parameter in _PARAMETERS.items() if f"{{{name}}}" in address}


def _live_channel() -> dict[str, Any]:
    address = live_subject("{ns}", "{job}", "{by}", "{event}")
    return {
        "address": address,
        "title": "live progress",
        "description": "Core NATS, in no stream: who does not listen misses it.",
        "messages": {_LIVE: {"$ref": f"#/components/messages/{_LIVE}"}},
        "parameters": _parameters_of(address),
    }


def _control_channel() -> dict[str, Any]:
    address = "il.{ns}.control.{scope}"
    return {
        "address": address,
        "title": "kill and resume orders",
        "description": "A stream that keeps the last order of each scope; its sequence is the order's epoch.",
        "messages": {_CONTROL: {"$ref": f"#/components/messages/{_CONTROL}"}},
        "parameters": _parameters_of(address),
    }


def _control_message() -> dict[str, Any]:
    return {
        "name": _CONTROL,
        "title": ControlOrder.__name__,
        "summary": cleandoc(ControlOrder.__doc__ or ""),
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{ControlOrder.__name__}"},
    }


def _message(model: type[Envelope | StoredBody]) -> dict[str, Any]:
    return {
        "name": kind_of(model),
        "title": model.__name__,
        "summary": cleandoc(model.__doc__ or ""),
        "contentType": "application/json",
        "headers": {"$ref": "#/components/schemas/Headers"},
        "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
    }


def _live_message() -> dict[str, Any]:
    return {
        "name": _LIVE,
        "summary": "Progress for whoever watches. Nothing may depend on it, so its form is no part of the contract.",
        "contentType": "application/json",
        "payload": {},
    }


def _headers() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": meaning} for name, meaning in HEADERS.items()},
        "required": ["Nats-Msg-Id", "Interlock-Kind"],
    }


def _operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for kind, (senders, receivers) in PARTICIPANTS.items():
        yield from (_operation(who, "send", kind) for who in senders)
        yield from (_operation(who, "receive", kind) for who in receivers)


def _operation(who: Participant, action: Literal["send", "receive"], kind: str) -> tuple[str, dict[str, Any]]:
    channel = f"#/channels/{kind}"
    return f"{who}.{action}.{kind}", {
        "action": action,
        "channel": {"$ref": channel},
        "summary": f"A {who} {action}s {kind}.",
        "messages": [{"$ref": f"{channel}/messages/{name}"} for name in (kind, _STORED)],
        "tags": [{"name": who}],
    }
