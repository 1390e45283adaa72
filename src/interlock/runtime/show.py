"""Reports in words: the account of one job, and the list of all."""

import json
import sys
from collections.abc import Sequence

from interlock.protocol.base import Json
from interlock.runtime.report import Report, TaskReport

__all__ = ["account", "print_jobs", "print_report", "result_text"]


def print_report(report: Report) -> None:
    """Print the result to standard output and the account of the job to standard error."""
    if report.result is not None:
        print(result_text(report.result), flush=True)
    print(account(report), file=sys.stderr)


def result_text(result: Json) -> str:
    """Return a result as a person reads it: text as it is, everything else as JSON."""
    return result.rstrip() if isinstance(result, str) else json.dumps(result, indent=2, ensure_ascii=False)


def account(report: Report) -> str:
    """Return what became of each task, and what the job took."""
    lines = [f"{report.job_id}: {report.status}" + (f" ({report.reason})" if report.reason else "")]
    lines += (f"  {_task_line(task)}" for task in report.tasks)
    usage = report.usage
    lines.append(
        f"{usage.calls} model calls, {usage.prompt_tokens} + {usage.completion_tokens} tokens, "
        f"{report.seconds:.1f} s, trace {report.trace_id}"
    )
    return "\n".join(lines)


def print_jobs(reports: Sequence[Report]) -> None:
    """Print a line for each job to standard output."""
    for report in reports:
        accepted = sum(task.status == "accepted" for task in report.tasks)
        print(f"{report.job_id}  {report.status:9}  {accepted}/{len(report.tasks)} accepted  {report.goal}")


def _task_line(task: TaskReport) -> str:
    name = f"{task.id} {task.label}" if task.label else task.id
    reason = f": {task.reason}" if task.reason and task.status != "accepted" else ""
    if not task.attempts:
        return f"{name}  {task.status}{reason}"
    verdicts = ", ".join(verdict.verdict for verdict in task.verdicts)
    attempts = f"{task.attempts} attempt{'' if task.attempts == 1 else 's'}"
    return f"{name}  {task.agent}  {task.status} after {attempts} ({verdicts or 'no verdict'}){reason}"
