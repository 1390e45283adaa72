"""Judges a log from outside: counts what stands in it, without the state machine that it is to check."""

from collections import Counter
from collections.abc import Iterable

from interlock.protocol.messages import TaskAssigned, TaskClosed, TaskResult, TaskVerdict
from interlock.protocol.state import Entry

__all__ = ["Account", "account_of"]


class Account:
    """What a log says of the tasks of one step."""

    def __init__(self, entries: Iterable[Entry], step: str) -> None:
        mine = [entry for entry in entries if entry.message.task.partition(":")[0] == step]
        self.assigned = Counter(
            (e.message.task, e.message.attempt) for e in mine if isinstance(e.message, TaskAssigned)
        )
        self.results = Counter((e.message.task, e.message.attempt) for e in mine if isinstance(e.message, TaskResult))
        self.verdicts = Counter((e.message.task, e.message.attempt) for e in mine if isinstance(e.message, TaskVerdict))
        self.closed = Counter(e.message.task for e in mine if isinstance(e.message, TaskClosed))
        self.accepted = {
            e.message.task for e in mine if isinstance(e.message, TaskClosed) and e.message.outcome == "accepted"
        }
        self.redone = {task for task, attempt in self.assigned if attempt > 1}
        self.peak = _peak(mine)
        """The most tasks that were assigned and not closed at once."""

    @property
    def doubled(self) -> list[object]:
        """Whatever stands twice in the log."""
        return [
            key
            for counted in (self.assigned, self.results, self.verdicts, self.closed)
            for key, count in counted.items()
            if count > 1
        ]


def account_of(entries: Iterable[Entry], step: str) -> Account:
    """Return what the log says of a step."""
    return Account(entries, step)


def _peak(entries: Iterable[Entry]) -> int:
    open_tasks: set[str] = set()
    peak = 0
    for entry in sorted(entries, key=lambda one: one.seq):
        if isinstance(entry.message, TaskAssigned):
            open_tasks.add(entry.message.task)
        elif isinstance(entry.message, TaskClosed):
            open_tasks.discard(entry.message.task)
        peak = max(peak, len(open_tasks))
    return peak
