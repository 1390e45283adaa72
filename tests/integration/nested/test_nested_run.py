"""Teams within teams from the command line: two levels, end to end, and what their log says."""

import json
from pathlib import Path

from tests.cli import interlock, read_log
from tests.integration.nested.pyramid import Jobs, answer, write_pyramid

from interlock.protocol.lineage import child_job
from interlock.testing import ScriptedServer


async def test_a_team_does_the_tasks_of_a_team(tmp_path: Path) -> None:
    """Each task of a team agent is a job of its own whose result is the task's, verified, its usage counted."""
    team = write_pyramid(tmp_path, 3, 2)
    async with ScriptedServer(answer) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        done = await interlock("run", str(team), "go", "--json", "--id", "paper", env=env, cwd=tmp_path)
        assert done.status == 0, done.err
        calls = len(server.calls)
    assert [task["output"] for task in done.report["tasks"]] == [{"line": "line of 2"}] * 3
    assert done.report["usage"]["calls"] == calls == 6
    jobs = Jobs(await read_log(tmp_path / ".interlock"))
    assert not jobs.doubled
    assert set(jobs.at_level(2)) == {child_job("paper", f"each:{number}", 1) for number in range(3)}
    for job in jobs.at_level(2):
        submitted = jobs.submitted[job]
        assert (submitted.parent, submitted.team.team) == ("paper", "level1")
        assert [one.team for one in submitted.bounds] == ["level0"]
        assert (jobs.closed[job].status, jobs.closed[job].usage.calls) == ("succeeded", 2)
    assert sorted(str(jobs.submitted[job].inputs["path"]) for job in jobs.at_level(2)) == [
        "top/level00",
        "top/level01",
        "top/level02",
    ]
    listed = json.loads((await interlock("jobs", "--json", cwd=tmp_path)).out)
    assert listed[0]["job_id"] == "paper"
    shown = (await interlock("jobs", cwd=tmp_path)).out.splitlines()
    assert [line.startswith("  paper:") for line in shown] == [False, True, True, True]
    assert done.report["tasks"][0]["jobs"] == [child_job("paper", "each:0", 1)]
    again = await interlock("replay", "paper", "--rerun", cwd=tmp_path)
    assert (again.status, "paper: the same" in again.out) == (0, True), again.out + again.err
    assert f"it was done as job {child_job('paper', 'each:0', 1)}" in again.out
    within = await interlock("replay", child_job("paper", "each:0", 1), "--rerun", cwd=tmp_path)
    assert (within.status, "2 calls of models answered from the record" in within.out) == (0, True), within.out


async def test_an_id_of_a_child_is_nobodys_choice(tmp_path: Path) -> None:
    """An id with a colon would be part of another job: wrong usage, told in a line."""
    team = write_pyramid(tmp_path, 1, 1)
    for arguments in (("run", str(team), "go"), ("submit", str(team), "go")):
        done = await interlock(*arguments, "--id", "paper:abc", cwd=tmp_path)
        assert done.status == 2, done.err
        assert "colon" in done.err
