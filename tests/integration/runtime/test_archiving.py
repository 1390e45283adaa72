"""Finished jobs put away: nothing is lost, whatever is broken off, and their ids stay theirs."""

import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from tests.integration.runtime.crew import crew, give, team_of

from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json
from interlock.protocol.codec import StoredBody
from interlock.protocol.messages import JOB_TASK, TaskAssigned, TaskResult, Verdict
from interlock.protocol.subjects import job_subjects, parse_log_subject
from interlock.runtime import archiving
from interlock.runtime._jetstream import purge
from interlock.runtime.archives import Archive, ArchiveUnreadable
from interlock.runtime.archiving import (
    ArchiveDiffers,
    ArchiveLost,
    JobStillOpen,
    archive,
    drop_chunks,
    drop_counters,
    finished,
    is_away,
)
from interlock.runtime.bus import Bus
from interlock.runtime.client import read_job, submit, watch
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.itemstore import ItemStore
from interlock.runtime.lean import LeanFold
from interlock.runtime.listing import list_jobs
from interlock.runtime.report import report_of
from interlock.runtime.results import results, results_in

EACH = {"step": "s", "for_each": "{{ inputs.items }}", "do": "{{ item }}", "attempts": 1}
_LARGE = "x" * 300_000
"""More than stands in the log itself."""


@asynccontextmanager
async def coordinated(bus: Bus) -> AsyncIterator[None]:
    """Run a manager inside the block."""
    async with anyio.create_task_group() as group:
        group.start_soon(Coordinator(bus, Tracing()).run)
        yield
        group.cancel_scope.cancel()


async def _done(
    bus: Bus, job: str = "j1", *, items: int = 12, judge: Callable[[TaskResult], Verdict] = lambda _: "pass"
) -> str:
    """Have a job done of which the result of item 3 is too large for the log."""

    def work(assigned: TaskAssigned) -> Json:
        return _LARGE if assigned.task == "s:3" else f"did {assigned.task}"

    async with coordinated(bus), crew(bus, work, judge):
        given: list[Json] = [f"item {number}" for number in range(items)]
        await give(bus, team_of(EACH), job, inputs={"items": given})
        with anyio.fail_after(60):
            async with aclosing(watch(bus, job)) as news:
                async for _ in news:
                    pass
    return job


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def _tasks_in_log(bus: Bus, job: str) -> set[str]:
    return {parse_log_subject(one.subject).task for one in await bus.entries(job_subjects(bus.ns, job))}


async def test_an_archive_has_all_and_the_log_only_that_there_was_the_job(bus: Bus, tmp_path: Path) -> None:
    """The file folds to the same report; the tasks and their large bodies are out of the broker; the list knows it."""
    job = await _done(bus, judge=lambda result: "fail" if result.task == "s:5" else "pass")
    before, bodies = report_of(await read_job(bus, job)), await bus.shelf.bodies()
    told = [one async for one in results(bus, job)]
    assert (await finished(bus), await is_away(bus, job)) == ([job], False)
    done = await archive(bus, job, tmp_path)
    fold = LeanFold()
    fold.take_all(Archive.open(done.path).entries())
    assert report_of(fold.state) == before
    kept = Archive.open(done.path)
    assert list(results_in(kept.entries(), kept.entries(), job, None)) == told
    assert any(one.output == _LARGE for one in told)
    assert await _tasks_in_log(bus, job) == {JOB_TASK}
    assert len(await bus.shelf.bodies()) == len(bodies) - 1, "that of the result; that of the job's end stays"
    assert (await finished(bus), await is_away(bus, job)) == ([], True)
    [listed] = await list_jobs(bus)
    assert (listed.report.job_id, listed.report.status, listed.accepted, listed.tasks) == (job, "partial", None, 12)


async def test_an_archived_id_is_still_the_same_job(bus: Bus, tmp_path: Path) -> None:
    """Submitting it again makes nothing, and a manager that starts now does nothing about it."""
    job = await _done(bus)
    await archive(bus, job, tmp_path)
    assert not await submit(bus, Tracing(), team_of(EACH), "again", {"items": ["a"]}, job)
    async with coordinated(bus), crew(bus):
        await _done(bus, "j2")
    assert await _tasks_in_log(bus, job) == {JOB_TASK}
    assert [one.report.status for one in await list_jobs(bus)] == ["succeeded", "succeeded"]


async def test_a_job_may_be_kept_in_the_log(bus: Bus, tmp_path: Path) -> None:
    """Then the file is written and nothing is taken out."""
    job = await _done(bus)
    before = await _tasks_in_log(bus, job)
    done = await archive(bus, job, tmp_path, keep=True)
    assert (done.kept, done.entries > 40) == (True, True)
    assert await _tasks_in_log(bus, job) == before


