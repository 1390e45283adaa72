"""The tracing that records: the classes of `interlock.observability.tracing` over the OpenTelemetry SDK.

Imported only where tracing is on. No global tracer provider is set: the process may have its own.
"""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from interlock._version import __version__
from interlock.observability import attributes as names
from interlock.observability._export import Export, resource_of
from interlock.observability.context import (
    NotATraceparentError,
    TraceContext,
    is_fresh,
    job_traceparent,
    new_traceparent,
    parse_traceparent,
    root_of,
    task_traceparent,
)
from interlock.observability.settings import TraceSettings
from interlock.observability.tracing import (
    AgentSpan,
    ChatSpan,
    JobRecord,
    ModelCall,
    PublishSpan,
    TaskRecord,
    TraceSpan,
    Tracing,
    Work,
)
from interlock.protocol.base import Usage
from interlock.protocol.messages import CriterionVerdict

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT_CHARACTERS = 200
_CONTENT_CHARACTERS = 65_536
_Attributes = dict[str, str | int | float | bool | Sequence[str]]


def recording(service: str, resource: Mapping[str, str | int], settings: TraceSettings) -> Tracing:
    """Return tracing that exports as ``settings`` say.

    :raises ValueError: an ``OTEL_*`` variable has a value that the SDK cannot use.
    """
    return _Recording(service, resource, settings)


class _Preset(NamedTuple):
    """The ids of a span that is written after the fact, and the context whose flags say whether it is recorded."""

    trace_id: int
    span_id: int
    decided_by: Context


_preset: ContextVar[_Preset | None] = ContextVar("interlock_preset_span", default=None)


class _Ids(IdGenerator):
    """Preset ids where a span has them, else random ones that no ``random.seed`` can make repeat."""

    def generate_span_id(self) -> int:
        preset = _preset.get()
        return preset.span_id if preset else secrets.randbits(64) or 1

    def generate_trace_id(self) -> int:
        preset = _preset.get()
        return preset.trace_id if preset else secrets.randbits(128) or 1


class _Sampling(Sampler):
    """The sampler that the environment names; a span with a preset follows the decision made for its job."""

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner

    def should_sample(self, parent_context: Context | None, *args: Any, **kwargs: Any) -> SamplingResult:
        preset = _preset.get()
        return self._inner.should_sample(preset.decided_by if preset else parent_context, *args, **kwargs)

    def get_description(self) -> str:
        return self._inner.get_description()


class _Recording(Tracing):
    def __init__(self, service: str, resource: Mapping[str, str | int], settings: TraceSettings) -> None:
        self._content = settings.content
        provider = TracerProvider(
            resource=resource_of(service, resource),
            shutdown_on_exit=False,  # it would wait for a dead collector
            id_generator=_Ids(),
            span_limits=SpanLimits(),
        )
        self._sampler = provider.sampler = _Sampling(provider.sampler)
        self._export = Export(settings)
        for processor in self._export.processors:
            provider.add_span_processor(processor)
        self._tracer = provider.get_tracer("interlock", __version__)
        self._open = True

    @property
    def enabled(self) -> bool:
        return self._open

    def shutdown(self, limit: float = 1.0) -> bool:
        if not self._open:
            return True
        self._open = False
        return self._export.shutdown(limit)

    def new_traceparent(self) -> str:
        return self._decide(new_traceparent(sampled=False))

    def job_root(self, headers: Mapping[str, str] | None, job: str) -> str:
        return self._decide(root_of(headers, job))

    def _decide(self, root: str) -> str:
        """Return ``root``, recorded or not as the sampler says where nobody has decided yet."""
        context = parse_traceparent(root)
        if context is None or context.sampled or not is_fresh(context):
            return root
        result = self._sampler.should_sample(Context(), context.trace_id, "job")
        return str(context._replace(sampled=result.decision is Decision.RECORD_AND_SAMPLE))

    def emit_job(self, root: str, record: JobRecord) -> None:
        attributes: _Attributes = {
            **record.attributes,
            names.GEN_AI_OPERATION_NAME: "invoke_workflow",
            names.GEN_AI_WORKFLOW_NAME: record.team,
            names.GEN_AI_CONVERSATION_ID: record.job,
            names.TEAM: record.team,
            names.JOB: record.job,
            names.STATUS: record.status,
        }
        bad = record.status in {"failed", "killed"}
        with _as_preset(root, job_traceparent(root, record.job)) as parent:
            span = self._start(f"invoke_workflow {record.team}", parent, record.started, attributes)
            _close(span, record.ended, record.status if bad else "", record.reason)

    def emit_task(self, root: str, record: TaskRecord) -> None:
        redone = [f"attempt {attempt}: {_short('; '.join(why))}" for attempt, why in sorted(record.redone.items())]
        attributes: _Attributes = {
            **record.attributes,
            names.GEN_AI_CONVERSATION_ID: record.job,
            names.GEN_AI_AGENT_NAME: record.agent,
            names.JOB: record.job,
            names.TASK: record.task,
            names.STEP: record.step,
            names.OUTCOME: record.outcome,
            names.ATTEMPTS: record.attempts,
        }
        if redone:
            attributes[names.REDONE] = redone
        job = job_traceparent(root, record.job)
        with _as_preset(job, task_traceparent(root, record.job, record.task)) as parent:
            span = self._start(f"task {record.step}", parent, record.started, attributes)
            _close(span, record.ended, record.outcome if record.outcome == "failed" else "", record.reason)

    def _start(self, name: str, parent: Context, started: datetime, attributes: _Attributes) -> Span:
        return self._tracer.start_span(name, parent, SpanKind.INTERNAL, attributes, start_time=_nanoseconds(started))

    def publish(
        self, kind: str, subject: str, parent: str | None = None, *, message_id: str = "", tracestate: str = ""
    ) -> PublishSpan:
        attributes: _Attributes = {
            names.MESSAGING_SYSTEM: "nats",
            names.MESSAGING_OPERATION_NAME: "send",
            names.MESSAGING_OPERATION_TYPE: "send",
            names.MESSAGING_DESTINATION: subject,
            names.MESSAGE_KIND: kind,
        }
        if message_id:
            attributes[names.MESSAGING_MESSAGE_ID] = message_id
        context = _context_of(parent, tracestate)
        return _RecordedPublish(self._tracer.start_span(f"send {kind}", context, SpanKind.PRODUCER, attributes))

    def invoke_agent(
        self, work: Work, *, parent: str | None, replaces: str | None = None, tracestate: str = ""
    ) -> AgentSpan:
        span = self._tracer.start_span(
            f"invoke_agent {work.agent}",
            _context_of(parent, tracestate),
            SpanKind.CONSUMER,
            _work_attributes(work),
            _redo_links(replaces),
        )
        return _RecordedAgent(span, content=self._content)

    def chat(self, call: ModelCall) -> ChatSpan:
        span = self._tracer.start_span(f"chat {call.model}", None, SpanKind.CLIENT, _call_attributes(call))
        return _RecordedChat(span, content=self._content)


