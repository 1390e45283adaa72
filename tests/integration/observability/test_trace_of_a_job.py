"""Spans of real processes, exported over OTLP/HTTP and read from the wire."""

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.otlp_receiver import OtlpReceiver, ReceivedSpan

from interlock.observability.context import job_traceparent, new_traceparent, task_traceparent
from interlock.observability.tracing import JobRecord, ModelCall, Tracing, Work

SCRIPT = Path(__file__).with_name("trace_process.py")
CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SPANS = 12


async def _process(stack: AsyncExitStack, role: str, environ: dict[str, str]) -> asyncio.subprocess.Process:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), role, stdin=pipe, stdout=pipe, stderr=pipe, env=clean | environ
    )
    stack.push_async_callback(_ended, process)
    return process


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()


def _pipes(process: asyncio.subprocess.Process) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    assert process.stdout is not None
    assert process.stdin is not None
    return process.stdout, process.stdin


async def _job(receiver: OtlpReceiver, root: bytes, **environ: str) -> list[ReceivedSpan]:
    """Run a job of one task and two attempts in two processes and return what arrived."""
    async with AsyncExitStack() as stack:
        manager = await _process(stack, "manager", receiver.environment() | environ)
        worker = await _process(stack, "worker", receiver.environment() | environ)
        from_manager, to_manager = _pipes(manager)
        from_worker, to_worker = _pipes(worker)
        to_manager.write(root + b"\n")
        for _attempt in (1, 2):
            to_worker.write(await from_manager.readline())
            to_manager.write(await from_worker.readline())
        spans = await receiver.spans_until(lambda spans: len(spans) >= SPANS, limit=30)
        for process in (manager, worker):
            _, said = await process.communicate()
            assert (process.returncode, said) == (0, b"")
    assert len(spans) == SPANS
    return spans


def _named(spans: Sequence[ReceivedSpan], name: str) -> list[ReceivedSpan]:
    return sorted((span for span in spans if span.name == name), key=lambda span: span.start_ns)


def _picture(spans: Sequence[ReceivedSpan], parent: str, depth: int = 0) -> list[str]:
    """Return the tree below ``parent`` as indented lines."""
    lines = []
    for span in sorted((span for span in spans if span.parent_id == parent), key=lambda span: span.start_ns):
        lines.append("  " * depth + f"{span.name} [{span.service.removeprefix('interlock-')}]")
        lines += _picture(spans, span.span_id, depth + 1)
    return lines


ATTEMPT = """\
    send task.assigned [manager]
      invoke_agent reader [worker]
        chat tiny [worker]
        send task.result [worker]
          invoke_agent checker [worker]
"""
TREE = "invoke_workflow digest [manager]\n  task read [manager]\n" + ATTEMPT + ATTEMPT


async def test_two_processes_make_one_tree_with_the_redo_linked() -> None:
    """All spans of a job hang below its span in one trace, and the second attempt is linked to the first."""
    root = new_traceparent(sampled=True)
    async with OtlpReceiver() as receiver:
        spans = await _job(receiver, f'{{"Interlock-Root": "{root}"}}'.encode())
    assert {span.trace_id for span in spans} == {root.split("-")[1]}
    assert _picture(spans, "") == TREE.splitlines()
    (job,), (task,) = _named(spans, "invoke_workflow digest"), _named(spans, "task read")
    assert job.traceparent == job_traceparent(root, "job-1")
    assert task.traceparent == task_traceparent(root, "job-1", "read-0")
    assert (task.start_ns, task.end_ns - task.start_ns) == (1767323045_678901_000, 9_000_000_000)
    first, second = _named(spans, "invoke_agent reader")
    assert first.links == ()
    (link,) = second.links
    assert (link.trace_id, link.span_id) == (first.trace_id, first.span_id)
    assert link.attributes == {"interlock.link": "redo_of"}


