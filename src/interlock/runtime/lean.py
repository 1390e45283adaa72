"""Folds the log of a job with any number of tasks, and keeps of those that are over no more than a reader needs."""

from collections.abc import Iterable
from dataclasses import replace

from interlock.protocol.machine import evolve, settle
from interlock.protocol.messages import TaskClosed
from interlock.protocol.state import Attempt, Entry, JobState, Phase, TaskState

__all__ = ["SMALL", "LeanFold", "size_of"]

SMALL = 200
"""A job of no more tasks than this is kept whole, so that a person can be told of each of them."""

_FAILURES = 200
"""The most tasks that were not accepted that are kept whole; of the others it is kept that they were not, and why."""


def size_of(state: JobState) -> int:
    """Return how many tasks a job has, as far as its steps are counted."""
    return sum(step.size or 0 for step in state.steps.values())


class LeanFold:
    """The state of one job so far. What closed tasks hold is forgotten on ``forget``, unless the job is small."""

    def __init__(self, small: int = SMALL) -> None:
        self.state = JobState()
        self._small = small
        self._closed: list[str] = []
        """What was closed and not forgotten yet."""
        self._failures = 0

    def take(self, entry: Entry) -> TaskState | None:
        """Fold an entry; return the task that it closed, if it did."""
        self.state = evolve(self.state, entry)
        if not isinstance(entry.message, TaskClosed):
            return None
        task = self.state.tasks.get(entry.message.task)
        if task is None or task.head != entry.seq or task.phase is not Phase.CLOSED:
            return None
        self._closed.append(task.id)
        return task

    def take_all(self, entries: Iterable[Entry]) -> None:
        """Fold entries; what they closed is still there until ``forget``."""
        for entry in entries:
            self.take(entry)

    def forget(self) -> None:
        """Forget what the tasks hold that were closed since the last time."""
        if size_of(self.state) <= self._small:
            return
        for name in self._closed:
            task = self.state.tasks.get(name)
            if task is not None and task.phase is Phase.CLOSED:
                self._forget(task)
        self._closed = []

    def _forget(self, task: TaskState) -> None:
        if task.outcome == "accepted":
            self.state = settle(self.state, task.id)
            return
        self._failures += 1
        if self._failures > _FAILURES:
            bare = tuple(Attempt(one.number, one.role, one.verifier) for one in task.attempts)
            tasks = self.state.tasks.insert(task.id, replace(task, attempts=bare, question=None))
            self.state = replace(self.state, tasks=tasks)
