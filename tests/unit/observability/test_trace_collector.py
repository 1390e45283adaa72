"""What a collector that is slow, dead or misnamed does to a process: nothing."""

import json
import logging
import os
import socket
import subprocess
import sys

import pytest

from interlock.observability.tracing import Tracing

PROCESS = """
import json, sys, time
from interlock.observability.tracing import ModelCall, Tracing

tracing = Tracing.from_environment("test")
begun = time.perf_counter()
for _ in range(int(sys.argv[1])):
    with tracing.chat(ModelCall(model="m")):
        pass
    time.sleep(0.001)
worked = time.perf_counter()
handed_over = tracing.shutdown(limit=0.5)
print(json.dumps({"ended_in": time.perf_counter() - worked, "handed_over": handed_over, "enabled": tracing.enabled}))
"""


def _run(url: str, spans: int = 300) -> tuple[dict[str, float], list[str]]:
    """Run a process that records ``spans`` and exports several times while it does; return its account and stderr."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "50", "no_proxy": "127.0.0.1"}
    command = [sys.executable, "-c", PROCESS, str(spans)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout), done.stderr.splitlines()


def test_a_collector_that_hangs_holds_up_no_process() -> None:
    """The end takes its limit and not the exporter's timeout, and the process is gone after it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        account, said = _run(f"http://127.0.0.1:{server.getsockname()[1]}")
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1000).startswith(b"POST /v1/traces HTTP/1.1")
    assert account["handed_over"] is False
    assert 0.4 < account["ended_in"] < 1.0
    assert len(said) <= 1


def test_a_collector_that_is_not_there_is_told_once() -> None:
    """Refused connections are retried in the background; a person reads one line, and it says why."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    account, said = _run(f"http://127.0.0.1:{port}")
    assert account["ended_in"] < 1.0
    (line,) = said
    assert "traces are not exported, the work goes on" in line
    assert "Connection refused" in line


@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_BSP_MAX_QUEUE_SIZE", "0"), ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1")]
)
def test_a_variable_that_cannot_be_used_turns_tracing_off(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake in the environment costs the trace, never the job."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv(variable, value)
    with caplog.at_level(logging.WARNING, logger="interlock"):
        tracing = Tracing.from_environment("test")
    assert not tracing.enabled
    assert any("tracing is off" in record.getMessage() for record in caplog.records)
