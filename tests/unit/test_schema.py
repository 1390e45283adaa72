import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema.protocols import Validator
from tests.modules import SOURCE

from interlock.observability import attributes
from interlock.protocol.codec import MAX_BODY, StoredBody, decode, encode, kind_of
from interlock.protocol.control import ControlOrder, TeamScope, control_subject
from interlock.protocol.messages import MESSAGE_TYPES, VERSION, Envelope
from interlock.protocol.schema import HEADERS, PARTICIPANTS, asyncapi, message_schema
from interlock.protocol.subjects import log_subject, parse_log_subject

RECORDED = (Path(__file__).parent / f"recorded_messages_v{VERSION}.jsonl").read_bytes().splitlines()
OLDER = (Path(__file__).parent / "recorded_messages_v1.jsonl").read_bytes().splitlines()
KINDS = [kind_of(model) for model in MESSAGE_TYPES]


@pytest.fixture(scope="module")
def messages() -> Validator:
    return Draft202012Validator(message_schema())


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return asyncapi()


def references(value: Any) -> Iterator[str]:
    match value:
        case {"$ref": str(reference), **rest}:
            yield reference
            yield from references(rest)
        case dict():
            yield from (found for inner in value.values() for found in references(inner))
        case list():
            yield from (found for inner in value for found in references(inner))
        case _:
            return


