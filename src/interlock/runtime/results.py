"""What the tasks of a job came to, read from the log as it comes and yielded in the order of the items.

Memory is that of the tasks that are under way, not that of all: what is over and has to wait for its turn is read
from the log again when that comes.
"""

import json
import logging
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from interlock.protocol.base import Json
from interlock.protocol.messages import JobClosed, JobRetried, TaskOutcome, TaskResult
from interlock.protocol.state import Entry, JobState, Phase, TaskState
from interlock.protocol.subjects import job_subjects, submitted_subject
from interlock.runtime.bus import Bus
from interlock.runtime.client import JobNotFound
from interlock.runtime.failures import Mistake
from interlock.runtime.lean import LeanFold

__all__ = [
    "EVERY_STEP",
    "ItemResult",
    "StepNotFound",
    "batches_of_results",
    "line_of",
    "outputs",
    "results",
    "results_in",
    "write_results",
]

_log = logging.getLogger(__name__)

EVERY_STEP = "*"
"""What stands for all steps of the plan: the order of the items is kept within each."""

_HELD = 256
"""The most outputs that are held while they wait for their turn; of the others it is held where they stand."""


class StepNotFound(Mistake):
    """The job's plan has no such step."""

    def __init__(self, job: str, step: str, known: Iterable[str]) -> None:
        self.job = job
        self.step = step
        super().__init__(f"job {job} has no step {step!r}; its steps are {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What one task came to."""

    job: str
    step: str
    index: int | None
    """Position of its item, from 0; None for a step without ``for_each``."""
    task: str
    label: str
    """What people call its item; empty where it has no name."""
    outcome: TaskOutcome
    attempts: int
    output: Json
    """Only of an accepted task."""
    reason: str
    """Why it was not accepted."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A result that waits for its turn."""

    item: ItemResult
    stands_at: int = 0
    """Sequence of the entry that the output stands in; 0: it is in ``item``."""


@dataclass(slots=True)
class _Row:
    """The results of one step."""

    next: int = 0
    waiting: dict[int, _Kept] = field(default_factory=dict)

    def put(self, index: int, kept: _Kept) -> Iterator[_Kept]:
        """Take a result in and yield those whose turn it is; one that comes again has its turn at once."""
        if index < self.next:
            yield kept
            return
        self.waiting[index] = kept
        while self.next in self.waiting:
            yield self.waiting.pop(self.next)
            self.next += 1


class _Sorter:
    """Folds a job entry by entry and puts what its tasks came to in order."""

    def __init__(self, job: str, step: str | None, only: Mapping[str, int] | None, *, holds: bool = False) -> None:
        self._fold = LeanFold(small=0)
        self._job = job
        self._step = step
        self._only = only
        """By task: the closing that counts; None: every one does."""
        self._holds = holds
        """Whether every output is held until its turn comes."""
        self._rows: dict[str, _Row] = {}
        self._results: dict[str, int] = {}
        """By open task: the sequence of the result of its current attempt."""

    @property
    def state(self) -> JobState:
        """The job so far; what closed tasks hold is forgotten."""
        return self._fold.state

    def take(self, entry: Entry) -> list[_Kept]:
        """Fold an entry and return the results whose turn it is now.

        :raises StepNotFound: the job has no such step
        """
        task, message = self._fold.take(entry), entry.message
        if self._step not in {None, EVERY_STEP} and self.state.version and self._step not in self.state.steps:
            raise StepNotFound(self._job, str(self._step), self.state.order)
        if isinstance(message, TaskResult):
            known = self.state.tasks.get(message.task)
            if known is not None and known.attempts and known.current.result is message:
                self._results[message.task] = entry.seq
        if task is None:
            return []
        ready = self._closed(task, entry.seq)
        self._fold.forget()
        return ready

    def rest(self) -> list[_Kept]:
        """Return what waits although something before it is not over."""
        return [row.waiting[index] for row in self._rows.values() for index in sorted(row.waiting)]

    def _closed(self, task: TaskState, closed_at: int) -> list[_Kept]:
        stands_at = self._results.pop(task.id, 0)
        if task.step not in self._wanted() or (self._only is not None and self._only.get(task.id) != closed_at):
            return []
        row, kept = self._rows.setdefault(task.step, _Row()), _Kept(self._item(task))
        if not self._holds and len(row.waiting) >= _HELD and task.outcome == "accepted":
            kept = _Kept(replace(kept.item, output=None), stands_at)
        return list(row.put(task.index or 0, kept))

    def _wanted(self) -> tuple[str, ...]:
        if self._step == EVERY_STEP:
            return self.state.order
        return self.state.result_steps if self._step is None else (self._step,)

    def _item(self, task: TaskState) -> ItemResult:
        return ItemResult(
            self._job,
            task.step,
            task.index,
            task.id,
            task.label,
            task.outcome or "cancelled",
            len(task.attempts),
            task.output,
            "" if task.outcome == "accepted" else task.reason,
        )


async def results(
    bus: Bus, job: str, step: str | None = None, *, follow: bool = False
) -> AsyncGenerator[ItemResult, None]:
    """Yield what the tasks of a step came to, by default of the steps that make up the result, in item order.

    Without ``follow`` these are the tasks that are over now, each once, as it was closed last. With it each comes as
    soon as it and all before it are over, until the job is; a task that is put back and closed again comes again.

    :raises JobNotFound: the job is not in the log
    :raises StepNotFound: it has no such step
    :raises BusError: the broker is away for good, or an output cannot be read any more
    """
    async with aclosing(batches_of_results(bus, job, step, follow=follow)) as batches:
        async for batch in batches:
            for one in batch:
                yield one


async def batches_of_results(
    bus: Bus, job: str, step: str | None = None, *, follow: bool = False
) -> AsyncGenerator[list[ItemResult], None]:
    """Yield the same as ``results``, those together that came together: a few hundred at most."""
    if await bus.last(submitted_subject(bus.ns, job)) is None:
        raise JobNotFound(job, await bus.jobs())
    only = None if follow else await _last_closings(bus, job)
    sorter = _Sorter(job, step, only)
    async with aclosing(_batches(bus, job, follow=follow)) as batches:
        async for entries in batches:
            ready = [kept for entry in entries for kept in sorter.take(entry)]
            for some in _portions(ready):
                yield [await _whole(bus, kept) for kept in some]
    for some in _portions(sorter.rest()):
        yield [await _whole(bus, kept) for kept in some]


async def outputs(bus: Bus, job: str, step: str) -> AsyncGenerator[tuple[int, Json], None]:
    """Yield the accepted outputs of a step with the positions of their items, in order; 0 is that of a single task.

    :raises JobNotFound: the job is not in the log
    :raises StepNotFound: it has no such step
    :raises BusError: the broker is away for good, or an output cannot be read any more
    """
    async with aclosing(results(bus, job, step)) as found:
        async for one in found:
            if one.outcome == "accepted":
                yield one.index or 0, one.output


def line_of(result: ItemResult) -> str:
    """Return a result as a line of JSON: its fields by their names."""
    return f"{json.dumps(asdict(result), ensure_ascii=False)}\n"


async def write_results(bus: Bus, job: str, path: Path) -> None:
    """Write the results of all steps of a job to a file, whole lines and each batch at once, until it is closed.

    A file that takes no more is logged and left: the job does not depend on it.

    :raises JobNotFound: the job is not in the log
    :raises BusError: the broker is away for good, or an output cannot be read any more
    """
    try:
        with path.open("w", encoding="utf-8") as file:
            async with aclosing(batches_of_results(bus, job, EVERY_STEP, follow=True)) as batches:
                async for batch in batches:
                    file.write("".join(map(line_of, batch)))
                    file.flush()
    except OSError as error:
        _log.error("%s has the results only so far: %s", path, error.strerror or error)


def results_in(entries: Iterable[Entry], again: Iterable[Entry], job: str, step: str | None) -> Iterator[ItemResult]:
    """Yield what the tasks came to according to ``entries``, such as those of an archive; ``again`` are the same.

    :raises StepNotFound: the job has no such step
    """
    last = _Last()
    for entry in entries:
        last.take(entry)
    sorter = _Sorter(job, step, last.standing(), holds=True)
    for entry in again:
        for kept in sorter.take(entry):
            yield kept.item
    for kept in sorter.rest():
        yield kept.item


class _Last:
    """Finds which closing of each task counts: the last one, unless the task was put back after it."""

    def __init__(self) -> None:
        self._fold = LeanFold(small=0)
        self._closings: dict[str, int] = {}

    def take(self, entry: Entry) -> None:
        """Fold an entry."""
        if (task := self._fold.take(entry)) is not None:
            self._closings[task.id] = entry.seq
            self._fold.forget()

    def standing(self) -> dict[str, int]:
        """Return by task the sequence of the closing that counts."""
        return {name: seq for name, seq in self._closings.items() if self._is_over(name)}

    def _is_over(self, name: str) -> bool:
        task = self._fold.state.tasks.get(name)
        if task is not None:
            return task.phase is Phase.CLOSED
        return self._fold.state.step_of_settled(name) is not None


async def _last_closings(bus: Bus, job: str) -> dict[str, int] | None:
    """Return which closing of each task counts; None where each task has one, since no task was ever put back."""
    if await bus.last(f"{submitted_subject(bus.ns, job).removesuffix('submitted')}retried") is None:
        return None
    last = _Last()
    async with aclosing(_batches(bus, job, follow=False)) as batches:
        async for entries in batches:
            for entry in entries:
                last.take(entry)
    return last.standing()


async def _batches(bus: Bus, job: str, *, follow: bool) -> AsyncGenerator[tuple[Entry, ...], None]:
    """Yield the entries of a job: those that there are, or all until it is closed."""
    over = False
    async with bus.follow([job_subjects(bus.ns, job)]) as batches:
        async for batch in batches:
            yield batch.entries
            for entry in batch.entries:
                over = isinstance(entry.message, JobClosed) or (over and not isinstance(entry.message, JobRetried))
            if batch.pending == 0 and (over or not follow):
                return


def _portions(kept: list[_Kept]) -> Iterator[list[_Kept]]:
    return (kept[start : start + _HELD] for start in range(0, len(kept), _HELD))


async def _whole(bus: Bus, kept: _Kept) -> ItemResult:
    if not kept.stands_at:
        return kept.item
    message = (await bus.get(kept.stands_at)).message
    return replace(kept.item, output=message.output if isinstance(message, TaskResult) else None)
