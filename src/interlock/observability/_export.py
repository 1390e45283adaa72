"""Where recorded spans go: a bounded queue, a thread that empties it, and an end that never waits for a collector."""

import logging
import os
import sys
import threading
import uuid
from collections.abc import Callable, Mapping

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from interlock._version import __version__
from interlock.observability.settings import Exporter, TraceSettings

QUEUE_SPANS = 8192
"""Spans that wait for export in one process; about 30 MB when a dead collector keeps it full. More are dropped."""
PERIOD_MS = 1000
"""How often the queue is emptied: what a killed process loses, and how late a running job shows in Jaeger."""

_log = logging.getLogger(__name__)
_NOISY = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.trace",
    "opentelemetry.sdk.trace.export",
)


class Export:
    """The processors of one process, and how to end them in bounded time."""

    def __init__(self, settings: TraceSettings) -> None:
        self._exporters = [_exporter(kind) for kind in settings.exporters]
        self.processors = [_processor(exporter) for exporter in self._exporters]
        self._once = _Once()
        for name in _NOISY:
            logging.getLogger(name).addFilter(self._once)

    def shutdown(self, limit: float) -> bool:
        """Export what is left for at most ``limit`` seconds; return whether that was enough."""
        # A thread of its own, since the SDK joins its exporting thread for up to 30 s and takes no limit.
        ending = threading.Thread(target=self._flush, name="interlock-trace-shutdown", daemon=True)
        ending.start()
        ending.join(limit)
        if not ending.is_alive():
            return True
        for exporter in self._exporters:
            exporter.shutdown()  # ends a wait between two tries; a request under way dies with the process
        level = logging.DEBUG if self._once.told else logging.WARNING
        self._once.told = True
        _log.log(level, "the trace collector did not take the last spans within %.1f s; they are dropped", limit)
        return False

    def _flush(self) -> None:
        ends: list[Callable[[], None]] = [processor.shutdown for processor in self.processors]
        try:
            for end in ends:
                end()
        finally:
            for name in _NOISY:
                logging.getLogger(name).removeFilter(self._once)


class _Once(logging.Filter):
    """Lets the first trouble of the exporter through, in words of our own and on one line, and nothing after it."""

    def __init__(self) -> None:
        super().__init__()
        self.told = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        if self.told:
            return False
        self.told = True
        cause = " ".join(record.getMessage().split())[:300]
        record.msg, record.args = "traces are not exported, the work goes on; told once: %s", (cause,)
        record.exc_info = record.exc_text = None
        return True


def resource_of(service: str, attributes: Mapping[str, str | int]) -> Resource:
    """Return what is said of this process on all of its spans; ``OTEL_RESOURCE_ATTRIBUTES`` wins over all of it."""
    ours = Resource(
        {
            "service.name": service,
            "service.version": __version__,
            "service.instance.id": str(uuid.uuid4()),
            "process.pid": os.getpid(),
            **attributes,
        }
    )
    return Resource.create(ours.merge(OTELResourceDetector().detect()).attributes)


def _exporter(kind: Exporter) -> SpanExporter:
    if kind == "console":
        return ConsoleSpanExporter(out=sys.stderr)  # stdout belongs to the job's result
    # Late: it loads requests and protobuf, which the console does without.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter()


def _processor(exporter: SpanExporter) -> BatchSpanProcessor:
    """Return a processor with our defaults where the environment sets none."""
    queue = None if os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") else QUEUE_SPANS
    period = None if os.environ.get("OTEL_BSP_SCHEDULE_DELAY") else PERIOD_MS
    return BatchSpanProcessor(exporter, max_queue_size=queue, schedule_delay_millis=period)