async def test_an_open_job_is_refused(bus: Bus, tmp_path: Path) -> None:
    """What is not over stays where it is."""
    job = await give(bus, team_of(EACH), inputs={"items": ["a"]})
    with pytest.raises(JobStillOpen, match="is not over"):
        await archive(bus, job, tmp_path)
    assert await finished(bus) == []
    assert not _files(tmp_path)


@pytest.mark.parametrize("purges", range(4))
async def test_what_was_broken_off_is_finished_by_doing_it_again(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, purges: int
) -> None:
    """A crash after any purge loses nothing: the file is whole, and the second time takes out the rest."""
    job = await _done(bus)
    before, real, left = report_of(await read_job(bus, job)), purge, purges

    async def crashing(*arguments: object) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        await real(*arguments)  # type: ignore[arg-type]  # handed on as they come

    with monkeypatch.context() as patched:
        patched.setattr("interlock.runtime._shelf.purge", crashing)
        with pytest.raises(KeyboardInterrupt):
            await archive(bus, job, tmp_path)
    assert await is_away(bus, job) is (purges > 0)
    assert await finished(bus) == [job]
    done = await archive(bus, job, tmp_path)
    fold = LeanFold()
    fold.take_all(Archive.open(done.path).entries())
    assert report_of(fold.state) == before
    assert await _tasks_in_log(bus, job) == {JOB_TASK}


async def test_a_file_that_is_not_whole_takes_nothing_out(bus: Bus, tmp_path: Path) -> None:
    """A job whose file is lost or cut is told, and what the log still has of it stays."""
    job = await _done(bus)
    done = await archive(bus, job, tmp_path)
    whole = done.path.read_bytes()
    done.path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArchiveUnreadable):
        list(Archive.open(done.path).records())
    lines = gzip.decompress(whole).splitlines(keepends=True)
    done.path.write_bytes(gzip.compress(b"".join(lines[:-2] + lines[-1:])))
    with pytest.raises(ArchiveUnreadable, match="its end says"):
        list(Archive.open(done.path).records())
    done.path.unlink()
    with pytest.raises(ArchiveLost, match="name the file"):
        await archive(bus, job, tmp_path)


async def test_the_archive_of_another_job_is_not_taken_for_it(bus: Bus, tmp_path: Path) -> None:
    """Nothing more is taken out of the log on the word of a file that tells of something else."""
    first, second = await _done(bus, "j1"), await _done(bus, "j2")
    done, other = await archive(bus, first, tmp_path), await archive(bus, second, tmp_path)
    done.path.write_bytes(other.path.read_bytes())
    with pytest.raises(ArchiveDiffers):
        await archive(bus, first, tmp_path)


async def test_items_that_jobs_share_stay_until_the_last_is_long_over(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list goes with the last job that names it and not before an hour is over; the archives have it."""
    stored = await ItemStore(bus).put([f"item {number}" for number in range(6)])
    [chunk] = stored.chunks
    body = StoredBody(digest=f"sha256:{chunk.digest}", size=chunk.size)
    async with coordinated(bus), crew(bus):
        for job in ("j1", "j2"):
            assert await submit(bus, Tracing(), team_of(EACH), "go", {}, job, stored={"items": stored})
            with anyio.fail_after(60):
                async with aclosing(watch(bus, job)) as news:
                    async for _ in news:
                        pass
    monkeypatch.setattr(archiving, "_STAYS", timedelta())
    done = await archive(bus, "j1", tmp_path)
    assert await drop_chunks(bus) == 0, "the other job is in the log"
    assert Archive.open(done.path).body(body) == await bus.get_body(body)
    await archive(bus, "j2", tmp_path)
    monkeypatch.setattr(archiving, "_STAYS", timedelta(hours=1))
    assert await drop_chunks(bus) == 0, "it was just over"
    monkeypatch.setattr(archiving, "_STAYS", timedelta())
    assert await drop_chunks(bus) == 1
    assert body.digest not in await bus.shelf.bodies()
    assert await drop_chunks(bus) == 0


async def test_counters_go_with_the_tasks_of_a_job(bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job used of its budget is forgotten once it is away and long over, and that of others stays."""
    for key in (f"{await _done(bus)}.calls", "j1.s.tokens", "j2.calls"):
        await bus.counters.add(key, 1)
    monkeypatch.setattr(archiving, "_STAYS", timedelta())
    assert await drop_counters(bus) == 0, "its tasks are in the log and may be put back"
    await archive(bus, "j1", tmp_path)
    monkeypatch.setattr(archiving, "_STAYS", timedelta(hours=1))
    assert await drop_counters(bus) == 0, "an attempt of it may not have heard yet"
    monkeypatch.setattr(archiving, "_STAYS", timedelta())
    assert await drop_counters(bus) == 1
    assert await bus.counters.jobs() == {"j2"}
