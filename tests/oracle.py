"""Judges a log from outside: counts what stands in it, without the state machine that it is to check.

``Account`` looks at the messages of one step. ``raw_log`` and ``judge`` do without interlock's reading too: they take
the bytes that the broker has, over a consumer of their own, and hold them against what was seen outside of the system.
"""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import nats
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext

from interlock.protocol.messages import TaskAssigned, TaskClosed, TaskResult, TaskVerdict
from interlock.protocol.state import Entry
from interlock.runtime.address import BrokerAddress

__all__ = ["Account", "Finding", "Line", "account_of", "judge", "raw_log"]

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_FETCH = 500
_READ_SECONDS = 60
_RECORD = "!"
"""What the task's token ends with on the subjects of what happened outside of its chain."""


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


@dataclass(frozen=True, slots=True)
class Line:
    """One entry as the broker has it."""

    seq: int
    at: float
    """When the broker stored it, in seconds since 1970."""
    job: str
    task: str
    kind: str
    """The last word of its kind."""
    answers: int | None
    """The sequence that the broker was told to expect; None outside of a chain."""
    body: Mapping[str, Any]

    @property
    def attempt(self) -> int:
        """The attempt that it is about."""
        return int(self.body.get("attempt", 0))


async def raw_log(address: BrokerAddress, ns: str = "main") -> list[Line]:
    """Return everything in the log of a broker, read with nothing but nats-py."""
    client = await nats.connect(address.url.split(","), nkeys_seed_str=address.seed)
    try:
        return await _read_all(client, ns)
    finally:
        await client.close()


async def _read_all(client: Client, ns: str) -> list[Line]:
    """Read up to what the stream's leader has now; a consumer may be with a replica that is still behind."""
    stream, found, name = client.jetstream(), list[Line](), f"IL_{ns}"
    last = (await stream.stream_info(name)).state.last_seq
    async with asyncio.timeout(_READ_SECONDS):
        while (have := found[-1].seq if found else 0) < last:
            found += await _read_from(stream, name, f"il.{ns}.log.>", have + 1, last)
    return found


async def _read_from(stream: JetStreamContext, name: str, subjects: str, begin: int, last: int) -> list[Line]:
    """Read over one consumer, as far as that gets: the node that it is with may be about to leave or to come."""
    found = list[Line]()
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=begin,
        mem_storage=True,
        num_replicas=1,
    )
    with suppress(TimeoutError):
        pull = await stream.pull_subscribe(subjects, stream=name, config=config)
        while begin <= last:
            found += [_line(message) for message in await pull.fetch(min(_FETCH, last - begin + 1), timeout=5)]
            begin = found[-1].seq + 1
    return found


def _line(message: Any) -> Line:
    _, _, _, _, job, task, kind, *_ = message.subject.split(".")
    told, headers = message.metadata, message.headers or {}
    answers = int(headers[_EXPECTED]) if _EXPECTED in headers else None
    at = told.timestamp.timestamp()
    return Line(told.sequence.stream, at, job, task.removesuffix(_RECORD), kind, answers, json.loads(message.data))


@dataclass(slots=True)
class Finding:
    """What the oracle has found of one job. Each offence is a line that names its key."""

    items: int = 0
    """Tasks that were to be done."""
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    in_doubt: int = 0
    """Effects of which the log says last that nobody knows."""
    attempts: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing was lost and nothing happened twice."""
        return not (self.lost or self.doubled)


def judge(
    lines: Sequence[Line],
    expected: Mapping[str, Any],
    report: Mapping[str, Any],
    made: Sequence[Mapping[str, Any]],
    once: Iterable[str],
) -> Finding:
    """Return what became of one job whose entries are ``lines``, in the order of the log.

    ``expected`` has the right output of each task, ``report`` what the job's own account says of each accepted one,
    ``made`` each effect that was seen outside (``key``, ``tool``), and ``once`` names the tools that promise to act
    at most once.
    """
    finding = Finding(items=len(expected), attempts=sum(line.kind == "assigned" for line in lines))
    finding.lost += _never_closed(lines, expected)
    finding.lost += [
        f"{task}: the report has {report.get(task)!r}" for task in expected if _wrong(task, expected, report)
    ]
    finding.doubled += [f"{key} stands {count} times in the log" for key, count in _twice(lines)]
    finding.doubled += _links_broken(lines)
    ledger = _ledger(lines)
    finding.in_doubt = sum(kind in {"intended", "in_doubt"} for kind in ledger.values())
    finding.doubled += _acted_too_often(made, ledger, frozenset(once))
    seen = {str(one["key"]) for one in made}
    finding.lost += [
        f"effect {key} is told as done" for key, kind in ledger.items() if kind == "done" and key not in seen
    ]
    return finding


def _never_closed(lines: Sequence[Line], expected: Mapping[str, Any]) -> list[str]:
    """Tell which tasks have not exactly one end, and whether the job has one."""
    ends = Counter(line.task for line in lines if line.kind == "closed")
    good = {line.task for line in lines if line.kind == "closed" and line.body.get("outcome") == "accepted"}
    wrong = [f"{task}: closed {ends[task]} times" for task in ("_", *expected) if ends[task] != 1]
    return wrong + [f"{task}: closed, not accepted" for task in expected if ends[task] == 1 and task not in good]


def _wrong(task: str, expected: Mapping[str, Any], report: Mapping[str, Any]) -> bool:
    return task not in report or report[task] != expected[task]


def _twice(lines: Iterable[Line]) -> list[tuple[str, int]]:
    """Return what may stand in the log once, and stands there more often."""
    counted = Counter(_place(line) for line in lines if line.kind not in {"intended", "done", "in_doubt"})
    return [(key, count) for key, count in counted.items() if count > 1]


def _place(line: Line) -> str:
    """Name what an entry is of; an attempt that waited for a person is assigned once more for each answer."""
    told = [f"{name} {line.body[name]}" for name in ("step", "version", "resumes", "question") if name in line.body]
    plan = told if line.task == "_" or line.kind in {"assigned", "asked", "answered"} else []
    return " ".join([line.kind, line.task, f"attempt {line.attempt}", *plan])


def _links_broken(lines: Iterable[Line]) -> list[str]:
    """Tell where an entry does not answer the one before it in its chain: two can have been decided on one state."""
    heads: dict[str, int] = defaultdict(int)
    broken: list[str] = []
    for line in lines:
        if line.answers is not None:
            if line.answers != heads[line.task]:
                broken.append(f"{line.task}: entry {line.seq} answers {line.answers} and not {heads[line.task]}")
            heads[line.task] = line.seq
    return broken


def _ledger(lines: Iterable[Line]) -> dict[str, str]:
    """Return the last word on each effect; once it is done it stays so."""
    known: dict[str, str] = {}
    for line in lines:
        if line.kind in {"intended", "in_doubt", "done"} and known.get(key := line.body["key"]) != "done":
            known[key] = "failed" if line.body.get("failed") else line.kind
    return known


def _acted_too_often(made: Iterable[Mapping[str, Any]], ledger: Mapping[str, str], once: frozenset[str]) -> list[str]:
    counted = Counter((str(one["tool"]), str(one["key"])) for one in made)
    often = [
        f"effect {key} of {tool} was made {n} times" for (tool, key), n in counted.items() if n > 1 and tool in once
    ]
    return often + [f"effect {key} was made and never meant" for _, key in counted if key not in ledger]
