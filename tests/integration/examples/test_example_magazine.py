"""The magazine example, run for real: a team within a team, a mistake at each level, and its README."""

from pathlib import Path

from tests.cli import interlock, read_log
from tests.integration.examples.standins import FOLDER, answers_of, run, shown_but_missing, tasks_by_label

from interlock.protocol.messages import JobClosed, TaskVerdict
from interlock.testing import ScriptedServer

TEAM = FOLDER / "magazine" / "team.yaml"


async def test_it_runs_as_its_readme_says(tmp_path: Path) -> None:
    """Four jobs of the desk for three articles, the usage of all in the report, and the README shows it."""
    async with ScriptedServer(answers_of("magazine")) as server:
        done = await run(TEAM, server.url, cwd=tmp_path)
        calls = len(server.calls)
    assert done.status == 0, done.err
    assert {label: len(task["jobs"]) for label, task in tasks_by_label(done, "article").items()} == {
        "The mill": 2,
        "The bus": 1,
        "The orchard": 1,
    }
    assert done.report["usage"]["calls"] == calls == 10
    assert shown_but_missing("magazine", done.err + done.report["result"]) == []
    entries = await read_log(tmp_path / ".interlock")
    ended = [entry.message for entry in entries if isinstance(entry.message, JobClosed)]
    assert [(one.status, one.job.count(":")) for one in ended][-1] == ("succeeded", 0)
    assert len(ended) == 5
    within = [
        entry.message.verdict
        for entry in entries
        if isinstance(entry.message, TaskVerdict) and ":" in entry.message.job
    ]
    assert (within.count("fail"), within.count("pass")) == (1, 8), "the desk's own subeditor refused once"
    listed = (await interlock("jobs", cwd=tmp_path)).out.splitlines()
    assert [line.startswith("  ") for line in listed] == [False, True, True, True, True]