def resolve(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_recorded_messages_cover_every_kind() -> None:
    """At least one recorded body stands for each kind of message, so that no kind's form changes unseen."""
    assert {json.loads(body)["kind"] for body in RECORDED} == {*KINDS, kind_of(StoredBody)}


@pytest.mark.parametrize("body", [*RECORDED, *OLDER], ids=lambda body: json.loads(body)["kind"])
def test_recorded_message_is_read_and_written_the_same(body: bytes) -> None:
    """A body that this version once wrote is read today, and written again byte for byte."""
    assert encode(decode(body)) == body


@pytest.mark.parametrize("body", [*RECORDED, *OLDER], ids=lambda body: json.loads(body)["kind"])
def test_recorded_message_fits_its_schema(messages: Validator, body: bytes) -> None:
    """What the codec writes is valid by the published JSON Schema."""
    messages.validate(json.loads(body))


@pytest.mark.parametrize(
    "change",
    [{"kind": "task.unknown"}, {"v": VERSION + 1}, {"sender": "me"}, {"attempt": -1}, {"ns": "No.Name"}, {"at": 5}],
    ids=str,
)
def test_schema_refuses_what_the_codec_refuses(messages: Validator, change: dict[str, Any]) -> None:
    """A wrong kind, version, field or value is invalid by the schema as it is for the codec."""
    body = json.loads(next(body for body in RECORDED if b'"task.verdict"' in body))
    assert messages.is_valid(body)
    assert not messages.is_valid(body | change)


@pytest.mark.parametrize("field", ["v", "kind", "id", "at"])
def test_schema_demands_what_is_always_written(messages: Validator, field: str) -> None:
    """Version and kind are required though the types have defaults for them."""
    body = json.loads(RECORDED[0])
    del body[field]
    assert not messages.is_valid(body)


def test_schema_is_a_schema() -> None:
    """The message schema is valid by the metaschema of its dialect, and all of its references lead somewhere."""
    schema = message_schema()
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(schema)
    for reference in references(schema):
        resolve(schema, reference)


def test_schema_says_what_fields_mean() -> None:
    """The attribute docstrings of the types reach readers of the schema."""
    properties = message_schema()["$defs"]["TaskAssigned"]["properties"]
    assert properties["answers"]["description"].startswith("Stream sequence of the message that this one answers")
    assert message_schema()["$defs"]["StoredBody"]["properties"]["size"] == {
        "description": "Bytes.",
        "exclusiveMinimum": 0,
        "maximum": MAX_BODY,
        "title": "Size",
        "type": "integer",
    }


def test_asyncapi_references_lead_somewhere(document: dict[str, Any]) -> None:
    """Every reference of the AsyncAPI document resolves inside it."""
    found = list(references(document))
    assert found
    for reference in found:
        resolve(document, reference)


def test_asyncapi_schemas_are_of_its_dialect(document: dict[str, Any]) -> None:
    """Each schema is valid by draft 7, which AsyncAPI builds on, and uses ``discriminator`` for nothing."""
    for schema in document["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)
        assert '"discriminator"' not in json.dumps(schema)


@pytest.mark.parametrize("body", RECORDED, ids=lambda body: json.loads(body)["kind"])
def test_asyncapi_payload_fits_recorded_message(document: dict[str, Any], body: bytes) -> None:
    """The payload schema of a kind's message takes the bodies that the codec writes for it, and no other kind's."""
    wrapped = {"components": document["components"]}
    messages = document["components"]["messages"]
    content = json.loads(body)
    fitting = [
        name
        for name in messages
        if name != "live" and Draft7Validator(wrapped | messages[name]["payload"]).is_valid(content)
    ]
    assert fitting == [content["kind"]]


@pytest.mark.parametrize("model", MESSAGE_TYPES, ids=kind_of)
def test_every_kind_has_a_channel_with_its_subject(document: dict[str, Any], model: type[Envelope]) -> None:
    """A kind's address, its parameters filled in, is exactly the subject that the code publishes such a message to."""
    channel = document["channels"][kind_of(model)]
    recorded = decode(next(body for body in RECORDED if json.loads(body)["kind"] == kind_of(model)))
    assert isinstance(recorded, Envelope)
    subject = log_subject(recorded)
    parts = parse_log_subject(subject)
    values = {"ns": parts.ns, "part": str(parts.part), "job": parts.job, "task": parts.task}
    values |= {"role": parts.role or "", "by": parts.by or ""}
    assert channel["address"].format(**values) == subject
    assert set(channel["parameters"]) == {name for name in values if f"{{{name}}}" in channel["address"]}
    assert values["part"] in channel["parameters"]["part"]["enum"]
    assert set(channel["messages"]) == {kind_of(model), kind_of(StoredBody)}


def test_every_kind_has_participants(document: dict[str, Any]) -> None:
    """Somebody sends and somebody receives every kind, and the document says so and no more."""
    assert set(PARTICIPANTS) == set(KINDS)
    told = {
        (operation["tags"][0]["name"], operation["action"], operation["channel"]["$ref"].removeprefix("#/channels/"))
        for operation in document["operations"].values()
    }
    assert told == {
        (who, action, kind)
        for kind, participants in PARTICIPANTS.items()
        for action, whose in zip(("send", "receive"), participants, strict=True)
        for who in whose
    }
    assert all(senders and receivers for senders, receivers in PARTICIPANTS.values())


def test_operations_name_messages_of_their_channel(document: dict[str, Any]) -> None:
    """An operation's messages are references through its channel, as AsyncAPI 3 demands."""
    for operation in document["operations"].values():
        channel = operation["channel"]["$ref"]
        assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"])


def test_headers_are_those_that_are_sent(document: dict[str, Any]) -> None:
    """The header names of the contract are exactly those that the code of tracing and of the bus has."""
    named = {value for name, value in vars(attributes).items() if name.startswith("HEADER_")}
    bus = "".join((SOURCE / "runtime" / name).read_text() for name in ("bus.py", "_append.py"))
    named |= set(re.findall(r'"((?:Interlock|Nats)-[A-Za-z-]+)"', bus))
    assert named == set(HEADERS)
    assert set(document["components"]["schemas"]["Headers"]["properties"]) == set(HEADERS)


def test_documents_are_plain_json() -> None:
    """Both documents survive a round trip through JSON and are made anew for each caller."""
    for make in (message_schema, asyncapi):
        assert json.loads(json.dumps(make())) == make()
        make().clear()
        assert make()


def test_kill_orders_have_a_channel() -> None:
    """Whoever writes or hears orders finds their subject and their form, and a real order is valid by it."""
    document = asyncapi()
    channel = document["channels"]["control.order"]
    order = ControlOrder(id="o1", stop=True, scope=TeamScope(team="digest"), at=datetime(2026, 1, 1, tzinfo=UTC))
    subject = control_subject("main", order.scope)
    assert subject == channel["address"].replace("{ns}", "main").replace("{scope}", "team.digest")
    schemas = {"$defs": document["components"]["schemas"], "$ref": "#/$defs/ControlOrder"}
    body = json.loads(json.dumps(schemas).replace("#/components/schemas/", "#/$defs/"))
    Draft202012Validator(body).validate(order.model_dump(mode="json"))
