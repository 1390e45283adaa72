"""The list of all jobs, read from the log with as little as will do: of most jobs their own chain says enough."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime
from functools import partial

from interlock.protocol.lineage import ancestors_of
from interlock.protocol.machine import evolve
from interlock.protocol.messages import JobRetried, TaskClosed, TaskOutcome
from interlock.protocol.state import Entry, JobState
from interlock.protocol.subjects import chain_subjects, job_chains
from interlock.runtime.archiving import is_away
from interlock.runtime.bus import Bus
from interlock.runtime.client import read_job
from interlock.runtime.lean import size_of
from interlock.runtime.report import Listed, listed_of

__all__ = ["list_jobs"]


async def list_jobs(bus: Bus) -> list[Listed]:
    """Return all jobs of the log, oldest first, each before those within it.

    :raises BusError: the broker is away for good
    """
    chains: dict[str, JobState] = {}
    retried: set[str] = set()
    async with aclosing(_entries(bus, job_chains(bus.ns))) as entries:
        async for entry in entries:
            job = entry.message.job
            chains[job] = evolve(chains.get(job, JobState()), entry)
            if isinstance(entry.message, JobRetried):  # what that opens stands in the tasks
                retried.add(job)
    begun = {job: state.submitted.at for job, state in chains.items() if state.submitted}
    ordered = sorted(begun, key=partial(_place, begun))
    return [await _listed(bus, job, None if job in retried else chains[job]) for job in ordered]


def _place(begun: Mapping[str, datetime], job: str) -> list[tuple[datetime, str]]:
    """Return what a job is sorted by: when each of the jobs began that it is within, outermost first, and then it."""
    return [(begun.get(one, begun[job]), one) for one in (*ancestors_of(job), job)]


async def _listed(bus: Bus, job: str, chain: JobState | None) -> Listed:
    """Return what there is to say of a job; ``chain`` is the fold of its own chain where that says when it is over."""
    if chain is None or chain.closed is None or await _acted(bus, job):
        return listed_of(await read_job(bus, job))
    listed = listed_of(chain)
    accepted = size_of(chain) if chain.closed.status == "succeeded" else await _accepted(bus, job)
    report = listed.report.model_copy(update={"usage": chain.closed.usage})
    return listed.model_copy(update={"accepted": accepted, "report": report})


async def _acted(bus: Bus, job: str) -> bool:
    """Return whether the job meant to change anything outside."""
    return await bus.last(chain_subjects(bus.ns, job, "*").replace(".>", ".intended.>")) is not None


async def _accepted(bus: Bus, job: str) -> int | None:
    """Return how many tasks were accepted, from how each was closed last; None where that is archived."""
    if await is_away(bus, job):
        return None
    outcomes: dict[str, TaskOutcome] = {}
    async with aclosing(_entries(bus, chain_subjects(bus.ns, job, "*").replace(".>", ".closed"))) as entries:
        async for entry in entries:
            if isinstance(entry.message, TaskClosed):
                outcomes[entry.message.task] = entry.message.outcome
    return sum(outcome == "accepted" for outcome in outcomes.values())


async def _entries(bus: Bus, subjects: str) -> AsyncGenerator[Entry, None]:
    async with bus.follow([subjects]) as batches:
        async for batch in batches:
            for entry in batch.entries:
                yield entry
            if batch.pending == 0:
                return
