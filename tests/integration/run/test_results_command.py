"""Results on the command line: in order, while the job runs and afterwards."""

import json
from pathlib import Path
from typing import Any

import anyio
from tests.cli import interlock, running
from tests.teams import digest_team, summary, write_items, write_team

from interlock.testing import Answer, Call, ScriptedServer

_ITEMS = 30


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_results_are_written_while_the_job_runs_and_read_afterwards(tmp_path: Path) -> None:
    """``--results`` has whole lines in order before the job is over; ``results`` tells the same afterwards."""
    write_items(tmp_path, _ITEMS)
    team, file = write_team(tmp_path, digest_team(parallel=2)), tmp_path / "out.jsonl"

    def slowly(call: Call) -> Answer:
        return summary(call, delay=0.1)

    async with ScriptedServer(slowly) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(team), "--results", str(file), "--json", env=env, cwd=tmp_path) as command:
            with anyio.fail_after(60):
                while not file.exists() or len(file.read_text().splitlines()) < 3:  # noqa: ASYNC110 -- nobody tells of it
                    await anyio.sleep(0.01)
            assert command.process.returncode is None
            done = await command.finish()
    assert done.status == 0, done.err
    written = _lines(file.read_text())
    places = [(one["step"], one["index"]) for one in written]
    assert places == [*(("summarise", number) for number in range(_ITEMS)), ("headline", None)]
    assert [one["output"] for one in written[:-1]] == [{"summary": f"item {number}"} for number in range(_ITEMS)]
    job = done.report["job_id"]
    told = await interlock("results", job, "--step", "summarise", cwd=tmp_path)
    assert (told.status, _lines(told.out)) == (0, written[:-1])
    headline = await interlock("results", job, cwd=tmp_path)
    assert [one["step"] for one in _lines(headline.out)] == ["headline"]


async def test_mistakes_are_told_in_a_line(tmp_path: Path) -> None:
    """No such job, and a file that cannot be written, end with 2 before anything runs."""
    write_items(tmp_path, 1)
    team = write_team(tmp_path, digest_team())
    async with ScriptedServer(summary) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        run = await interlock("run", str(team), "--results", "no/such/out.jsonl", env=env, cwd=tmp_path)
    assert run.status == 2
    assert run.err.splitlines()[-1].startswith("interlock: no/such/out.jsonl cannot be written")
    none = await interlock("results", "nobody", cwd=tmp_path)
    assert (none.status, none.out) == (2, "")
