"""Tracing of one process: one trace a job, across every process that works on it.

`Tracing.from_environment` gives a recording object where the standard ``OTEL_*`` variables ask for one, and else
the null object that the classes in here are: it records nothing, imports no tracing library and still hands on the
context that came in, so that a process without tracing tears no hole into the others' trace.

Nothing in here is thread-safe beyond what context variables give: open a span where its work runs.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from interlock.observability.attributes import HEADER_TRACEPARENT, HEADER_TRACESTATE
from interlock.observability.context import new_traceparent, root_of
from interlock.observability.settings import TraceSettings

if TYPE_CHECKING:
    from interlock.protocol.base import Usage
    from interlock.protocol.messages import CriterionVerdict

__all__ = [
    "AgentSpan",
    "ChatSpan",
    "JobRecord",
    "ModelCall",
    "PublishSpan",
    "TaskRecord",
    "ToolSpan",
    "ToolUse",
    "TraceSpan",
    "Tracing",
    "Work",
]

_log = logging.getLogger(__name__)
_Trace = tuple[str | None, str]
"""A traceparent, or None where there is no trace, and a tracestate."""

_current: ContextVar[_Trace] = ContextVar("interlock_trace", default=(None, ""))


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord:
    """What is told of a job once it is over."""

    job: str
    team: str
    started: datetime
    """Aware; when the job was submitted."""
    ended: datetime
    status: str
    """``succeeded``, ``partial``, ``failed`` or ``killed``; the last two make the span an error."""
    reason: str = ""
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """More, under names of the caller's choice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRecord:
    """What is told of a task once it is closed."""

    job: str
    task: str
    step: str
    agent: str
    """Whose attempt was the last."""
    started: datetime
    """Aware; when its first attempt was assigned."""
    ended: datetime
    outcome: str
    """``accepted``, ``failed`` or ``cancelled``; ``failed`` makes the span an error."""
    attempts: int
    reason: str = ""
    redone: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """For each attempt that did not stand: the labels of the criteria it failed, or another short reason."""
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One message that an agent works on."""

    agent: str
    kind: str
    """``manager``, ``worker`` or ``verifier``."""
    team: str
    job: str
    task: str
    attempt: int
    step: str = ""
    subject: str = ""
    """Of the message."""
    message_id: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCall:
    """One request to a model, as it is sent."""

    model: str
    provider: str = "openai"
    """Whose flavour of the API is spoken: ``openai`` for every OpenAI-compatible server."""
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    url: str = ""
    """The server's base URL; its host and port go into the span, user and password do not."""
    job: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolUse:
    """One call of a tool, as it begins. What is not known yet can be told later, by :meth:`ToolSpan.decided`."""

    name: str
    """The tool's: only one that exists, since it names the span."""
    call_id: str = ""
    job: str = ""
    task: str = ""
    attempt: int = 0
    """From 1; 0 where there is none."""
    effect: str = ""
    """``read``, ``idempotent``, ``once`` or ``irreversible``."""
    decision: str = ""
    """``allow``, ``ask`` or ``deny``."""
    rule: str = ""
    """The rule or principle that decided, as it is written; cut at 200 characters."""
    tier: str = ""
    """What isolates the call; empty where it runs in no sandbox."""
    taint: Sequence[str] = ()
    """The labels of the outside text in the context that the call is made from."""


class TraceSpan:
    """A span that is not recorded: it stands for the context that came in. Use it with ``with``.

    An exception marks a recorded span as failed, unless it has a true attribute ``waits``: waiting is no failure.
    """

    __slots__ = ("_token", "_trace")

    _token: Token[_Trace] | None

    def __init__(self, trace: _Trace) -> None:
        self._trace = trace

    @property
    def traceparent(self) -> str | None:
        """The W3C context that children and messages should name, or None where there is no trace at all."""
        return self._trace[0]

    @property
    def headers(self) -> dict[str, str]:
        """The ``traceparent`` and ``tracestate`` headers for a message or a request sent within this span."""
        return _as_headers(self._trace)

    def __enter__(self) -> Self:
        self._token = _current.set(self._trace)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
            self._token = None

    def failed(self, error_type: str, description: str = "") -> None:
        """Mark the span as failed without an exception.

        ``error_type`` is one of few possible words: a status code, an exception's name.
        """


class AgentSpan(TraceSpan):
    """One agent working on one message. It begins with ``with`` and ends with it; an exception marks it as failed."""

    __slots__ = ()

    def result(self, status: str, reason: str = "", usage: "Usage | None" = None) -> None:
        """Say what a worker came to; every status but ``done`` marks the span as failed."""

    def verdict(self, verdict: str, criteria: "Sequence[CriterionVerdict]" = (), usage: "Usage | None" = None) -> None:
        """Say what a verifier found; every verdict but ``pass`` marks the span as failed and names the criteria."""


