"""What ``interlock replay JOB --rerun`` does: runs a job again with recorded answers, and says where it departs.

Nothing is asked of a model and nothing is done outside: the broker is one of its own in a temporary folder, models and
tools answer from the record, and so do people. Code runs anew: manager, prompts, reading of answers, checks.
"""

import argparse
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from interlock.protocol.base import Json
from interlock.protocol.codec import StoredBody
from interlock.protocol.machine import fold
from interlock.protocol.messages import JobSubmitted
from interlock.protocol.state import Entry
from interlock.runtime._recorded import Departure, differences
from interlock.runtime._rerun import GatedBus, Rerun, Rerunner
from interlock.runtime.broker import embedded_broker
from interlock.runtime.bus import Bus
from interlock.runtime.client import JobNotFound
from interlock.runtime.commands import place_of
from interlock.runtime.replaying import Source, open_source
from interlock.runtime.report import report_of
from interlock.runtime.show import print_out

__all__ = ["Record", "RerunReport", "read_record", "rerun", "rerun_command"]

_ASIDE = {"seconds", "trace_id"}
"""What no two runs of a job have in common."""

_SHOWN = 20
"""Lines of a kind that a person is shown."""


@dataclass(frozen=True, slots=True)
class Record:
    """The log of one job."""

    entries: Sequence[Entry]
    """Oldest first."""
    body: Callable[[StoredBody], Awaitable[bytes]]
    """Returns what the object store has beside the log."""


@dataclass(frozen=True, slots=True)
class RerunReport:
    """What came of running a job again."""

    job: str
    entries: int
    """How many the record has."""
    answered: int
    """Calls of models that were answered from the record."""
    taken: tuple[Departure, ...]
    """The entries that could not be made anew and were taken as they are recorded, and why."""
    departures: tuple[Departure, ...]

    @property
    def same(self) -> bool:
        """Whether everything came out as it is recorded."""
        return not self.departures

    def as_json(self) -> dict[str, Json]:
        """Return it as ``--json`` prints it."""
        return {
            "job": self.job,
            "same": self.same,
            "departures": [one.as_json() for one in self.departures],
            "taken_as_recorded": [one.as_json() for one in self.taken],
            "entries": self.entries,
            "answered": self.answered,
        }


def rerun_command(options: argparse.Namespace) -> int:
    """Run the job again that the options name; return 0 where it is the same, 1 where it departs from the record.

    :raises JobNotFound: it is neither in the log nor in an archive
    :raises ArchiveUnreadable: the archive is not whole
    :raises BrokerError: no broker can be started
    :raises BusError: the log cannot be read
    """
    return anyio.run(_rerun_command, options, backend_options={"use_uvloop": True})


async def _rerun_command(options: argparse.Namespace) -> int:
    async with open_source(place_of(options), options.job) as source:
        report = await rerun(await read_record(source))
    if options.json:
        print_out(json.dumps(report.as_json(), ensure_ascii=False, indent=2))
    else:
        print_out("\n".join(_in_words(report)))
    return 0 if report.same else 1


def _in_words(report: RerunReport) -> Iterator[str]:
    made = f"{report.entries} entries, {report.answered} calls of models answered from the record"
    yield f"{report.job}: {'the same' if report.same else 'departs from the record'} ({made})"
    yield from _some([f"  {one}" for one in report.departures])
    yield from _some([f"  taken as recorded: {one}" for one in report.taken])


def _some(lines: Sequence[str]) -> Iterator[str]:
    """Yield the first lines; of more than a person reads, how many there are besides."""
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield f"  and {len(lines) - _SHOWN} more; --json has them all"


async def read_record(source: Source) -> Record:
    """Return the log of a job as it is now.

    :raises JobNotFound: it does not begin with the job's submission
    :raises ArchiveUnreadable: the archive is not whole
    :raises BusError: the log cannot be read
    """
    entries: list[Entry] = []
    async with aclosing(source.entries()) as batches:
        async for batch in batches:
            entries += batch
    if not entries or not isinstance(entries[0].message, JobSubmitted):
        raise JobNotFound(source.job, ())
    return Record(entries, source.body)


async def rerun(record: Record) -> RerunReport:
    """Run the job of ``record`` again, and return where it departs from it.

    :raises BrokerError: no broker can be started
    :raises BusError: what stands beside the log cannot be read
    """
    submitted = record.entries[0].message
    async with _bus_of_its_own(submitted.ns) as bus:
        if isinstance(submitted, JobSubmitted):
            await _copy(record, submitted, bus)
        made = await Rerunner(bus, record.entries).run()
    departures = tuple(made.departures) or tuple(_report_departures(record.entries, made))
    return RerunReport(submitted.job, len(record.entries), made.answered, tuple(made.taken), departures)


@asynccontextmanager
async def _bus_of_its_own(ns: str) -> AsyncIterator[GatedBus]:
    with TemporaryDirectory(prefix="interlock-rerun-") as folder:
        async with embedded_broker(Path(folder), ns=ns) as address, GatedBus.connect(address, ns, "rerun") as bus:
            if not isinstance(bus, GatedBus):
                raise TypeError(f"expected a bus with a gate, got {type(bus).__name__}")
            yield bus


async def _copy(record: Record, submitted: JobSubmitted, bus: Bus) -> None:
    """Copy the items that stand beside the log."""
    for stored in (*submitted.items.values(), *submitted.stored.values()):
        for chunk in stored.chunks:
            await bus.put_body(await record.body(StoredBody(digest=f"sha256:{chunk.digest}", size=chunk.size)))


def _report_departures(record: Sequence[Entry], made: Rerun) -> list[Departure]:
    """Return where the account of the job is another one, although no entry is."""
    was, now = (report_of(fold(entries)).model_dump(mode="json", exclude=_ASIDE) for entries in (record, made.made))
    return [Departure(0, f"report, {path}", what) for path, what in differences(was, now)]
