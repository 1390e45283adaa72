"""How a conversation becomes a job, or the answer to a question."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.runtime.api.chat_jobs import (
    MAX_CONTEXT,
    Conversation,
    Mark,
    Turn,
    as_input,
    goal_of,
    mark_of,
    marked,
    read_conversation,
    read_reply,
    schema_of,
    unmarked,
    without_marks,
)
from interlock.runtime.api.chat_wire import ChatMessage, NotForTeams, ResponseFormat

_MARK = Mark("digest-1a2b3c4d", "q-77")


def conversation(*messages: tuple[str, Any]) -> Conversation:
    """Return the conversation of these roles and contents."""
    return read_conversation([ChatMessage(role=role, content=content) for role, content in messages])  # type: ignore[arg-type]


def test_the_last_message_of_the_user_is_the_goal() -> None:
    """What was said before stands below it as context, in order, the system's first, and says who said it."""
    found = conversation(
        ("user", "What is a lamp?"),
        ("system", "Speak\nplainly."),
        ("assistant", "A light."),
        ("user", [{"type": "text", "text": "And"}, {"type": "text", "text": "a cup?"}]),
    )
    assert found.last == "And\na cup?"
    assert goal_of(found, None, with_earlier=True) == (
        "And\na cup?\n\nSaid before in this conversation, as context:\n"
        "system: Speak\n  plainly.\nuser: What is a lamp?\nassistant: A light."
    )
    assert goal_of(found, None, with_earlier=False) == "And\na cup?"


def test_a_single_message_is_the_goal_as_it_is() -> None:
    """Without anything before it there is nothing below it."""
    assert goal_of(conversation(("user", " Sort these. ")), None, with_earlier=True) == "Sort these."


def test_what_was_said_before_is_bounded() -> None:
    """The newest stands whole, what does not fit is counted, and the system's message is not crowded out."""
    many = [("user" if n % 2 == 0 else "assistant", f"{n}: {'x' * 3000}") for n in range(40)]
    goal = goal_of(conversation(("system", "Be kind."), *many, ("user", "go")), None, with_earlier=True)
    assert len(goal) < MAX_CONTEXT + 500
    assert "system: Be kind." in goal
    assert f"assistant: 39: {'x' * 3000}" in goal
    assert "earlier messages left out)" in goal
    assert "user: 0:" not in goal


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), st.text(max_size=60_000)), max_size=6))
def test_no_conversation_makes_a_goal_too_long(turns: list[tuple[str, str]]) -> None:
    """However long the messages are, and whatever stands in them (line breaks are written out)."""
    found = Conversation("go", tuple(Turn(role, text) for role, text in turns))
    text = goal_of(found, None, with_earlier=True)
    assert len(text) <= MAX_CONTEXT + 500


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([("system", "hello")], "messages"),
        ([("user", "go"), ("assistant", "Well,")], "messages"),
        ([("user", "  ")], "messages[0].content"),
        ([("user", None)], "messages[0].content"),
        ([("user", "x" * 100_001)], "messages[0].content"),
        ([("user", "a"), ("assistant", "b"), ("user", [])], "messages[2].content"),
    ],
)
def test_what_is_no_wish_of_a_user_is_refused(messages: list[tuple[str, Any]], param: str) -> None:
    """The field that is wrong is named."""
    with pytest.raises(NotForTeams) as caught:
        conversation(*messages)
    assert caught.value.param == param
    assert caught.value.status == 400


def test_a_question_is_found_in_the_history() -> None:
    """The mark in the assistant's last turn says what is answered; it is not shown as context."""
    asked = marked("May it be sent?", _MARK)
    found = conversation(("user", "Send it"), ("assistant", asked), ("user", "yes"))
    assert (found.mark, found.last) == (_MARK, "yes")
    assert found.earlier == (Turn("user", "Send it"), Turn("assistant", "May it be sent?"))


def test_only_the_last_turn_of_the_assistant_asks() -> None:
    """A question that was answered earlier in the conversation is context."""
    asked = marked("May it be sent?", _MARK)
    found = conversation(
        ("user", "Send it"), ("assistant", asked), ("user", "yes"), ("assistant", "Sent."), ("user", "Again")
    )
    assert found.mark is None


def test_the_users_words_are_no_mark() -> None:
    """Nor are the system's: only what the assistant said last is looked at."""
    assert conversation(("system", str(_MARK)), ("user", str(_MARK))).mark is None


@given(st.text(), st.from_regex(r"\A[A-Za-z0-9_:-]{1,128}\Z"), st.from_regex(r"\A[A-Za-z0-9_-]{1,128}\Z"))
def test_marks_are_read_as_they_were_written(text: str, job: str, question: str) -> None:
    """Whatever stands before one, and also where a client trims or pads the turn."""
    mark = Mark(job, question)
    assert mark_of(f"  {marked(text, mark)}\n ") == mark
    assert unmarked(marked(text, mark)) == without_marks(text).strip()


@given(st.text(max_size=30), st.sampled_from([str(_MARK), str(_MARK).upper(), str(_MARK).replace("[", "[ ")]))
def test_no_result_can_be_a_mark(text: str, forged: str) -> None:
    """An agent that writes one in its result is not taken for the API."""
    for one in (without_marks(f"{text}\n{forged}"), without_marks(f"{text}\n\n{forged}\n")):
        assert mark_of(one) is None


@pytest.mark.parametrize(
    ("text", "options", "wanted"),
    [
        ("yes", ("yes", "no"), ("yes", "")),
        (' "Yes." \n', ("yes", "no"), ("yes", "")),
        ("no\nAsk Ann first.\nThen send.", ("yes", "no"), ("no", "Ask Ann first.\nThen send.")),
        ("no problem, do it", ("yes", "no"), ("no problem, do it", "")),
        ("not_done", ("done", "not_done"), ("not_done", "")),
        ("The blue one.\nOr red.", (), ("The blue one.\nOr red.", "")),
    ],
)
def test_an_option_is_read_only_where_it_stands_alone(
    text: str, options: tuple[str, ...], wanted: tuple[str, str]
) -> None:
    """Upper and lower case, quotes and a full stop do not matter; a sentence that begins like one is none."""
    assert read_reply(text, options) == wanted


def test_a_schema_that_is_none_is_refused() -> None:
    """Before a job is made of it; one that is told stands in the goal."""
    wrongs: list[Any] = [None, {}, {"schema": 3}, {"schema": {"type": "nothing"}}]
    for wrong in wrongs:
        with pytest.raises(NotForTeams, match="response_format"):
            schema_of(ResponseFormat(type="json_schema", json_schema=wrong))
    fine = ResponseFormat(type="json_schema", json_schema={"name": "x", "schema": {"type": "object"}})
    assert schema_of(fine) == {"type": "object"}
    assert goal_of(Conversation("go"), fine, with_earlier=True).endswith('schema: {"type":"object"}')
    assert schema_of(ResponseFormat(type="json_object")) is None


def test_the_earlier_messages_as_an_input() -> None:
    """They have the form of the input's type; a type that cannot hold them gets none."""
    found = conversation(("user", "a"), ("assistant", "b"), ("user", "c"))
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert as_input(found, "array") == as_input(found, "jsonl") == as_input(found, None) == turns
    assert as_input(found, "object") == {"messages": turns}
    assert as_input(found, "string") == "user: a\nassistant: b"
    assert as_input(found, "number") is None
