"""What version 1 wrote is read today, and what is written for version 1 is what its readers take."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tests.property.strategies import messages_of

from interlock.protocol.codec import decode, encode, kind_of
from interlock.protocol.errors import KindUnknown, MessageInvalid, NotInVersion, VersionUnknown
from interlock.protocol.machine import fold
from interlock.protocol.messages import MESSAGE_TYPES, VERSION, Envelope
from interlock.protocol.schema import message_schema
from interlock.protocol.state import Entry
from interlock.protocol.versions import NEW_FIELDS, NEW_INSIDE, NEW_KINDS, WIDENED, left_out

DATA = Path(__file__).parents[2] / "data"
LOG = [json.loads(line) for line in (DATA / "messages-v1.jsonl").read_text().splitlines()]
"""The raw log of a job, as version 1 wrote it."""
SCHEMA: dict[str, Any] = json.loads((DATA / "schema-v1.json").read_text())
"""The schema that version 1 printed of its messages: whatever is valid by it, its readers took."""
READER = Draft202012Validator(SCHEMA)
NOW = (Path(__file__).parents[1] / f"recorded_messages_v{VERSION}.jsonl").read_bytes().splitlines()


def envelope(body: bytes) -> Envelope:
    """Return the message in ``body``, which is none that refers to another."""
    message = decode(body)
    assert isinstance(message, Envelope)
    return message


def test_the_log_of_version_1_is_read_and_folded() -> None:
    """A job that version 1 ran has the same end for readers of today: nothing refused, each task as it was."""
    entries = [Entry(one["seq"], envelope(json.dumps(one["body"]).encode())) for one in LOG]  # type: ignore[arg-type]
    state = fold(entries)
    assert state.refused == 0
    assert state.closed is not None
    assert state.closed.status == "partial"
    assert {task.id: task.outcome for task in state.tasks.values()} == {
        **dict.fromkeys(("read:0", "read:1", "act", "put"), "accepted"),
        "read:2": "failed",
    }
    assert {len(task.attempts) for task in state.tasks.values()} == {1, 2, 3}


@pytest.mark.parametrize("one", LOG, ids=lambda one: f"{one['seq']}-{one['body']['kind']}")
def test_what_version_1_wrote_is_written_the_same(one: dict[str, Any]) -> None:
    """A message of version 1 that goes out again stays one that its readers take."""
    body = json.loads(encode(envelope(json.dumps(one["body"]).encode())))
    assert body == one["body"]
    READER.validate(body)


@pytest.mark.parametrize("body", NOW, ids=lambda body: json.loads(body)["kind"])
def test_version_1_is_told_what_it_can_be_told(body: bytes) -> None:
    """Today's messages go to readers of version 1 without what is new, and not at all where that is what they say."""
    if json.loads(body)["kind"] == "body.stored":
        READER.validate(json.loads(encode(decode(body), 1)))
        return
    message = envelope(body)
    needed = {name for name, new in NEW_FIELDS.get(type(message), {}).items() if new.needed}
    if type(message) in NEW_KINDS or needed & message.model_fields_set:
        with pytest.raises(NotInVersion, match="version 1"):
            encode(message, 1)
        return
    written = encode(message, 1)
    READER.validate(json.loads(written))
    again = decode(written, newest=1)
    assert isinstance(again, Envelope)
    same = {"v", *left_out(message, 1)}
    assert again.model_dump(exclude=same) == message.model_dump(exclude=same)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(message=st.sampled_from(MESSAGE_TYPES).flatmap(messages_of))
def test_whatever_is_written_for_version_1_is_read_by_it(message: Envelope) -> None:
    """Any message either cannot be said in version 1 or is one that a strict reader of it takes."""
    try:
        written = encode(message, 1)
    except NotInVersion:
        return
    assert decode(written, newest=1) is not None
    READER.validate(json.loads(written))


def test_a_reader_of_version_1_takes_nothing_newer() -> None:
    """Held back, a process refuses what version 1 refused: the newer version, kind and field."""
    with pytest.raises(VersionUnknown, match=r"knows version 1$"):
        decode(NOW[0], newest=1)
    for body in NOW:
        older = json.dumps(json.loads(body) | {"v": 1}).encode()
        kind = json.loads(body)["kind"]
        given = set(json.loads(body))
        new = {name for model, fields in NEW_FIELDS.items() if kind_of(model) == kind for name in fields}
        if kind in {kind_of(model) for model in NEW_KINDS}:
            with pytest.raises(KindUnknown):
                decode(older)
        elif given & new:
            with pytest.raises(MessageInvalid, match="version 1 has no such field"):
                decode(older)
        else:
            assert decode(older, newest=1) == decode(older)


def test_all_that_is_new_stands_in_the_table() -> None:
    """Every field and kind that version 1 did not have is told of in ``versions``; nothing of it changed or went."""
    then, now = SCHEMA["$defs"], message_schema()["$defs"]
    names = {model.__name__: model for model in MESSAGE_TYPES}
    new = {
        (name, field) for name in then for field in set(now[name].get("properties", {})) - set(_properties(then, name))
    }
    assert new == {(model.__name__, field) for model, fields in NEW_FIELDS.items() for field in fields} | NEW_INSIDE
    assert {names[name] for name in set(now) - set(then) if name in names} == set(NEW_KINDS)
    for name in then:
        for field, was in _properties(then, name).items():
            if (name, field) in WIDENED:
                assert now[name]["properties"][field] != was, f"{name}.{field}"
            elif field != "v":
                assert _bare(now[name]["properties"][field]) == _bare(was), f"{name}.{field}"


def _properties(definitions: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = definitions[name].get("properties", {})
    return found


def _bare(schema: Any) -> Any:
    """Return a schema without its words, and without what is new inside of it."""
    left = {"title", "description", *(field for _, field in NEW_INSIDE)}
    match schema:
        case dict():
            return {key: _bare(value) for key, value in schema.items() if key not in left}
        case list():
            return [_bare(one) for one in schema]
        case _:
            return schema


@pytest.mark.parametrize(("model", "field"), [(model, name) for model, fields in NEW_FIELDS.items() for name in fields])
def test_new_fields_have_defaults(model: type[Envelope], field: str) -> None:
    """A field that older writers do not know is never required."""
    assert not model.model_fields[field].is_required()
