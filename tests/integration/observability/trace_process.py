"""One process of a traced job, for tests: ``manager`` or ``worker`` on the command line, JSON lines as its broker."""

import json
import sys
from datetime import UTC, datetime, timedelta

from interlock.observability.attributes import HEADER_ORIGIN, HEADER_REPLACES
from interlock.observability.context import task_traceparent
from interlock.observability.tracing import JobRecord, ModelCall, TaskRecord, Tracing, Work
from interlock.protocol.base import Usage
from interlock.protocol.messages import CriterionVerdict

JOB, TASK = "job-1", "read-0"
STARTED = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
FOUND = CriterionVerdict(
    criterion="words(summary)", holds=False, evidence="SECRET has 47 words, at most 40 are allowed"
)
HOLDS = CriterionVerdict(criterion="grounded(summary)", holds=True, evidence="12 of 12 words")


def send(headers: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(headers) + "\n")
    sys.stdout.flush()


def receive() -> dict[str, str]:
    headers: dict[str, str] = json.loads(sys.stdin.readline())
    return headers


def manage(tracing: Tracing) -> None:
    """Assign two attempts, the second as a redo of the first, and close."""
    root = tracing.job_root(receive(), JOB)
    replaces: dict[str, str] = {}
    for _attempt in (1, 2):
        with tracing.publish("task.assigned", "il.log.assigned", task_traceparent(root, JOB, TASK)) as headers:
            send(headers | replaces)
        replaces = {HEADER_REPLACES: receive()[HEADER_ORIGIN]}
    ended = STARTED + timedelta(seconds=9)
    task = TaskRecord(
        job=JOB, task=TASK, step="read", agent="reader", started=STARTED, ended=ended, outcome="accepted", attempts=2,
        redone={1: ["words(summary)"]},
    )  # fmt: skip
    tracing.emit_task(root, task)
    tracing.emit_job(root, JobRecord(job=JOB, team="digest", started=STARTED, ended=ended, status="succeeded"))


def work(tracing: Tracing) -> None:
    """Answer two assignments as worker, with a model call, and judge each as the verifier would."""
    for attempt in (1, 2):
        headers = receive()
        mine = Work(
            agent="reader", kind="worker", team="digest", job=JOB, task=TASK, attempt=attempt, step="read",
            subject="il.log.assigned", message_id=f"m{attempt}",
        )  # fmt: skip
        parent, replaces = headers["traceparent"], headers.get(HEADER_REPLACES)
        with tracing.invoke_agent(mine, parent=parent, replaces=replaces) as span:
            think(tracing)
            span.result("done", usage=Usage(calls=1, prompt_tokens=10, completion_tokens=5))
            with tracing.publish("task.result", "il.log.result") as result:
                result[HEADER_ORIGIN] = span.traceparent or ""
        check(tracing, result, attempt)
        send(result)


def think(tracing: Tracing) -> None:
    """Ask a model."""
    call = ModelCall(model="tiny", temperature=0.2, max_tokens=64, url="http://user:pw@127.0.0.1:8000/v1", job=JOB)
    with tracing.chat(call) as chat:
        chat.asked([{"role": "user", "content": "SECRET question"}])
        usage = Usage(calls=1, prompt_tokens=10, completion_tokens=5)
        chat.answered(usage=usage, finish_reasons=["stop"], model="tiny-1", response_id="r1", text="SECRET answer")


def check(tracing: Tracing, result: dict[str, str], attempt: int) -> None:
    """Fail the first attempt and pass the second."""
    judge = Work(agent="checker", kind="verifier", team="digest", job=JOB, task=TASK, attempt=attempt)
    with tracing.invoke_agent(judge, parent=result["traceparent"]) as span:
        span.verdict("fail", [FOUND, HOLDS]) if attempt == 1 else span.verdict("pass", [HOLDS])


if __name__ == "__main__":
    role = sys.argv[1]
    traced = Tracing.from_environment(f"interlock-{role}", {"interlock.role": role})
    manage(traced) if role == "manager" else work(traced)
    traced.shutdown(limit=5)
