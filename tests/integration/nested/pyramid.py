"""A team of teams of teams for tests, and what the log says of all its jobs."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from interlock.protocol.base import Usage
from interlock.protocol.lineage import depth_of
from interlock.protocol.messages import JobClosed, JobSubmitted, TaskAssigned, TaskClosed, TaskResult, TaskVerdict
from interlock.protocol.state import Entry
from interlock.testing import Answer, Call

__all__ = ["Jobs", "answer", "team_of", "write_pyramid"]

_CHECKED = {"criteria": [{"check": "contains", "field": "line", "all": ["line"]}]}


def team_of(name: str, agent: Mapping[str, Any], items: int, **step: Any) -> dict[str, Any]:
    """Return a team of one step over ``items`` items, each with a line as its output."""
    return {
        "interlock": 1,
        "team": name,
        "agents": {"doer": dict(agent), "checker": {"kind": "verifier"}},
        "inputs": {"path": {"type": "string", "default": "top"}},
        "plan": [
            {
                "step": "each",
                "for_each": [f"{name}{number}" for number in range(items)],
                "agent": "doer",
                "do": "Write about {{ inputs.path }}/{{ item }}.",
                "output": {"line": "string"},
                "verify": _CHECKED,
                **step,
            }
        ],
        "result": "line of {{ steps.each.outputs | length }}",
    }


def write_pyramid(folder: Path, *items: int, **leaf: Any) -> Path:
    """Write a team within a team within a team, as many levels as there are numbers of items; return the outermost."""
    levels = len(items)
    for level, count in enumerate(items):
        last = level == levels - 1
        agent = {"kind": "worker"} if last else {"kind": "team", "team": f"./level{level + 1}.yaml"}
        step: dict[str, Any] = leaf if last else {"inputs": {"path": "{{ inputs.path }}/{{ item }}"}}
        team = team_of(f"level{level}", agent, count, **step)
        (folder / f"level{level}.yaml").write_text(json.dumps(team, indent=1))
    return folder / "level0.yaml"


def answer(call: Call, delay: float = 0) -> Answer:
    """Answer a task of the lowest level with a line about its own path."""
    found = re.search(r"Write about (\S+)\.", call.conversation)
    return Answer({"line": f"line about {found[1] if found else 'nothing'}"}, delay=delay)


class Jobs:
    """All jobs of a log, as they stand there: counted from the entries alone."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.submitted: dict[str, JobSubmitted] = {}
        self.closed: dict[str, JobClosed] = {}
        self.ends: Counter[str] = Counter()
        """How often each job was closed."""
        self.assigned: Counter[tuple[str, str, int]] = Counter()
        self.results: Counter[tuple[str, str, int]] = Counter()
        self.tasks: dict[str, Counter[str]] = defaultdict(Counter)
        """By job: how often each of its tasks was closed."""
        self.accepted: dict[str, set[str]] = defaultdict(set)
        self.usage: dict[str, Usage] = defaultdict(Usage)
        """By job: what its own results and verdicts add up to."""
        self.begun: Counter[str] = Counter()
        for entry in entries:
            self._take(entry)

    def _take(self, entry: Entry) -> None:
        match entry.message:
            case JobSubmitted() as submitted:
                self.begun[submitted.job] += 1
                self.submitted[submitted.job] = submitted
            case TaskAssigned() as assigned:
                self.assigned[assigned.job, assigned.task, assigned.attempt] += 1
            case TaskResult() as result:
                self.results[result.job, result.task, result.attempt] += 1
                self.usage[result.job] += result.usage
            case TaskVerdict() as verdict:
                self.usage[verdict.job] += verdict.usage
            case TaskClosed() as closed:
                self.tasks[closed.job][closed.task] += 1
                if closed.outcome == "accepted":
                    self.accepted[closed.job].add(closed.task)
            case JobClosed() as over:
                self.ends[over.job] += 1
                self.closed[over.job] = over
            case _:
                pass

    def at_level(self, level: int) -> list[str]:
        """Return the jobs of a level, 1 for those that are part of no other."""
        return [job for job in self.submitted if depth_of(job) == level]

    @property
    def doubled(self) -> list[object]:
        """Whatever stands twice in the log."""
        counts: list[Counter[Any]] = [self.begun, self.ends, self.assigned, self.results, *self.tasks.values()]
        return [key for counted in counts for key, count in counted.items() if count > 1]
