"""W3C trace contexts as plain text: making, reading and deriving them. Imports no tracing library.

The spans of a job and of its tasks get ids that are computed from the trace id and their names, so a process can
name them as parents before they exist, and whichever manager closes a task writes the very same span.
"""

import re
import secrets
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from interlock.observability.attributes import HEADER_ROOT, HEADER_TRACEPARENT

__all__ = [
    "NotATraceparentError",
    "TraceContext",
    "is_fresh",
    "job_traceparent",
    "new_traceparent",
    "parse_traceparent",
    "root_of",
    "task_traceparent",
    "trace_id_of",
]

_PATTERN = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


class NotATraceparentError(ValueError):
    """A text that should be a W3C traceparent is none."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text[:80]!r} is no traceparent; it must look like "
            "00-<32 hexadecimal digits>-<16 hexadecimal digits>-<2 hexadecimal digits>, ids not all zero"
        )
        self.text = text


class TraceContext(NamedTuple):
    """What a traceparent says."""

    trace_id: int
    """128 bits, never 0."""
    span_id: int
    """64 bits, never 0."""
    sampled: bool
    """Whether whoever made this context records its spans."""

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


def new_traceparent(*, sampled: bool) -> str:
    """Return a traceparent for a new trace, with a random trace id.

    It names no existing span: a job below it becomes the root of its trace (see `is_fresh`).
    """
    trace_id = secrets.randbits(128) or 1
    return str(TraceContext(trace_id, _fresh_span_id(trace_id), sampled))


def parse_traceparent(text: str | None) -> TraceContext | None:
    """Return what ``text`` says, or None where it is missing or no valid W3C traceparent."""
    found = _PATTERN.fullmatch(text) if text else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    context = TraceContext(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))
    well_formed = version != "ff" and not (version == "00" and more)
    return context if well_formed and context.trace_id and context.span_id else None


def job_traceparent(root: str, job: str) -> str:
    """Return the context of the span of ``job`` below ``root``; the same arguments give the same text.

    :raises NotATraceparentError: ``root`` is no traceparent.
    """
    return _derived(root, "job", job)


def task_traceparent(root: str, job: str, task: str) -> str:
    """Return the context of the span of ``task``: what its messages' spans name as their parent.

    :raises NotATraceparentError: ``root`` is no traceparent.
    """
    return _derived(root, "task", job, task)


def trace_id_of(traceparent: str) -> str:
    """Return the trace id as 32 hexadecimal digits, as Jaeger shows it.

    :raises NotATraceparentError: ``traceparent`` is none.
    """
    return f"{_required(traceparent).trace_id:032x}"


def is_fresh(context: TraceContext) -> bool:
    """Return whether `new_traceparent` made this context, so that its span id names no span."""
    return context.span_id == _fresh_span_id(context.trace_id)


def root_of(headers: Mapping[str, str] | None, job: str) -> str:
    """Return the context that ``job`` hangs below, from the headers of its ``job.submitted``.

    ``Interlock-Root`` wins; then ``traceparent``, from a client that knows only W3C; else a trace id computed from the
    job's, so that every manager that ever reads the message comes to the same trace.
    """
    headers = headers or {}
    for name in (HEADER_ROOT, HEADER_TRACEPARENT):
        if context := parse_traceparent(headers.get(name)):
            return str(context)
    trace_id = _hashed(16, b"trace", job)
    return str(TraceContext(trace_id, _fresh_span_id(trace_id), sampled=False))


def _derived(root: str, *names: str) -> str:
    context = _required(root)
    span_id = _hashed(8, context.trace_id.to_bytes(16), *names)
    return str(context._replace(span_id=span_id))


def _required(text: str) -> TraceContext:
    context = parse_traceparent(text)
    if context is None:
        raise NotATraceparentError(text)
    return context


def _fresh_span_id(trace_id: int) -> int:
    return _hashed(8, trace_id.to_bytes(16), "fresh")


def _hashed(size: int, key: bytes, *names: str) -> int:
    """Return a number of ``size`` bytes, never 0; a NUL between the names keeps ("a", "bc") from ("ab", "c")."""
    digest = blake2b("\0".join(names).encode(), digest_size=size, key=key).digest()
    return int.from_bytes(digest) or 1
