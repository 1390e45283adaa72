import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from interlock.observability.context import job_traceparent, new_traceparent, task_traceparent
from interlock.observability.tracing import JobRecord, ModelCall, TaskRecord, Tracing, Work

WORK = Work(agent="reader", kind="worker", team="digest", job="job-1", task="read-0", attempt=1)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

EVERYTHING = """
import sys
from datetime import UTC, datetime
from interlock.observability.tracing import JobRecord, ModelCall, TaskRecord, Tracing, Work

tracing = Tracing.from_environment("interlock-worker", {"interlock.role": "worker"})
root = tracing.job_root({"Interlock-Root": tracing.new_traceparent()}, "job-1")
now = datetime.now(UTC)
with tracing.publish("task.assigned", "il.log", root) as headers:
    pass
work = Work(agent="a", kind="worker", team="t", job="job-1", task="x", attempt=1)
with tracing.invoke_agent(work, parent=headers["traceparent"], replaces=root) as agent:
    with tracing.chat(ModelCall(model="m")) as chat:
        chat.asked([{"role": "user", "content": "x"}])
        chat.answered(finish_reasons=["stop"], text="y")
    agent.result("done")
tracing.emit_task(root, TaskRecord(job="job-1", task="x", step="s", agent="a", started=now, ended=now,
                                   outcome="accepted", attempts=1))
tracing.emit_job(root, JobRecord(job="job-1", team="t", started=now, ended=now, status="succeeded"))
tracing.shutdown()
assert not tracing.enabled
print(*(name for name in sys.modules if name.split(".")[0] in {"opentelemetry", "requests", "google"}))
"""


@pytest.mark.parametrize("variables", [{}, {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}])
def test_off_imports_no_tracing_library(variables: dict[str, str]) -> None:
    """A process that is not asked to export uses all of tracing without loading OpenTelemetry."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", EVERYTHING],
        env=environ | variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_off_hands_on_the_context_that_came_in() -> None:
    """A worker without tracing tears no hole: what it sends and asks carries the context of its message."""
    tracing = Tracing()
    state = {"traceparent": PARENT, "tracestate": "vendor=1"}
    with tracing.invoke_agent(WORK, parent=PARENT, tracestate="vendor=1") as agent:
        assert agent.traceparent == PARENT
        with tracing.chat(ModelCall(model="m")) as chat:
            assert chat.headers == state
        with tracing.publish("task.result", "il.log") as headers:
            assert headers == state
    with tracing.publish("task.result", "il.log") as headers:
        assert headers == {}


def test_off_keeps_concurrent_work_apart() -> None:
    """Spans that are nested give back the context of the outer one."""
    tracing = Tracing()
    other = new_traceparent(sampled=False)
    with tracing.invoke_agent(WORK, parent=PARENT):
        with tracing.invoke_agent(WORK, parent=other), tracing.chat(ModelCall(model="m")) as inner:
            assert inner.traceparent == other
        with tracing.chat(ModelCall(model="m")) as outer:
            assert outer.traceparent == PARENT


def test_off_still_gives_each_job_a_trace() -> None:
    """Without tracing a job has a trace id all the same, marked as not recorded."""
    tracing = Tracing()
    root = tracing.new_traceparent()
    assert root.endswith("-00")
    assert tracing.job_root({"Interlock-Root": root}, "job-1") == root
    assert len({root, job_traceparent(root, "job-1"), task_traceparent(root, "job-1", "read-0")}) == 3


def test_off_passes_exceptions_on() -> None:
    """A span that is not recorded changes nothing about what is raised within it."""
    tracing = Tracing()
    with pytest.raises(KeyError), tracing.invoke_agent(WORK, parent=None), tracing.publish("k", "s"):
        raise KeyError("x")


def test_off_ends_at_once() -> None:
    """There is nothing to wait for, and nothing that writing a span after the end could break."""
    tracing, now = Tracing(), datetime.now(UTC)
    assert tracing.shutdown() is True
    tracing.emit_job(PARENT, JobRecord(job="j", team="t", started=now, ended=now, status="failed"))
    tracing.emit_task(
        PARENT,
        TaskRecord(job="j", task="t", step="s", agent="a", started=now, ended=now, outcome="failed", attempts=1),
    )