class _RecordedSpan(TraceSpan):
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
        if error is not None:
            # A message may quote what a model said, so it counts as content.
            self.failed(type(error).__qualname__, str(error) if self._content else "")
        self._span.end()

    def failed(self, error_type: str, description: str = "") -> None:
        self._span.set_attribute(names.ERROR_TYPE, error_type)
        self._span.set_status(StatusCode.ERROR, _sentence(error_type, description))

    def _count(self, usage: Usage | None) -> None:
        if usage is not None:
            self._span.set_attributes(
                {names.GEN_AI_INPUT_TOKENS: usage.prompt_tokens, names.GEN_AI_OUTPUT_TOKENS: usage.completion_tokens}
            )


class _RecordedAgent(_RecordedSpan, AgentSpan):
    __slots__ = ()

    def result(self, status: str, reason: str = "", usage: Usage | None = None) -> None:
        self._span.set_attribute(names.RESULT_STATUS, status)
        self._count(usage)
        if status != "done":
            self.failed(status, reason if self._content else "")

    def verdict(self, verdict: str, criteria: Sequence[CriterionVerdict] = (), usage: Usage | None = None) -> None:
        failed = [_short(found.criterion) for found in criteria if not found.holds]
        self._span.set_attribute(names.VERDICT, verdict)
        if failed:
            self._span.set_attribute(names.FAILED_CRITERIA, failed)
        self._count(usage)
        for found in criteria:
            self._span.add_event(names.EVENT_EVALUATION, self._evaluation(found))
        if verdict != "pass":
            self.failed(f"verdict_{verdict}", "; ".join(failed))

    def _evaluation(self, found: CriterionVerdict) -> _Attributes:
        label = {True: "pass", False: "fail", None: "uncertain"}[found.holds]
        attributes: _Attributes = {
            names.GEN_AI_EVALUATION_NAME: _short(found.criterion),
            names.GEN_AI_EVALUATION_LABEL: label,
        }
        if self._content:  # evidence quotes the answer
            attributes[names.GEN_AI_EVALUATION_EXPLANATION] = found.evidence[:_CONTENT_CHARACTERS]
        return attributes


