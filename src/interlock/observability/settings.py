"""What the standard ``OTEL_*`` variables ask of tracing."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["Exporter", "TraceSettings"]

Exporter = Literal["otlp", "console"]

_log = logging.getLogger(__name__)
_WITH_CONTENT = frozenset({"true", "1", "span_only", "span_and_event"})


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """Where spans go and what may stand in them."""

    exporters: tuple[Exporter, ...] = ()
    """Empty: tracing is off."""
    content: bool = False
    """Whether prompts and answers may be recorded."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "TraceSettings":
        """Return the settings in ``environ``; what cannot be followed is left out with one warning each."""
        if _word(environ, "OTEL_SDK_DISABLED") == "true":
            return cls()
        exporters = _exporters(environ)
        if "otlp" in exporters and not _speaks_http(environ):
            exporters.remove("otlp")
        content = _word(environ, "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT") in _WITH_CONTENT
        return cls(tuple(exporters), content)


def _exporters(environ: Mapping[str, str]) -> list[Exporter]:
    asked = _word(environ, "OTEL_TRACES_EXPORTER")
    if not asked:
        endpoint = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
        return ["otlp"] if any(_word(environ, name) for name in endpoint) else []
    found: list[Exporter] = []
    for name in dict.fromkeys(word.strip() for word in asked.split(",")):
        match name:
            case "otlp" | "console":
                found.append(name)
            case "none" | "":
                pass
            case _:
                _log.warning("OTEL_TRACES_EXPORTER names %r, which is not known; use otlp, console or none", name)
    return found


def _speaks_http(environ: Mapping[str, str]) -> bool:
    """Return whether OTLP over HTTP with protobuf is asked for, or at least nothing else is."""
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    asked = next(filter(None, (_word(environ, name) for name in names)), "http/protobuf")
    if asked != "http/protobuf":
        _log.warning(
            "tracing is off: OTEL_EXPORTER_OTLP_PROTOCOL asks for %s; set it to http/protobuf and let the endpoint "
            "name the collector's HTTP port (usually 4318)",
            asked,
        )
    return asked == "http/protobuf"


def _word(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip().lower()
