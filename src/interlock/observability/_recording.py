"""The tracing that records: the classes of `interlock.observability.tracing` over the OpenTelemetry SDK.

Imported only where tracing is on. No global tracer provider is set: the process may have its own.
"""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from opentelemetry.context import Context
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
from interlock.observability._spans import (
    Attributes,
    RecordedAgent,
    RecordedChat,
    RecordedPublish,
    RecordedTool,
    decision_attributes,
    sentence,
    short,
)
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
    ToolSpan,
    ToolUse,
    Tracing,
    Work,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
        attributes: Attributes = {
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
        redone = [f"attempt {attempt}: {short('; '.join(why))}" for attempt, why in sorted(record.redone.items())]
        attributes: Attributes = {
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

    def _start(self, name: str, parent: Context, started: datetime, attributes: Attributes) -> Span:
        return self._tracer.start_span(name, parent, SpanKind.INTERNAL, attributes, start_time=_nanoseconds(started))

    def publish(
        self, kind: str, subject: str, parent: str | None = None, *, message_id: str = "", tracestate: str = ""
    ) -> PublishSpan:
        attributes: Attributes = {
            names.MESSAGING_SYSTEM: "nats",
            names.MESSAGING_OPERATION_NAME: "send",
            names.MESSAGING_OPERATION_TYPE: "send",
            names.MESSAGING_DESTINATION: subject,
            names.MESSAGE_KIND: kind,
        }
        if message_id:
            attributes[names.MESSAGING_MESSAGE_ID] = message_id
        context = _context_of(parent, tracestate)
        return RecordedPublish(self._tracer.start_span(f"send {kind}", context, SpanKind.PRODUCER, attributes))

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
        return RecordedAgent(span, content=self._content)

    def chat(self, call: ModelCall) -> ChatSpan:
        name = f"chat {call.model}" if call.model else "chat"
        span = self._tracer.start_span(name, None, SpanKind.CLIENT, _call_attributes(call))
        return RecordedChat(span, content=self._content, named=bool(call.model))

    def execute_tool(self, use: ToolUse) -> ToolSpan:
        span = self._tracer.start_span(f"execute_tool {use.name}", None, SpanKind.INTERNAL, _use_attributes(use))
        return RecordedTool(span, content=self._content)


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
        span.set_attribute(names.REASON, short(reason))
    if failed:
        span.set_attribute(names.ERROR_TYPE, failed)
        span.set_status(StatusCode.ERROR, sentence(failed, reason))
    span.end(_nanoseconds(ended))


def _work_attributes(work: Work) -> Attributes:
    attributes: Attributes = {
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


def _call_attributes(call: ModelCall) -> Attributes:
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


def _use_attributes(use: ToolUse) -> Attributes:
    attributes: Attributes = {
        names.GEN_AI_OPERATION_NAME: "execute_tool",
        names.GEN_AI_TOOL_NAME: use.name,
        names.GEN_AI_TOOL_TYPE: "function",
        names.GEN_AI_TOOL_CALL_ID: use.call_id,
        names.GEN_AI_CONVERSATION_ID: use.job,
        names.JOB: use.job,
        names.TASK: use.task,
        names.ATTEMPT: use.attempt,
        **decision_attributes(use.decision, use.rule, use.effect, use.tier, use.taint),
    }
    return {name: value for name, value in attributes.items() if value}


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


def _nanoseconds(moment: datetime) -> int:
    """Return nanoseconds since 1970, without a float in between."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
