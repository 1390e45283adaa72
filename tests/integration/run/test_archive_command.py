"""Archives on the command line: written, taken out of the log, and read as the log was."""

import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import pytest
from tests.cli import Finished, interlock
from tests.teams import digest_team, summary, write_items, write_team

from interlock.runtime.cli import main
from interlock.testing import ScriptedServer

_ITEMS = 5

Ask = Callable[..., Awaitable[Finished]]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    """Return what runs a command within this process, which starts many of them sooner."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before = list(root.handlers)

    async def run(*arguments: str) -> Finished:
        capsys.readouterr()
        status = await anyio.to_thread.run_sync(main, arguments)
        captured = capsys.readouterr()
        return Finished(status, captured.out, captured.err)

    yield run
    root.handlers[:] = before


async def test_what_was_archived_is_shown_as_before(tmp_path: Path, ask: Ask) -> None:
    """show, results and replay tell the same from the archive, by id and by file; jobs still lists the job."""
    write_items(tmp_path, _ITEMS)
    team = write_team(tmp_path, digest_team())
    async with ScriptedServer(summary) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        done = await interlock("run", str(team), "--json", env=env, cwd=tmp_path)
    job = done.report["job_id"]
    commands = [
        ("show", job, "--json"),
        ("results", job, "--step", "*"),
        ("replay", job, "--json"),
        ("replay", job, "--until", "9"),
        ("jobs",),
    ]
    before = [await ask(*command) for command in commands]
    assert [one.status for one in before] == [0] * len(commands), [one.err for one in before]
    archived = await ask("archive")
    assert (archived.status, archived.out.startswith(f"{job}: ")) == (0, True), archived.err
    after = [await ask(*command) for command in commands]
    assert [(one.status, one.out, one.err) for one in after] == [(one.status, one.out, one.err) for one in before]
    file = f".interlock/archive/{job}.jsonl.gz"
    shown = await ask("show", file, "--json", "--state", "elsewhere")
    assert (shown.status, shown.report) == (0, done.report)
    again = await ask("archive")
    assert (again.status, again.out) == (0, ""), "there is nothing left to put away"
    (tmp_path / file).unlink()
    lost = await ask("show", job)
    assert lost.status == 2
    assert lost.err.startswith(f"interlock: job {job} was archived, and its file is not at ")


async def test_the_past_is_shown_as_it_was(tmp_path: Path, ask: Ask) -> None:
    """``--until`` tells the steps up to a sequence, and then the job as it was there: it runs."""
    write_items(tmp_path, _ITEMS)
    team = write_team(tmp_path, digest_team())
    async with ScriptedServer(summary) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        done = await interlock("run", str(team), "--json", env=env, cwd=tmp_path)
    job = done.report["job_id"]
    whole = await ask("replay", job, "--json")
    steps = [json.loads(line) for line in whole.out.splitlines()]
    assert [steps[0]["kind"], steps[-1]["kind"], steps[-1]["after"]] == ["job.submitted", "job.closed", "succeeded"]
    past = await ask("replay", job, "--until", str(steps[-2]["seq"]))
    assert len(past.out.splitlines()) == len(steps) - 1
    assert past.err.splitlines()[0] == f"{job}: running"
