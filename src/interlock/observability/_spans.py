"""The spans that are recorded, over the spans of the OpenTelemetry SDK."""

import json
from collections.abc import Mapping, Sequence
from contextvars import Token
from types import TracebackType
from typing import Any, Self

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, StatusCode, set_span_in_context

from interlock.observability import attributes as names
from interlock.observability.tracing import AgentSpan, ChatSpan, PublishSpan, ToolSpan, TraceSpan
from interlock.protocol.base import Usage
from interlock.protocol.messages import CriterionVerdict

Attributes = dict[str, str | int | float | bool | Sequence[str]]
_TEXT_CHARACTERS = 200
_CONTENT_CHARACTERS = 65_536


class RecordedSpan(TraceSpan):
    """A span that is open while its ``with`` is, and the parent of what is opened within."""

    __slots__ = ("_attached", "_content", "_span")

    def __init__(self, span: Span, *, content: bool) -> None:
        super().__init__(_trace_of(span))
        self._span = span
        self._content = content
        self._attached: Token[Context] | None = None

    def __enter__(self) -> Self:
        self._attached = attach(set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._attached is not None:
            detach(self._attached)
            self._attached = None
        if error is not None and not getattr(error, "waits", False):
            # A message may quote what a model said, so it counts as content.
            self.failed(type(error).__qualname__, str(error) if self._content else "")
        self._span.end()

    def failed(self, error_type: str, description: str = "") -> None:
        self._span.set_attribute(names.ERROR_TYPE, error_type)
        self._span.set_status(StatusCode.ERROR, sentence(error_type, description))

    def _count(self, usage: Usage | None) -> None:
        if usage is not None:
            self._span.set_attributes(
                {names.GEN_AI_INPUT_TOKENS: usage.prompt_tokens, names.GEN_AI_OUTPUT_TOKENS: usage.completion_tokens}
            )


class RecordedAgent(RecordedSpan, AgentSpan):
    """An agent working on one message."""

    __slots__ = ()

    def result(self, status: str, reason: str = "", usage: Usage | None = None) -> None:
        self._span.set_attribute(names.RESULT_STATUS, status)
        self._count(usage)
        if status != "done":
            self.failed(status, reason if self._content else "")

    def verdict(self, verdict: str, criteria: Sequence[CriterionVerdict] = (), usage: Usage | None = None) -> None:
        failed = [short(found.criterion) for found in criteria if not found.holds]
        self._span.set_attribute(names.VERDICT, verdict)
        if failed:
            self._span.set_attribute(names.FAILED_CRITERIA, failed)
        self._count(usage)
        for found in criteria:
            self._span.add_event(names.EVENT_EVALUATION, self._evaluation(found))
        if verdict != "pass":
            self.failed(f"verdict_{verdict}", "; ".join(failed))

    def _evaluation(self, found: CriterionVerdict) -> Attributes:
        label = {True: "pass", False: "fail", None: "uncertain"}[found.holds]
        attributes: Attributes = {
            names.GEN_AI_EVALUATION_NAME: short(found.criterion),
            names.GEN_AI_EVALUATION_LABEL: label,
        }
        if self._content:  # evidence quotes the answer
            attributes[names.GEN_AI_EVALUATION_EXPLANATION] = found.evidence[:_CONTENT_CHARACTERS]
        return attributes


class RecordedChat(RecordedSpan, ChatSpan):
    """One request to a model."""

    __slots__ = ("_named",)

    def __init__(self, span: Span, *, content: bool, named: bool) -> None:
        super().__init__(span, content=content)
        self._named = named

    def asked(self, messages: Sequence[Mapping[str, Any]]) -> None:
        if self._content and self._span.is_recording():
            parts = [_message(message) for message in messages]
            self._span.set_attribute(names.GEN_AI_INPUT_MESSAGES, _content_json(parts))

    def answered(
        self,
        *,
        usage: Usage | None = None,
        finish_reasons: Sequence[str] = (),
        model: str | None = None,
        response_id: str | None = None,
        text: str | None = None,
        tool_calls: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self._count(usage)
        if model and not self._named:  # whoever asked left the choice to the server
            self._span.update_name(f"chat {model}")
        found = {names.GEN_AI_RESPONSE_MODEL: model, names.GEN_AI_RESPONSE_ID: response_id}
        self._span.set_attributes({name: value for name, value in found.items() if value})
        if finish_reasons:
            self._span.set_attribute(names.GEN_AI_FINISH_REASONS, list(finish_reasons))
        if self._content and text is not None:
            answer = _message({"role": "assistant", "content": text, "tool_calls": tool_calls})
            answer["finish_reason"] = next(iter(finish_reasons), "")
            self._span.set_attribute(names.GEN_AI_OUTPUT_MESSAGES, _content_json([answer]))


class RecordedTool(RecordedSpan, ToolSpan):
    """One call of a tool."""

    __slots__ = ()

    def decided(
        self, decision: str, *, rule: str = "", effect: str = "", tier: str = "", taint: Sequence[str] = ()
    ) -> None:
        self._span.set_attributes(decision_attributes(decision, rule, effect, tier, taint))

    def asked(self, arguments: str) -> None:
        if self._content:
            self._span.set_attribute(names.GEN_AI_TOOL_ARGUMENTS, _cut(arguments))

    def answered(self, outcome: str, *, error_type: str = "") -> None:
        if self._content:
            self._span.set_attribute(names.GEN_AI_TOOL_RESULT, _cut(outcome))
        if error_type:
            self.failed(error_type, outcome if self._content else "")


class RecordedPublish(PublishSpan):
    """One message being sent."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        super().__init__(_trace_of(span))
        self._span = span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if error is not None:
            self._span.set_attribute(names.ERROR_TYPE, type(error).__qualname__)
            self._span.set_status(StatusCode.ERROR, type(error).__qualname__)
        self._span.end()


def decision_attributes(decision: str, rule: str, effect: str, tier: str, taint: Sequence[str]) -> Attributes:
    """Return what was decided of a call, without what is empty."""
    found: Attributes = {
        names.TOOL_DECISION: decision,
        names.TOOL_RULE: short(rule),
        names.TOOL_EFFECT: effect,
        names.SANDBOX_TIER: tier,
        names.TAINT: [short(label) for label in taint],
    }
    return {name: value for name, value in found.items() if value}


def _trace_of(span: Span) -> tuple[str, str]:
    context = span.get_span_context()
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags.sampled):02x}"
    return traceparent, context.trace_state.to_header() if context.trace_state else ""


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message in the form of the conventions: a role, and parts that are texts, calls or their results."""
    content = message.get("content")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
    calls = [_call_part(call) for call in message.get("tool_calls", ())]
    parts: list[dict[str, Any]] = [{"type": "text", "content": _cut(text)}]
    if "tool_call_id" in message:
        parts = [{"type": "tool_call_response", "id": message["tool_call_id"], "response": _cut(text)}]
    return {"role": str(message.get("role", "")), "parts": calls if calls and not text else parts + calls}


def _call_part(call: Mapping[str, str]) -> dict[str, Any]:
    return {"type": "tool_call", "id": call["id"], "name": call["name"], "arguments": _cut(call["arguments"])}


def _cut(text: str) -> str:
    return text[:_CONTENT_CHARACTERS]


def _content_json(messages: list[dict[str, Any]]) -> str:
    return json.dumps(messages, ensure_ascii=False)


def sentence(what: str, why: str) -> str:
    """Return a span's status in words."""
    return f"{what}: {short(why)}" if why else what


def short(text: str) -> str:
    """Return ``text``, cut where it is longer than a label should be."""
    return text if len(text) <= _TEXT_CHARACTERS else text[: _TEXT_CHARACTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"
