"""One job, many processes, one trace."""

from collections.abc import Sequence
from pathlib import Path

from tests.cli import interlock
from tests.otlp_receiver import OtlpReceiver, ReceivedSpan
from tests.teams import digest_team, item_of, summary, write_items, write_team

from interlock.testing import Answer, Call, ScriptedServer


def _first_item_wrong_first(call: Call) -> Answer:
    return summary(call, wrong_first=item_of(call) == 0)


def _job_is_over(spans: Sequence[ReceivedSpan]) -> bool:
    names = [span.name for span in spans]
    return (
        "invoke_workflow digest" in names and "send job.submitted" in names and names.count("invoke_agent checker") >= 4
    )


async def test_a_job_with_a_redo_is_one_trace_of_all_processes(tmp_path: Path) -> None:
    """The report's trace id is one trace: client, manager, worker, verifier and chat spans, the redo linked."""
    write_items(tmp_path, 2)
    team = write_team(tmp_path, digest_team())
    async with ScriptedServer(_first_item_wrong_first) as server, OtlpReceiver() as receiver:
        env = {"INTERLOCK_MODEL_URL": server.url, **receiver.environment()}
        done = await interlock("run", str(team), "go", "--json", env=env, cwd=tmp_path)
        assert done.status == 0, done.err
        spans = await receiver.spans_until(_job_is_over)
        contexts = [seen.headers["traceparent"] for seen in server.seen]
    assert {span.trace_id for span in spans} == {done.report["trace_id"]}
    assert {span.service for span in spans} == {
        "interlock-client",
        "interlock-manager",
        "interlock-worker",
        "interlock-verifier",
    }
    by_id = {span.span_id: span for span in spans}
    roots = [span for span in spans if span.parent_id not in by_id]
    assert [root.name for root in roots] == ["invoke_workflow digest"], "every span hangs in the job's tree"
    chats = {span.span_id for span in spans if span.name.startswith("chat")}
    assert {context.split("-")[2] for context in contexts} == chats, "the engine is told the span that called it"

    attempts = [
        s for s in spans if s.name == "invoke_agent reader" and s.attributes.get("interlock.task") == "summarise:0"
    ]
    first, second = sorted(attempts, key=lambda span: span.start_ns)
    assert [link.span_id for link in second.links] == [first.span_id], "a redo is linked to the attempt it replaces"
    assert not first.links
    task = by_id[by_id[second.parent_id].parent_id]
    assert task.name == "task summarise"
    assert task is by_id[by_id[first.parent_id].parent_id]
    refused = [s for s in spans if s.name == "invoke_agent checker" and s.status == "error"]
    assert [span.attributes["interlock.attempt"] for span in refused] == [1]
    assert refused[0].attributes["interlock.criteria.failed"] == ["contains(summary)"]


async def test_a_dead_collector_changes_nothing(tmp_path: Path) -> None:
    """With tracing on and nobody listening, the job runs to its end and prints nothing but its report."""
    write_items(tmp_path, 1)
    team = write_team(tmp_path, digest_team())
    async with ScriptedServer(summary) as server:
        env = {"INTERLOCK_MODEL_URL": server.url, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
        done = await interlock("run", str(team), "go", "--json", env=env, cwd=tmp_path)
    assert done.status == 0, done.err
    assert done.report["status"] == "succeeded"
    assert "Traceback" not in done.err