class _RecordedChat(_RecordedSpan, ChatSpan):
    __slots__ = ()

    def asked(self, messages: Sequence[Mapping[str, Any]]) -> None:
        if self._content and self._span.is_recording():
            parts = [_message(str(message.get("role", "")), message.get("content")) for message in messages]
            self._span.set_attribute(names.GEN_AI_INPUT_MESSAGES, _content_json(parts))

    def answered(
        self,
        *,
        usage: Usage | None = None,
        finish_reasons: Sequence[str] = (),
        model: str | None = None,
        response_id: str | None = None,
        text: str | None = None,
    ) -> None:
        self._count(usage)
        found = {names.GEN_AI_RESPONSE_MODEL: model, names.GEN_AI_RESPONSE_ID: response_id}
        self._span.set_attributes({name: value for name, value in found.items() if value})
        if finish_reasons:
            self._span.set_attribute(names.GEN_AI_FINISH_REASONS, list(finish_reasons))
        if self._content and text is not None:
            answer = _message("assistant", text) | {"finish_reason": next(iter(finish_reasons), "")}
            self._span.set_attribute(names.GEN_AI_OUTPUT_MESSAGES, _content_json([answer]))


class _RecordedPublish(PublishSpan):
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


@contextmanager
def _as_preset(parent: str, own: str) -> Iterator[Context]:
    """Let the span that is started inside have the ids of ``own``; yields its parent's context."""
    above, below = _parsed(parent), _parsed(own)
    decided_by = _context_of(str(above)) or Context()
    token = _preset.set(_Preset(below.trace_id, below.span_id, decided_by))
    try:
        yield Context() if is_fresh(above) else decided_by
    finally:
        _preset.reset(token)


def _parsed(traceparent: str) -> TraceContext:
    context = parse_traceparent(traceparent)
    if context is None:
        raise NotATraceparentError(traceparent)
    return context


def _close(span: Span, ended: datetime, failed: str, reason: str) -> None:
    if reason:
        span.set_attribute(names.REASON, _short(reason))
    if failed:
        span.set_attribute(names.ERROR_TYPE, failed)
        span.set_status(StatusCode.ERROR, _sentence(failed, reason))
    span.end(_nanoseconds(ended))


def _work_attributes(work: Work) -> _Attributes:
    attributes: _Attributes = {
        names.GEN_AI_OPERATION_NAME: "invoke_agent",
        names.GEN_AI_AGENT_NAME: work.agent,
        names.GEN_AI_CONVERSATION_ID: work.job,
        names.MESSAGING_SYSTEM: "nats",
        names.MESSAGING_OPERATION_NAME: "process",
        names.MESSAGING_OPERATION_TYPE: "process",
        names.AGENT_KIND: work.kind,
        names.TEAM: work.team,
        names.JOB: work.job,
        names.TASK: work.task,
        names.ATTEMPT: work.attempt,
    }
    optional = {
        names.STEP: work.step,
        names.MESSAGING_DESTINATION: work.subject,
        names.MESSAGING_MESSAGE_ID: work.message_id,
    }
    return attributes | {name: value for name, value in optional.items() if value}


def _call_attributes(call: ModelCall) -> _Attributes:
    server = urlsplit(call.url)
    attributes: dict[str, str | int | float | None] = {
        names.GEN_AI_OPERATION_NAME: "chat",
        names.GEN_AI_PROVIDER_NAME: call.provider,
        names.GEN_AI_REQUEST_MODEL: call.model,
        names.GEN_AI_TEMPERATURE: call.temperature,
        names.GEN_AI_MAX_TOKENS: call.max_tokens,
        names.GEN_AI_SEED: call.seed,
        names.GEN_AI_CONVERSATION_ID: call.job or None,
        names.SERVER_ADDRESS: server.hostname,
        names.SERVER_PORT: server.port,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _redo_links(replaces: str | None) -> list[Link]:
    context = parse_traceparent(replaces)
    return [Link(_span_context(context, ""), {names.LINK: names.REDO_LINK})] if context else []


def _context_of(traceparent: str | None, tracestate: str = "") -> Context | None:
    """Return the context to start a span in: None is the one that is open here; an unreadable one starts a trace."""
    if traceparent is None:
        return None
    context = parse_traceparent(traceparent)
    if context is None:
        return Context()
    return set_span_in_context(NonRecordingSpan(_span_context(context, tracestate)), Context())


def _span_context(context: TraceContext, tracestate: str) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT)
    state = TraceState.from_header([tracestate]) if tracestate else None
    return SpanContext(context.trace_id, context.span_id, is_remote=True, trace_flags=flags, trace_state=state)


def _trace_of(span: Span) -> tuple[str, str]:
    context = span.get_span_context()
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags.sampled):02x}"
    return traceparent, context.trace_state.to_header() if context.trace_state else ""


def _nanoseconds(moment: datetime) -> int:
    """Return nanoseconds since 1970, without a float in between."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def _message(role: str, content: Any) -> dict[str, Any]:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
    return {"role": role, "parts": [{"type": "text", "content": text[:_CONTENT_CHARACTERS]}]}


def _content_json(messages: list[dict[str, Any]]) -> str:
    return json.dumps(messages, ensure_ascii=False)


def _sentence(what: str, why: str) -> str:
    return f"{what}: {_short(why)}" if why else what


def _short(text: str) -> str:
    return text if len(text) <= _TEXT_CHARACTERS else text[: _TEXT_CHARACTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"
