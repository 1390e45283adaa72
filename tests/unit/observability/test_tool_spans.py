"""Tool calls in a trace, and that their texts stay out of it unless they are asked for."""

import json
from contextlib import suppress
from typing import Any

import pytest

from interlock.observability.tracing import ModelCall, ToolUse, Tracing, Work

WORK = Work(agent="reader", kind="worker", team="digest", job="job-1", task="read-0", attempt=1)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
USE = ToolUse(name="files.read", call_id="c1", job="job-1", task="read-0", attempt=1, effect="read", taint=("web",))


class Waits(Exception):
    """What a call raises that waits for a person."""

    waits = True


def recorded(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *, content: bool) -> dict[str, Any]:
    """Record an agent that asks its model and calls tools; return the spans by name."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", str(content).lower())
    tracing = Tracing.from_environment("test")
    with tracing.invoke_agent(WORK, parent=PARENT):
        with tracing.chat(ModelCall(model="m")) as chat:
            chat.asked([{"role": "tool", "content": "hidden result", "tool_call_id": "c0"}])
            chat.answered(text="", tool_calls=[{"id": "c1", "name": "files.read", "arguments": "hidden call"}])
        with tracing.execute_tool(USE) as span:
            span.decided("allow", rule="files.read(./**)", tier="bwrap")
            span.asked("hidden arguments")
            span.answered("hidden outcome")
        with suppress(Waits), tracing.execute_tool(ToolUse(name="mail.send", decision="ask")):
            raise Waits
        with tracing.execute_tool(ToolUse(name="web.fetch", decision="deny")) as span:
            span.answered("hidden reason", error_type="denied")
    tracing.shutdown()
    text, decoder, spans = capfd.readouterr().err, json.JSONDecoder(), {}
    while "{" in text:
        text = text[text.index("{") :]
        span_json, end = decoder.raw_decode(text)
        spans[span_json["name"]] = span_json
        text = text[end:]
    return spans


def test_a_tool_call_is_a_span(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """It stands below the agent, is named by the conventions, and says what was decided of it and why."""
    spans = recorded(monkeypatch, capfd, content=False)
    good, bad = spans["execute_tool files.read"], spans["execute_tool web.fetch"]
    assert good["kind"] == "SpanKind.INTERNAL"
    assert good["parent_id"] == spans["invoke_agent reader"]["context"]["span_id"]
    assert good["attributes"] == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "files.read",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "c1",
        "gen_ai.conversation.id": "job-1",
        "interlock.job": "job-1",
        "interlock.task": "read-0",
        "interlock.attempt": 1,
        "interlock.tool.effect": "read",
        "interlock.tool.decision": "allow",
        "interlock.tool.rule": "files.read(./**)",
        "interlock.sandbox.tier": "bwrap",
        "interlock.taint": ["web"],
    }
    assert good["status"]["status_code"] == "UNSET"
    assert spans["execute_tool mail.send"]["status"]["status_code"] == "UNSET"
    assert bad["attributes"]["error.type"] == "denied"
    assert bad["status"] == {"status_code": "ERROR", "description": "denied"}
    assert "hidden" not in json.dumps(spans)


def test_texts_of_tools_are_kept_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With content capture, arguments and outcomes are in the tool's span, and calls are parts of messages."""
    spans = recorded(monkeypatch, capfd, content=True)
    tool = spans["execute_tool files.read"]["attributes"]
    assert tool["gen_ai.tool.call.arguments"] == "hidden arguments"
    assert tool["gen_ai.tool.call.result"] == "hidden outcome"
    chat = spans["chat m"]["attributes"]
    assert json.loads(chat["gen_ai.input.messages"]) == [
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c0", "response": "hidden result"}]}
    ]
    (answer,) = json.loads(chat["gen_ai.output.messages"])
    assert answer["parts"] == [{"type": "tool_call", "id": "c1", "name": "files.read", "arguments": "hidden call"}]
    assert spans["execute_tool web.fetch"]["status"]["description"] == "denied: hidden reason"


def test_without_tracing_a_tool_span_is_the_context_that_came_in() -> None:
    """The null object takes everything and hands on the agent's context."""
    tracing = Tracing()
    with tracing.invoke_agent(WORK, parent=PARENT), tracing.execute_tool(USE) as span:
        span.decided("allow", rule="x")
        span.asked("{}")
        span.answered("ok")
        assert span.traceparent == PARENT
    with pytest.raises(KeyError), tracing.execute_tool(USE):
        raise KeyError("x")