async def test_the_spans_tell_which_attempt_failed_what() -> None:
    """The verifier's span of the failed attempt is an error that names the criterion; so does the task's span."""
    async with OtlpReceiver() as receiver:
        spans = await _job(receiver, b"{}")
    failed, passed = _named(spans, "invoke_agent checker")
    assert (failed.status, failed.status_text) == ("error", "verdict_fail: words(summary)")
    assert failed.attributes["interlock.attempt"] == 1
    assert failed.attributes["interlock.verdict"] == "fail"
    assert failed.attributes["interlock.criteria.failed"] == ["words(summary)"]
    labels = [event.attributes["gen_ai.evaluation.score.label"] for event in failed.events]
    assert labels == ["fail", "pass"]
    assert (passed.status, passed.attributes["interlock.verdict"]) == ("unset", "pass")
    (task,) = _named(spans, "task read")
    assert task.attributes["interlock.redone"] == ["attempt 1: words(summary)"]
    assert task.attributes["interlock.attempts"] == 2


async def test_spans_follow_the_conventions_and_keep_texts_out() -> None:
    """Kinds and attributes are those of the GenAI and messaging conventions; no prompt, answer or password is sent."""
    async with OtlpReceiver() as receiver:
        spans = await _job(receiver, b"{}", OTEL_EXPORTER_OTLP_COMPRESSION="gzip", OTEL_EXPORTER_OTLP_HEADERS="x-key=1")
        assert receiver.encodings == {"gzip"}
        assert {headers["x-key"] for headers in receiver.headers} == {"1"}
    chat = _named(spans, "chat tiny")[0]
    assert chat.kind == "client"
    assert chat.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.conversation.id": "job-1",
        "gen_ai.response.model": "tiny-1",
        "gen_ai.response.id": "r1",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "server.address": "127.0.0.1",
        "server.port": 8000,
    }
    reader, sent = _named(spans, "invoke_agent reader")[0], _named(spans, "send task.assigned")[0]
    assert (reader.kind, sent.kind) == ("consumer", "producer")
    assert (
        reader.attributes.items()
        >= {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "reader",
            "messaging.system": "nats",
            "messaging.operation.type": "process",
            "messaging.destination.name": "il.log.assigned",
            "messaging.message.id": "m1",
            "interlock.agent.kind": "worker",
        }.items()
    )
    assert sent.attributes["messaging.operation.type"] == "send"
    assert "SECRET" not in repr(spans)
    assert "pw" not in repr(spans)


async def test_texts_are_recorded_when_asked_for() -> None:
    """The standard variable puts prompts, answers and evidence into the spans, in the form of the conventions."""
    variables = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true", "OTEL_SERVICE_NAME": "mine"}
    async with OtlpReceiver() as receiver:
        spans = await _job(receiver, b"{}", **variables)
    chat = _named(spans, "chat tiny")[0]
    asked = '[{"role": "user", "parts": [{"type": "text", "content": "SECRET question"}]}]'
    assert chat.attributes["gen_ai.input.messages"] == asked
    assert "SECRET answer" in chat.attributes["gen_ai.output.messages"]
    failed = _named(spans, "invoke_agent checker")[0]
    assert "SECRET" in failed.events[0].attributes["gen_ai.evaluation.explanation"]
    assert {span.service for span in spans} == {"mine"}


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> OtlpReceiver:
    """Return a receiver, not yet started, in an environment without other settings."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    return OtlpReceiver()


def _traced(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, **environ: str) -> Tracing:
    for name, value in (receiver.environment() | environ).items():
        monkeypatch.setenv(name, value)
    return Tracing.from_environment("test")


WORK = Work(agent="reader", kind="worker", team="digest", job="job-1", task="read-0", attempt=1)


async def test_a_job_hangs_below_the_span_of_its_client(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submitter's own span is the parent of the job's, and its tracestate goes on to whom we call."""
    async with receiver:
        tracing = _traced(receiver, monkeypatch)
        root = tracing.job_root({"traceparent": CLIENT}, "job-1")
        with (
            tracing.invoke_agent(WORK, parent=job_traceparent(root, "job-1"), tracestate="vendor=1"),
            tracing.chat(ModelCall(model="m")) as chat,
        ):
            headers = chat.headers
        tracing.emit_job(root, _closed("failed", reason="2 of 3 tasks failed"))
        assert await asyncio.to_thread(tracing.shutdown)
        spans = await receiver.spans_until(lambda spans: len(spans) == 3)
    (job,), (model,) = _named(spans, "invoke_workflow digest"), _named(spans, "chat m")
    assert (job.trace_id, job.parent_id) == (CLIENT.split("-")[1], CLIENT.split("-")[2])
    assert (job.status, job.status_text) == ("error", "failed: 2 of 3 tasks failed")
    assert headers == {"traceparent": model.traceparent, "tracestate": "vendor=1"}
    assert _picture(spans, job.span_id) == ["invoke_agent reader [test]", "  chat m [test]"]