class ChatSpan(TraceSpan):
    """One request to a model."""

    __slots__ = ()

    def asked(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Give the messages that are sent; kept only where content was asked for.

        Each is ``{role, content}``, with tools also ``tool_calls`` of ``{id, name, arguments}``, or ``tool_call_id``.
        """

    def answered(
        self,
        *,
        usage: "Usage | None" = None,
        finish_reasons: Sequence[str] = (),
        model: str | None = None,
        response_id: str | None = None,
        text: str | None = None,
        tool_calls: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """Give what came back; ``text`` and ``tool_calls`` are kept only where content was asked for."""


class ToolSpan(TraceSpan):
    """One call of a tool, from before it is judged until what came of it is known; an exception marks it as failed."""

    __slots__ = ()

    def decided(
        self, decision: str, *, rule: str = "", effect: str = "", tier: str = "", taint: Sequence[str] = ()
    ) -> None:
        """Say what was decided of the call, as in :class:`ToolUse`; what is empty stays as it was."""

    def asked(self, arguments: str) -> None:
        """Give the arguments, as JSON text; kept only where content was asked for."""

    def answered(self, outcome: str, *, error_type: str = "") -> None:
        """Give what came of it; the text is kept only where content was asked for.

        ``error_type`` is one of few possible words, such as ``denied``; it marks the span as failed.
        """


class PublishSpan:
    """One message being sent; ``with`` gives its trace headers, to which the sender may add its own."""

    __slots__ = ("_trace",)

    def __init__(self, trace: _Trace) -> None:
        self._trace = trace

    def __enter__(self) -> dict[str, str]:
        return _as_headers(self._trace)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """End the span; an exception marks it as failed and passes on."""


class Tracing:
    """Records nothing, at next to no cost; the recording kind has the same methods."""

    @staticmethod
    def from_environment(service: str, resource: Mapping[str, str | int] | None = None) -> "Tracing":
        """Return the tracing that the standard ``OTEL_*`` variables ask for; the null object where they ask for none.

        ``service`` is the default of ``service.name``; ``resource`` are attributes of this process, such as its role.
        Settings that cannot be followed give one warning through logging, never an error.
        """
        settings = TraceSettings.read(os.environ)
        if not settings.exporters:
            return Tracing()
        try:
            # Late: it loads the tracing SDK, which takes a third of a second, which most runs do not need, and which
            # reads some of the variables while it is loaded.
            from interlock.observability._recording import recording  # noqa: PLC0415

            return recording(service, resource or {}, settings)
        except (ValueError, OSError) as error:
            _log.warning("tracing is off: an OTEL_* variable cannot be used: %s", error)
            return Tracing()

    @property
    def enabled(self) -> bool:
        """Whether spans are recorded and exported."""
        return False

    def shutdown(self, limit: float = 1.0) -> bool:
        """Export what is left, for at most ``limit`` seconds, and record nothing after.

        Blocks; returns whether all was handed over. The rest is dropped: a collector that hangs holds nothing up.
        """
        del limit
        return True

    def new_traceparent(self) -> str:
        """Return the context for a new job that nobody's span stands above; send it as ``Interlock-Root``."""
        return new_traceparent(sampled=False)

    def job_root(self, headers: Mapping[str, str] | None, job: str) -> str:
        """Return the context that ``job`` hangs below, from the headers of its ``job.submitted`` message.

        Where the submitter left open whether to record the job, this process decides by its sampler: a job
        submitted by a process without tracing is still traced by those that have it.
        """
        return root_of(headers, job)

    def emit_job(self, root: str, record: JobRecord) -> None:
        """Write the span of a job that is over, whose context is ``job_traceparent(root, job)``."""

    def emit_task(self, root: str, record: TaskRecord) -> None:
        """Write the span of a task that is closed, whose context is ``task_traceparent(root, job, task)``."""

    def publish(
        self, kind: str, subject: str, parent: str | None = None, *, message_id: str = "", tracestate: str = ""
    ) -> PublishSpan:
        """Open a span for sending one message of ``kind``; ``with`` gives the headers to send along.

        ``parent`` None means the span that is open here.
        """
        del kind, subject, message_id
        return PublishSpan(_trace_of(parent, tracestate))

    def invoke_agent(
        self, work: Work, *, parent: str | None, replaces: str | None = None, tracestate: str = ""
    ) -> AgentSpan:
        """Open the span of an agent working on one message.

        ``parent`` is the ``traceparent`` header of that message, ``tracestate`` its header of that name, ``replaces``
        its ``Interlock-Replaces`` header: the attempt that is done again, to which the span is linked.
        """
        del work, replaces
        return AgentSpan(_trace_of(parent, tracestate))

    def chat(self, call: ModelCall) -> ChatSpan:
        """Open the span of one request to a model, below the span that is open here."""
        del call
        return ChatSpan(_current.get())

    def execute_tool(self, use: ToolUse) -> ToolSpan:
        """Open the span of one call of a tool, below the span that is open here."""
        del use
        return ToolSpan(_current.get())


def _trace_of(parent: str | None, tracestate: str) -> _Trace:
    return (parent, tracestate) if parent is not None else _current.get()


def _as_headers(trace: _Trace) -> dict[str, str]:
    traceparent, tracestate = trace
    if traceparent is None:
        return {}
    headers = {HEADER_TRACEPARENT: traceparent}
    if tracestate:
        headers[HEADER_TRACESTATE] = tracestate
    return headers
