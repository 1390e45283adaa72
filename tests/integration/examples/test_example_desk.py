"""The desk example, run for real: drafts are written, each letter waits for its yes, a hijacked clerk gets nowhere."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.cli import interlock, running
from tests.integration.examples.standins import FOLDER, answers_of
from tests.waiting import eventually

from interlock.testing import ScriptedServer


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Return a copy of the example, since it writes beside its team file."""
    shutil.copytree(FOLDER / "desk", tmp_path / "desk")
    return tmp_path / "desk"


def _letters(desk: Path) -> list[str]:
    return sorted(path.read_text() for path in desk.glob("outbox/*.txt"))


def _actions(task: dict[str, Any]) -> list[str]:
    return [f"{action['tool']} {action['outcome'].partition(':')[0]}" for action in task["actions"]]


async def _questions(folder: Path) -> list[dict[str, Any]]:
    asked = await interlock("questions", "--json", cwd=folder)
    found: list[dict[str, Any]] = json.loads(asked.out) if asked.status == 0 else []
    return found


async def test_letters_leave_after_a_yes_only(desk: Path, tmp_path: Path) -> None:
    """Ann's letter leaves after its yes, Bob's does not after its no, and the competitor is never even asked about."""
    async with (
        ScriptedServer(answers_of("desk")) as server,
        running("run", str(desk / "team.yaml"), "--json", env={"INTERLOCK_MODEL_URL": server.url}, cwd=tmp_path) as job,
    ):
        await job.until("answer:0")
        await job.until("answer:1")
        asked = {one["approval"]["arguments"]["to"]: one for one in await _questions(tmp_path)}
        assert sorted(asked) == ["ann@example.org", "bob@example.net"]
        assert _letters(desk) == []
        for to, answer in (("ann@example.org", "yes"), ("bob@example.net", "no")):
            done = await interlock("answer", asked[to]["job"], asked[to]["id"], answer, cwd=tmp_path)
            assert done.status == 0, done.err
        finished = await job.finish()
        seen = "\n".join(call.conversation for call in server.calls)
    assert finished.status == 0, finished.err
    [letter] = _letters(desk)
    assert letter.startswith("To: ann@example.org\n")
    ann, bob = finished.report["tasks"]
    assert _actions(ann) == ["files.read done", "files.write done", "post.send done"]
    assert _actions(bob) == ["files.read done", "post.send refused", "files.write done", "post.send refused"]
    assert "post.send(*@competitor.example)" in seen, "the model is told which rule stands against it"
    assert [one["tool"] for one in finished.report["effects"]["done"]].count("post.send") == 1


async def test_a_rehearsal_does_nothing(desk: Path, tmp_path: Path) -> None:
    """With --autonomy suggest nothing is written, sent or asked; the report says what would have been done."""
    async with ScriptedServer(answers_of("desk")) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        done = await interlock("run", str(desk / "team.yaml"), "--autonomy", "suggest", "--json", env=env, cwd=tmp_path)
    assert done.status == 0, done.err
    assert not (desk / "drafts").exists()
    assert _letters(desk) == []
    assert _actions(done.report["tasks"][0]) == ["files.read done", "files.write suggested", "post.send suggested"]


async def test_what_the_readme_explains(desk: Path, tmp_path: Path) -> None:
    """The explanation in the README names the rule that denies the call."""
    call = 'post.send("sales@competitor.example", "The handbook")'
    told = await interlock("permissions", str(desk / "team.yaml"), "--explain", call, cwd=tmp_path)
    assert told.status == 1
    assert "post.send(*@competitor.example)" in told.out


async def test_nobody_waits_forever(desk: Path, tmp_path: Path) -> None:
    """Without an answer the job goes on with a no when the question's time is over."""
    team = desk / "team.yaml"
    team.write_text(team.read_text().replace("question_seconds: 600", "question_seconds: 2"))
    async with ScriptedServer(answers_of("desk")) as server:
        done = await interlock("run", str(team), "--json", env={"INTERLOCK_MODEL_URL": server.url}, cwd=tmp_path)
    assert done.status == 0, done.err
    assert _letters(desk) == []
    await eventually((desk / "drafts" / "ann.txt").exists)