async def test_failures_mark_their_spans(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception passes through its spans and marks each by its type; its text may quote a model and stays out."""
    async with receiver:
        tracing = _traced(receiver, monkeypatch)
        with pytest.raises(TimeoutError), tracing.invoke_agent(WORK, parent=None), tracing.chat(ModelCall(model="m")):
            raise TimeoutError("SECRET")
        with pytest.raises(ConnectionError), tracing.publish("task.result", "il.log"):
            raise ConnectionError("SECRET")
        with tracing.invoke_agent(WORK, parent="junk") as span:
            span.result("gave_up", "SECRET")
        assert await asyncio.to_thread(tracing.shutdown)
        spans = await receiver.spans_until(lambda spans: len(spans) == 4)
    errors = {(span.name, span.status, span.attributes["error.type"]) for span in spans}
    assert errors == {
        ("chat m", "error", "TimeoutError"),
        ("invoke_agent reader", "error", "TimeoutError"),
        ("invoke_agent reader", "error", "gave_up"),
        ("send task.result", "error", "ConnectionError"),
    }
    assert "SECRET" not in repr(spans)


async def test_the_sampler_decides_once_a_job(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is not sampled leaves no span of any kind, one that a client samples leaves all."""
    async with receiver:
        tracing = _traced(receiver, monkeypatch, OTEL_TRACES_SAMPLER="parentbased_always_off")
        out = tracing.job_root({"Interlock-Root": tracing.new_traceparent()}, "job-1")
        for root in (out, CLIENT):
            tracing.emit_job(root, _closed("succeeded"))
            with tracing.invoke_agent(WORK, parent=job_traceparent(root, "job-1")):
                pass
        assert await asyncio.to_thread(tracing.shutdown)
        assert out.endswith("-00")
        assert {span.trace_id for span in receiver.spans} == {CLIENT.split("-")[1]}
        assert len(receiver.spans) == 2


async def test_a_job_of_an_untraced_client_is_traced_by_those_who_can(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A root that says "not recorded" only because its maker has no tracing is decided by the manager."""
    async with receiver:
        tracing = _traced(receiver, monkeypatch)
        headers = {"Interlock-Root": Tracing().new_traceparent()}
        root = tracing.job_root(headers, "job-1")
        assert root == tracing.job_root(headers, "job-1")
        assert root.endswith("-01")
        await asyncio.to_thread(tracing.shutdown)


async def test_a_full_queue_drops_spans_and_blocks_nobody(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the collector gives no answer, no more spans are kept than fit the queue and the request under way."""
    async with receiver:
        receiver.answering.clear()
        tracing = _traced(receiver, monkeypatch, OTEL_BSP_MAX_QUEUE_SIZE="100", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="50")
        for _ in range(50):
            tracing.publish("k", "s").__exit__(None, None, None)
        await receiver.spans_until(lambda spans: len(spans) > 0)
        for _ in range(2000):
            tracing.publish("k", "s").__exit__(None, None, None)
        receiver.answering.set()
        assert await asyncio.to_thread(tracing.shutdown, 5)
        assert 100 <= len(receiver.spans) <= 150


def _closed(status: str, reason: str = "") -> JobRecord:
    now = datetime.now(UTC)
    return JobRecord(job="job-1", team="digest", started=now, ended=now, status=status, reason=reason)
