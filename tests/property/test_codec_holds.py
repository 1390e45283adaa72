"""The codec: every message comes back as it was, and every other sequence of bytes is a typed error."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.property.strategies import json_values, messages_of

from interlock.protocol import codec
from interlock.protocol.base import MAX_DEPTH
from interlock.protocol.codec import decode, encode, kind_of
from interlock.protocol.errors import (
    BodyNotJson,
    BodyTooLarge,
    KindUnknown,
    MessageInvalid,
    ProtocolError,
    VersionUnknown,
)
from interlock.protocol.messages import MESSAGE_TYPES, VERSION, Envelope, TaskResult

MOST_OF_AN_ERROR = 4_000
"""Characters: an error's text stays readable whatever was sent."""

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
any_kind = st.sampled_from(MESSAGE_TYPES).flatmap(messages_of)
every_kind = pytest.mark.parametrize("model", MESSAGE_TYPES, ids=kind_of)


def refused(body: bytes) -> ProtocolError:
    """Return why ``body`` is refused; whatever it is, the reason is short."""
    with pytest.raises(ProtocolError) as caught:
        decode(body)
    assert len(str(caught.value)) < MOST_OF_AN_ERROR
    return caught.value


def read_or_refused(body: bytes) -> None:
    """Check that ``body`` is a message that can be written and read again, or a typed error."""
    try:
        message = decode(body)
    except ProtocolError:
        refused(body)
    else:
        assert decode(encode(message)) == message


@every_kind
@quick
@given(data=st.data())
def test_a_message_comes_back_as_it_was(model: type[Envelope], data: st.DataObject) -> None:
    """Encoding and decoding gives the same message, of the same type, for every kind."""
    message = data.draw(messages_of(model))
    again = decode(encode(message))
    assert type(again) is model
    assert again == message


@every_kind
@quick
@given(data=st.data())
def test_an_unknown_field_is_refused(model: type[Envelope], data: st.DataObject) -> None:
    """A field that the kind does not have is an error that names it."""
    document = json.loads(encode(data.draw(messages_of(model))))
    name = data.draw(st.text(max_size=30).filter(lambda text: text not in model.model_fields))
    error = refused(json.dumps(document | {name: data.draw(json_values)}).encode())
    assert isinstance(error, MessageInvalid)
    assert error.kind == kind_of(model)


@quick
@given(message=any_kind, version=json_values.filter(lambda value: value not in (1, VERSION)))
def test_another_version_is_refused(message: Envelope, version: Any) -> None:
    """Whatever else stands in it, a message of another version is unknown."""
    assert isinstance(refused(json.dumps(json.loads(encode(message)) | {"v": version}).encode()), VersionUnknown)


@quick
@given(message=any_kind, kind=json_values)
def test_another_kind_is_refused(message: Envelope, kind: Any) -> None:
    """A kind that is none, of any type of JSON, is unknown."""
    assert isinstance(refused(json.dumps(json.loads(encode(message)) | {"kind": kind}).encode()), KindUnknown)


@quick
@given(message=any_kind, data=st.data())
def test_a_field_of_another_type_gives_a_typed_error(message: Envelope, data: st.DataObject) -> None:
    """Any value in any field is read or refused, never a crash."""
    document = json.loads(encode(message))
    field = data.draw(st.sampled_from(sorted(type(message).model_fields)))
    read_or_refused(json.dumps(document | {field: data.draw(json_values)}).encode())


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_are_refused(body: bytes) -> None:
    """Bytes from nowhere, and any JSON value, are an error of the protocol."""
    refused(body)


@quick
@given(message=any_kind, data=st.data())
def test_damaged_bytes_are_read_or_refused(message: Envelope, data: st.DataObject) -> None:
    """A message with bytes cut out, put in, or repeated is another message or a typed error."""
    body = encode(message)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(len(body), start + 20)))
        body = body[:start] + data.draw(st.binary(max_size=4) | st.just(body[start:end] * 2)) + body[end:]
    read_or_refused(body)


@given(depth=st.integers(1, 2 * MAX_DEPTH), inner=st.sampled_from(["[%s]", '{"a":%s}']))
def test_nesting_is_bounded(depth: int, inner: str) -> None:
    """A value may be nested as deeply as the limit says and no deeper."""
    value = "1"
    for _ in range(depth):
        value = inner % value
    body = encode(_result(None))[:-1] + f',"output":{value}}}'.encode()
    if depth <= MAX_DEPTH:
        read = decode(body)
        assert isinstance(read, TaskResult)
        assert read.output == json.loads(value)
    else:
        assert isinstance(refused(body), MessageInvalid | BodyNotJson)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"v":1,"kind":"task.result","output":['])
def test_nesting_without_end_is_refused(opening: bytes) -> None:
    """A million brackets are no message and no stack overflow."""
    assert isinstance(refused(opening * 100_000), BodyNotJson)


def test_a_body_over_the_limit_is_refused_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body with one byte too many is neither written nor read; with none too many, both."""
    message = _result("x" * 100)
    size = len(encode(message))
    monkeypatch.setattr(codec, "MAX_BODY", size)
    assert decode(encode(message)) == message
    monkeypatch.setattr(codec, "MAX_BODY", size - 1)
    with pytest.raises(BodyTooLarge):
        encode(message)
    assert isinstance(refused(b" " * size), BodyTooLarge)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b'[1,{"a":-1e999}]', b"9" * 10_000])
def test_a_number_that_json_does_not_have_is_refused(number: bytes) -> None:
    """An output is written again and hashed, so it holds only what JSON can say."""
    refused(encode(_result(None))[:-1] + b',"output":' + number + b"}")


@pytest.mark.parametrize("text", [b'"\\ud800"', b'"\xff"', b'"\xed\xa0\x80"'])
def test_text_that_utf8_does_not_have_is_refused(text: bytes) -> None:
    """Half a surrogate and broken UTF-8 are no text."""
    assert isinstance(refused(encode(_result(None))[:-1] + b',"output":' + text + b"}"), BodyNotJson)


def test_an_error_is_short_whatever_was_sent() -> None:
    """Names, kinds, versions and numbers of mistakes that are huge do not make a huge error."""
    huge = "k" * 100_000
    refused(json.dumps({"v": 1, "kind": huge}).encode())
    refused(json.dumps({"v": huge, "kind": "task.result"}).encode())
    refused(json.dumps({"v": 1, "kind": "task.result", huge: 1}).encode())
    refused(json.dumps({"v": 1, "kind": "task.result", **{f"x{n}": n for n in range(10_000)}}).encode())


def _result(output: Any) -> TaskResult:
    return TaskResult.model_validate(
        {
            "id": "m",
            "ns": "n",
            "job": "j",
            "task": "s",
            "attempt": 1,
            "answers": 1,
            "at": "2026-01-01T00:00:00Z",
            "by": "w@t",
            "role": "v@t",
            "status": "done",
            "output": output,
        }
    )
