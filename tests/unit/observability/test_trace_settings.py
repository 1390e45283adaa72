import logging

import pytest

from interlock.observability.settings import TraceSettings

OTLP = TraceSettings(("otlp",))


@pytest.mark.parametrize(
    ("environ", "settings"),
    [
        ({}, TraceSettings()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, OTLP),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"}, OTLP),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, TraceSettings()),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, OTLP),
        ({"OTEL_TRACES_EXPORTER": "console"}, TraceSettings(("console",))),
        ({"OTEL_TRACES_EXPORTER": "otlp, Console"}, TraceSettings(("otlp", "console"))),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, TraceSettings()),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, TraceSettings()),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, OTLP),
    ],
)
def test_the_standard_variables_say_where_spans_go(environ: dict[str, str], settings: TraceSettings) -> None:
    """Tracing is on exactly where a variable names an exporter or an endpoint and none switches it off."""
    assert TraceSettings.read(environ) == settings


@pytest.mark.parametrize(
    ("value", "recorded"),
    [
        ("", False),
        ("false", False),
        ("true", True),
        ("SPAN_ONLY", True),
        ("span_and_event", True),
        ("EVENT_ONLY", False),
    ],
)
def test_content_is_recorded_only_when_asked_for(value: str, recorded: bool) -> None:
    """Prompts and answers stay out of spans unless the standard variable puts them in."""
    environ = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": value}
    assert TraceSettings.read(environ).content is recorded


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "asks for grpc; set it to http/protobuf"),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "asks for http/json",
        ),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "'zipkin', which is not known; use otlp, console or none"),
    ],
)
def test_what_cannot_be_followed_is_off_and_said(
    environ: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An unsupported protocol or exporter turns tracing off with one warning that names the way out."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"} | environ
    with caplog.at_level(logging.WARNING):
        assert TraceSettings.read(environ).exporters == ()
    (record,) = caplog.records
    assert said in record.getMessage()
