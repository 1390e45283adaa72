"""``interlock questions`` and ``interlock answer`` beside a job that runs: real processes, a real tool."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli import Running, interlock, running
from tests.teams import write_team

from interlock.testing import Call, CallTool, Reply, ScriptedServer

pytestmark = pytest.mark.timeout(120)


def _team(**more: Any) -> dict[str, Any]:
    return {
        "interlock": 1,
        "team": "desk",
        "agents": {
            "writer": {"kind": "worker", "tools": ["files.write"]},
            "checker": {"kind": "verifier"},
        },
        "tools": {"files": {"write": ["out"]}},
        "permissions": {"ask": ["files.write"]},
        "plan": [
            {
                "step": "note",
                "agent": "writer",
                "do": "Write the note.",
                "verify": {"by": "checker", "criteria": [{"check": "words", "max": 20}]},
            }
        ],
        **more,
    }


def _writes(call: Call) -> Reply | str:
    """Write once, then tell what came of it."""
    if call.messages[-1]["role"] == "tool":
        return f"It says: {str(call.messages[-1]['content'])[:60]}"
    return CallTool("files.write", {"path": "out/note.txt", "text": "hello\u202e"})


def _told(running_job: Running) -> str:
    """Return the last line of what the command said."""
    return [line for line in running_job.err.decode().splitlines() if "waits for your answer" in line][-1]


@pytest.mark.parametrize("answer", ["yes", "no"])
async def test_a_person_decides_what_is_done(tmp_path: Path, answer: str) -> None:
    """The run says at once how to answer; the question shows the exact call; a yes lets it happen, a no does not."""
    (tmp_path / "out").mkdir()
    team, state = write_team(tmp_path, _team()), str(tmp_path / "state")
    async with ScriptedServer(_writes) as server:
        env = {"INTERLOCK_MODEL_URL": server.url, "INTERLOCK_MODEL": "m"}
        async with running("run", str(team), "g", "--state", state, "--json", env=env, cwd=tmp_path) as job:
            await job.until("waits for your answer")
            words = _told(job).partition("interlock answer ")[2].split()
            assert words[2] == "yes|no"
            if answer == "yes":
                await _shown_everywhere(words, state)
            assert not (tmp_path / "out" / "note.txt").exists()
            told = await interlock("answer", "desk", words[1][:6], answer, "--note", "as agreed", "--state", state)
            assert (told.status, told.out) == (0, f"{words[0]} {words[1]}: {answer}\n")
            finished = await job.finish()
    assert finished.status == 0, finished.err
    assert (tmp_path / "out" / "note.txt").exists() is (answer == "yes")
    report = finished.report
    done = [(one["tool"], one["task"], one["attempt"]) for one in report["effects"]["done"]]
    assert done == ([("files.write", "note", 1)] if answer == "yes" else [])
    assert report["effects"]["in_doubt"] == []
    (action,) = report["tasks"][0]["actions"]
    assert action["outcome"].startswith("done" if answer == "yes" else "refused: a person said no: as agreed")
    late = await interlock("answer", words[0], words[1], "yes", "--state", state)
    assert (late.status, f"{answer!r}" in late.err) == (1, True)
    assert (await interlock("questions", "--state", state)).out == ""


async def _shown_everywhere(words: list[str], state: str) -> None:
    """Check what the commands beside the run say of the open question, and that they take no answer that is none."""
    listed = json.loads((await interlock("questions", "--json", "--state", state)).out)
    assert [(one["job"], one["id"], one["status"]) for one in listed] == [(words[0], words[1], "open")]
    assert listed[0]["approval"]["arguments"]["text"] == "hello\u202e"
    shown = await interlock("questions", "--state", state)
    assert 'text="hello\\u202e"' in shown.out
    assert f"interlock answer {words[0]} {words[1]} yes|no" in shown.out
    account = await interlock("show", words[0], "--state", state)
    assert f"waits for your answer: interlock answer {words[0]} {words[1]} yes|no" in account.err
    wrong = await interlock("answer", words[0], words[1], "perhaps", "--state", state)
    assert (wrong.status, "one of yes, no" in wrong.err) == (2, True)


async def test_what_is_not_there_is_a_mistake_of_the_person(tmp_path: Path) -> None:
    """No log, no job, no question: told in a line, with 2; listing finds nothing and makes nothing."""
    state = tmp_path / "state"
    listed = await interlock("questions", "--state", str(state))
    assert (listed.status, listed.out) == (0, "")
    missing = await interlock("answer", "j", "q", "yes", "--state", str(state))
    assert (missing.status, "no job 'j'" in missing.err) == (2, True)
    assert not state.exists()
