import pytest

from interlock.agents.answers import NotJson, embedded_json, parse_json


@pytest.mark.parametrize("text", ["", "hello", "{", "{'a': 1}", "NaN", "[1e999]", '"\\ud800"', "[" * 5000 + "]" * 5000])
def test_what_no_message_can_carry_is_refused(text: str) -> None:
    """Text that is no JSON, infinite numbers and half characters are refused."""
    with pytest.raises(NotJson):
        parse_json(text)


def test_space_around_json_is_nothing() -> None:
    """Space around a value makes no difference."""
    assert parse_json(' \n{"a": [1, "é"]}\n') == {"a": [1, "é"]}


def test_the_last_object_in_prose_comes_first() -> None:
    """Objects in code fences come before those in prose, and later ones before earlier ones."""
    text = 'Think: {"a": 1} {no} or {"a": {"b": 2}}.\n```json\n{"a": 3}\n```\nor\n```\n{"a": 4}\n```'
    assert list(embedded_json(text)) == [{"a": 4}, {"a": 3}, {"a": 4}, {"a": 3}, {"a": {"b": 2}}, {"a": 1}]


@pytest.mark.parametrize("text", ["{" * 100_000, '{"a":' * 20_000, "[" * 100_000, "``` ```", "no brackets"])
def test_nonsense_ends_soon(text: str) -> None:
    """No text makes the search for objects crash or take long."""
    assert list(embedded_json(text)) == []
