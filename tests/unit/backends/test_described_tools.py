import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from interlock.backends._described_tools import called, described
from interlock.backends.chat import ChatMessage, ChatReply, ChatRequest, ToolCall, ToolOffer
from interlock.protocol.base import Json, Usage

PATH: dict[str, Json] = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
REFERS: dict[str, Json] = {
    "type": "object",
    "properties": {"x": {"$ref": "#/$defs/X"}},
    "$defs": {"X": {"type": "integer"}},
}
OFFERS = (ToolOffer("files.read", "Read\na file.", PATH), ToolOffer("refers", "Refers.", REFERS))
REQUEST = ChatRequest(
    (ChatMessage("system", "You are brief."), ChatMessage("user", "Go.")), temperature=0, max_tokens=9, tools=OFFERS
)


def test_tools_are_told_in_words_and_the_answer_is_an_action() -> None:
    """The system message lists the tools, and the schema takes their calls and the end, and nothing else."""
    request = described(REQUEST)
    system, user = request.messages
    assert system.content.startswith("You are brief.\n\nYou can use these tools:\n")
    assert '- files.read: Read a file. Arguments: {"path":{"type":"string"}}' in system.content
    assert user == REQUEST.messages[1]
    assert request.tools == ()
    assert request.schema is not None
    checker = jsonschema.Draft202012Validator(request.schema)
    good: list[Any] = [
        {"tool": "files.read", "arguments": {"path": "a"}},
        {"tool": "refers", "arguments": {"x": 1}},
        {"final": True},
    ]
    bad: list[Any] = [
        {"tool": "files.read", "arguments": {}},
        {"tool": "x", "arguments": {}},
        {"final": False},
        {},
        "x",
    ]
    assert all(checker.is_valid(value) for value in good)
    assert not any(checker.is_valid(value) for value in bad)
    assert '"$ref"' not in json.dumps(request.schema)  # nobody is to fetch anything


def test_without_a_system_message_there_is_one() -> None:
    """Tools are described where nothing else stands before the task, too."""
    request = described(replace(REQUEST, messages=REQUEST.messages[1:]))
    assert [message.role for message in request.messages] == ["system", "user"]


def test_what_has_no_tools_stays_as_it_is() -> None:
    """A plain request is not touched, schema and neighbours of one role included."""
    request = replace(REQUEST, tools=(), schema=PATH, messages=(ChatMessage("user", "a"), ChatMessage("user", "b")))
    assert described(request) == request


CALLS = (ToolCall("1", "files.read", '{"path": "a"}'), ToolCall("2", "files.read", "{bad"))
HISTORY = (
    *REQUEST.messages,
    ChatMessage("assistant", "Let me see.", CALLS),
    ChatMessage("tool", "<a>", tool_call_id="1"),
    ChatMessage("tool", "<b>", tool_call_id="2"),
)
GOOD = '{"arguments":{"path":"a"},"tool":"files.read"}'
BAD = '{"arguments":"{bad","tool":"files.read"}'
RESULTS = f"Result of {GOOD}:\n<a>\n\nResult of {BAD}:\n<b>"


def test_calls_and_results_become_plain_turns() -> None:
    """Earlier calls are the assistant's text, in the form of an action, and their results the user's, in turn."""
    request = described(replace(REQUEST, messages=HISTORY))
    assert [(message.role, message.content) for message in request.messages[1:]] == [
        ("user", "Go."),
        ("assistant", f"Let me see.\n{GOOD}\n{BAD}"),
        ("user", RESULTS),
    ]


def test_the_last_answer_is_asked_for_without_a_trace_of_actions() -> None:
    """A model that has to answer in words or in another form is shown what was found, not the form of an action."""
    messages = (*HISTORY, ChatMessage("assistant", "Enough."), ChatMessage("user", "Answer now."))
    request = described(replace(REQUEST, messages=messages, tools=(), schema=PATH))
    assert request.schema == PATH
    assert [(message.role, message.content) for message in request.messages] == [
        ("system", "You are brief."),
        ("user", f"Go.\n\n{RESULTS}"),
        ("assistant", "Enough."),
        ("user", "Answer now."),
    ]


@pytest.mark.parametrize(
    ("second", "result", "goes_on"),
    [('{"path":"a"}', "<a>", False), ('{"path": "a"}', "<b>", True), ('{"path": "b"}', "<a>", True)],
)
def test_a_model_that_repeats_itself_can_only_end(second: str, result: str, *, goes_on: bool) -> None:
    """After the same call with the same result twice, no further action has a form; other repetitions may go on."""
    turns: list[ChatMessage] = []
    for number, (arguments, told) in enumerate([('{"path": "a"}', "<a>"), (second, result)]):
        turns.append(ChatMessage("assistant", "", (ToolCall(str(number), "files.read", arguments),)))
        turns.append(ChatMessage("tool", told, tool_call_id=str(number)))
    schema = described(replace(REQUEST, messages=(*REQUEST.messages, *turns))).schema
    assert schema is not None
    checker = jsonschema.Draft202012Validator(schema)
    assert checker.is_valid({"final": True})
    assert checker.is_valid({"tool": "files.read", "arguments": {"path": "c"}}) is goes_on


def reply(text: str, finish_reason: str = "stop") -> ChatReply:
    return ChatReply(text, finish_reason, "m", Usage(calls=1), "r")


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('{"tool": "files.read", "arguments": {"path": "a"}}', [("files.read", '{"path":"a"}')]),
        (' {"tool": "x", "arguments": "what"} ', [("x", '"what"')]),
        ('{"tool": "x"}', [("x", "")]),
        ('{"tool": "x", "arguments": {"path": "aaa', [("x", '{"tool": "x", "arguments": {"path": "aaa')]),
        ('{"tool": "x", "arguments": {"n": 1e999}}', [("x", '{"tool": "x", "arguments": {"n": 1e999}}')]),
        ('{"final": true}', []),
        ("Just words.", None),
        ('{"summary": "x"}', None),
        ('{"tool": 3}', None),
        ("null", None),
        ("[" * 5000, None),
    ],
)
def test_answers_are_read_as_actions(text: str, calls: list[tuple[str, str]] | None) -> None:
    """A call becomes a tool call, the end an empty text, a broken call one that says so; other text stays."""
    found = called(reply(text))
    if calls is None:
        assert found == reply(text)
        return
    assert [(call.name, call.arguments) for call in found.tool_calls] == calls
    assert found.text == ""


def test_a_call_that_was_cut_off_says_so() -> None:
    """The finish reason of half a call stays; a whole one is a call like any other."""
    assert called(reply('{"tool": "x", "argu', "length")).finish_reason == "length"
    assert called(reply('{"tool": "x", "arguments": {}}', "length")).finish_reason == "tool_calls"
