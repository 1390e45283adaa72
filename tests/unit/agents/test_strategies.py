import pytest

from interlock.agents.checks.schema import check_schema
from interlock.agents.strategies.cot import cot
from interlock.agents.strategies.direct import direct
from interlock.agents.strategies.form import Schema, Thought
from interlock.agents.strategies.registry import strategy_of
from interlock.protocol.base import Json
from interlock.protocol.team import Agent

SCHEMA: Schema = {
    "type": "object",
    "properties": {"summary": {"type": "string"}, "n": {"const": 1}},
    "required": ["summary"],
    "additionalProperties": False,
}


def test_direct_asks_for_the_output_itself() -> None:
    """The form of a direct answer is the step's own, and its fields are named."""
    form = direct(SCHEMA)
    assert form.schema == SCHEMA
    assert form.hint == 'Answer with one JSON object with the fields "summary" (string), "n" and nothing else.'
    assert direct({"type": "object"}).hint == "Answer with one JSON object and nothing else."
    assert form.split({"summary": "x"}) == Thought({"summary": "x"})
    assert direct(None).schema is None
    assert not direct(None).hint


def test_reasoning_comes_first_and_leaves_the_output_as_it_was() -> None:
    """The reasoning is the first property that is written, is required, and is taken out of the output."""
    form = cot(SCHEMA)
    assert form.schema is not None
    assert list(form.schema["properties"])[0] == "reasoning"  # type: ignore[arg-type]  # noqa: RUF015 -- clearer so
    assert form.schema["required"] == ["reasoning", "summary"]
    assert check_schema(form.schema, {"reasoning": "because", "summary": "x"}).holds is True
    assert check_schema(form.schema, {"summary": "x"}).holds is False
    assert form.split({"reasoning": "because", "summary": "x"}) == Thought({"summary": "x"}, "because")
    assert form.split({"summary": "x"}) == Thought({"summary": "x"}, "")
    assert form.split(["x"]) is None
    assert "reasoning" not in SCHEMA["properties"]  # type: ignore[operator]


def test_a_field_of_the_same_name_is_kept() -> None:
    """A step whose output has a field ``reasoning`` of its own gets it back."""
    form = cot({"type": "object", "properties": {"reasoning": {"type": "string"}}})
    answer: Json = {"reasoning_": "thoughts", "reasoning": "the output's"}
    assert form.split(answer) == Thought({"reasoning": "the output's"}, "thoughts")


def test_text_is_reasoned_about_in_one_call() -> None:
    """For a text output the answer has two parts, of which one is the output."""
    form = cot(None)
    assert form.split({"reasoning": "because", "answer": "hello"}) == Thought("hello", "because")
    assert form.split({"reasoning": "because"}) is None
    assert form.split({"answer": {"no": "text"}}) is None
    assert form.split("hello") is None


@pytest.mark.parametrize("schema", [{"type": "array"}, {"$ref": "#/x"}, {**SCHEMA, "maxProperties": 1}, {}])
def test_what_a_property_could_contradict_is_answered_directly(schema: Schema) -> None:
    """A schema that a further property could break is left alone."""
    assert cot(schema).schema == schema


def test_an_agent_thinks_as_it_is_told() -> None:
    """The strategy that an agent names is the one it gets."""
    assert strategy_of(Agent(kind="worker")) is direct
    assert strategy_of(Agent(kind="worker", strategy="cot")) is cot
