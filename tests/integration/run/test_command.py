"""The commands as a person meets them: exit statuses, reports, mistakes, Ctrl-C."""

import json
import signal
from pathlib import Path

from tests.cli import alive, descendants, interlock, running
from tests.teams import digest_team, item_of, summary, write_items, write_team
from tests.waiting import eventually

from interlock.testing import Answer, Call, Hang, Reply, ScriptedServer


async def test_one_job_from_run_to_show(tmp_path: Path) -> None:
    """A job with one hopeless item is partial (exit 3), says why, and is found again by ``show`` and ``jobs``."""

    def one_is_hopeless(call: Call) -> Answer:
        return Answer({"summary": f"no {call.repeat}"}) if item_of(call) == 1 else summary(call)

    write_items(tmp_path, 3)
    team = write_team(tmp_path, digest_team(attempts=2))
    async with ScriptedServer(one_is_hopeless) as server:
        done = await interlock(
            "run", str(team), "sum up", "--json", env={"INTERLOCK_MODEL_URL": server.url}, cwd=tmp_path
        )
        headline = next(call for call in server.calls if item_of(call) is None)
    assert done.status == 3, done.err
    report = done.report
    assert report["status"] == "partial"
    assert report["result"] == "All items are answered"
    assert [task["status"] for task in report["tasks"]] == ["accepted", "failed", "accepted", "accepted"]
    failed = report["tasks"][1]
    assert failed["attempts"] == 2
    assert "item" in failed["reason"]
    assert "Headline over 2 answers: item 0, item 2" in headline.prompt, "a reduce step sees only what was accepted"
    assert report["usage"]["calls"] == len(server.calls)
    shown = await interlock("show", report["job_id"], "--json", cwd=tmp_path)
    assert shown.report == report
    listed = await interlock("jobs", "--json", cwd=tmp_path)
    assert [job["job_id"] for job in json.loads(listed.out)] == [report["job_id"]]
    missing = await interlock("show", "digest-none", cwd=tmp_path)
    assert (missing.status, missing.out) == (2, "")
    assert report["job_id"] in missing.err


async def test_a_job_where_all_fails_exits_with_1(tmp_path: Path) -> None:
    """Nothing accepted is a failed job, and the reduce step that had nothing to work on is cancelled."""
    write_items(tmp_path, 2)
    team = write_team(tmp_path, digest_team(attempts=1))
    async with ScriptedServer("nonsense") as server:
        done = await interlock("run", str(team), "go", "--json", env={"INTERLOCK_MODEL_URL": server.url}, cwd=tmp_path)
    assert done.status == 1, done.err
    assert [task["status"] for task in done.report["tasks"]] == ["failed", "failed", "cancelled"]
    assert done.report["result"] is None


async def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    """Ctrl-C while the model thinks: exit 4, no process left, the job is killed in the log."""

    def hang(call: Call) -> Reply:
        return Hang() if item_of(call) == 1 else summary(call)

    write_items(tmp_path, 3)
    team = write_team(tmp_path, digest_team())
    async with ScriptedServer(hang) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(team), "go", "--json", env=env, cwd=tmp_path) as command:
            await command.until("summarise:2: accepted")
            family = descendants(command.process.pid)
            command.process.send_signal(signal.SIGINT)
            done = await command.finish()
    assert done.status == 4, done.err
    assert not [pid for pid in family if alive(pid)]
    assert done.report["status"] == "killed"
    assert [task["status"] for task in done.report["tasks"]] == ["accepted", "cancelled", "accepted", "cancelled"]
    shown = await interlock("show", done.report["job_id"], "--json", cwd=tmp_path)
    assert shown.report == done.report


async def test_nothing_survives_a_killed_command(tmp_path: Path) -> None:
    """A ``kill -9`` of the command takes the broker and every agent process with it."""
    write_items(tmp_path, 1)
    team = write_team(tmp_path, digest_team())
    async with ScriptedServer(Hang()) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(team), "go", env=env, cwd=tmp_path) as command:
            await server.until(lambda seen: bool(seen.calls))
            family = descendants(command.process.pid)
            assert len(family) >= 4
            command.process.kill()
            await command.process.wait()
        await eventually(lambda: not any(alive(pid) for pid in family), 5)


async def test_mistakes_are_told_in_a_line(tmp_path: Path) -> None:
    """Wrong usage, wrong inputs, wrong URLs and missing files exit with 2, and never with a traceback."""
    write_items(tmp_path, 1)
    team = str(write_team(tmp_path, digest_team()))
    url = {"INTERLOCK_MODEL_URL": "http://127.0.0.1:9/v1"}
    wrong = [
        (("run", "missing.yaml", "go"), url, "missing.yaml"),
        (("run", team, "go"), {}, "INTERLOCK_MODEL_URL"),
        (("run", team, "go"), {"INTERLOCK_MODEL_URL": "ftp://example"}, "ftp://example"),
        (("run", team, "go", "--input", "documents"), url, "documents"),
        (("run", team, "go", "--input", "colour=blue"), url, "colour"),
        (("run", team, "go", "--workers", "0"), url, "--workers"),
        (("jobs", "--nats", "http://example"), {}, "http"),
        (("frobnicate",), {}, "frobnicate"),
        ((), {}, "COMMAND"),
    ]
    for arguments, env, told in wrong:
        done = await interlock(*arguments, env=env, cwd=tmp_path)
        assert done.status == 2, (arguments, done.err)
        assert told in done.err
        assert "Traceback" not in done.err
        assert done.out == ""
    assert not (tmp_path / ".interlock").exists(), "nothing is started for a mistake"
