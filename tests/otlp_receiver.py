"""A tiny OTLP/HTTP collector for tests: takes real export requests over a socket and keeps the spans."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["OtlpReceiver", "ReceivedEvent", "ReceivedLink", "ReceivedSpan"]

_KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
_STATUS = {0: "unset", 1: "ok", 2: "error"}


@dataclass(frozen=True)
class ReceivedEvent:
    name: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class ReceivedLink:
    trace_id: str
    span_id: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it came over the wire; ids are hexadecimal, ``parent_id`` is empty for a root."""

    name: str
    kind: str
    """internal, server, client, producer or consumer."""
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    status: str
    """unset, ok or error."""
    status_text: str
    trace_state: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    events: tuple[ReceivedEvent, ...] = ()
    links: tuple[ReceivedLink, ...] = ()

    @property
    def service(self) -> str:
        """Return ``service.name``."""
        return str(self.resource["service.name"])

    @property
    def traceparent(self) -> str:
        """Return the span's own context."""
        return f"00-{self.trace_id}-{self.span_id}-01"


@dataclass
class OtlpReceiver:
    """``async with OtlpReceiver() as receiver``: set ``OTEL_EXPORTER_OTLP_ENDPOINT`` to ``receiver.url``."""

    spans: list[ReceivedSpan] = field(default_factory=list)
    encodings: set[str] = field(default_factory=set)
    """The ``Content-Encoding`` of the requests, ``identity`` where they had none."""
    headers: list[dict[str, str]] = field(default_factory=list)
    """Of each request, names in lower case."""
    url: str = ""
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    """Set from the start; cleared, requests are read and get no answer until it is set again."""

    async def __aenter__(self) -> Self:
        self.answering.set()
        self._arrived = asyncio.Condition()
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    def environment(self) -> dict[str, str]:
        """Return the variables that make a process export here, soon and past any proxy."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    async def spans_until(
        self, predicate: Callable[[Sequence[ReceivedSpan]], bool], limit: float = 10
    ) -> list[ReceivedSpan]:
        """Return the spans as soon as ``predicate`` holds of them.

        :raises AssertionError: it did not within ``limit`` seconds; says what came instead.
        """
        try:
            async with asyncio.timeout(limit), self._arrived:
                await self._arrived.wait_for(lambda: predicate(self.spans))
        except TimeoutError:
            came = sorted(f"{span.service}: {span.name}" for span in self.spans)
            raise AssertionError(f"{len(came)} spans in {limit} s, not those waited for: {came}") from None
        return list(self.spans)

    async def _take(self, request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest()
        message.ParseFromString(await request.read())  # aiohttp has undone gzip and deflate
        async with self._arrived:
            self.encodings.add(request.headers.get("Content-Encoding", "identity"))
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
            self.spans.extend(_spans(message))
            self._arrived.notify_all()
        await self.answering.wait()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")


def _spans(request: ExportTraceServiceRequest) -> list[ReceivedSpan]:
    return [
        _span(span, group.resource)
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _span(span: Span, resource: Resource) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        kind=_KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        status=_STATUS[span.status.code],
        status_text=span.status.message,
        trace_state=span.trace_state,
        attributes=_attributes(span.attributes),
        resource=_attributes(resource.attributes),
        events=tuple(ReceivedEvent(event.name, _attributes(event.attributes)) for event in span.events),
        links=tuple(
            ReceivedLink(link.trace_id.hex(), link.span_id.hex(), _attributes(link.attributes)) for link in span.links
        ),
    )


def _attributes(pairs: Sequence[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
