"""What an operator lays down binds every job at once: before it begins, while it waits, and right before an effect."""

import shutil
from pathlib import Path

import pytest
from tests.cli import interlock, running
from tests.integration.examples.standins import FOLDER, answers_of
from tests.waiting import eventually

from interlock.testing import ScriptedServer


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Return a copy of the desk example, whose clerk writes drafts and wants to send letters."""
    shutil.copytree(FOLDER / "desk", tmp_path / "desk")
    return tmp_path / "desk" / "team.yaml"


def _policy(folder: Path, text: str) -> str:
    path = folder / "policy.yaml"
    path.write_text(text)
    return str(path)


async def test_a_plan_that_breaks_a_principle_never_runs(desk: Path, tmp_path: Path) -> None:
    """With a principle against what a step is for, no model is asked, and the job's end names the principle."""
    policy = _policy(tmp_path, "principles: [never post.send]\n")
    assert (await interlock("policy", policy, cwd=tmp_path)).status == 0
    async with ScriptedServer(answers_of("desk")) as server:
        done = await interlock("run", str(desk), "--json", env={"INTERLOCK_MODEL_URL": server.url}, cwd=tmp_path)
        assert server.calls == []
    assert done.status == 1
    assert done.report["status"] == "failed"
    assert "never post.send" in done.report["reason"]
    assert "answer" in done.report["reason"], "the step is named too"


async def test_a_new_principle_ends_a_job_that_waits(desk: Path, tmp_path: Path) -> None:
    """A job that waits for approvals ends as soon as the operator forbids what it waits for; nothing was sent."""
    policy = _policy(tmp_path, "principles: [never post.send]\n")
    async with (
        ScriptedServer(answers_of("desk")) as server,
        running("run", str(desk), "--json", env={"INTERLOCK_MODEL_URL": server.url}, cwd=tmp_path) as job,
    ):
        await eventually(lambda: len(list((desk.parent / "drafts").glob("*.txt"))) == 2)
        laid_down = await interlock("policy", policy, cwd=tmp_path)
        assert laid_down.status == 0, laid_down.err
        done = await job.finish()
    assert done.status == 1, done.err
    assert "never post.send" in done.report["reason"]
    assert not (desk.parent / "outbox").exists()


async def test_a_new_rule_holds_for_the_next_call(desk: Path, tmp_path: Path) -> None:
    """A rule that is laid down before a job narrows its team's own: what it denies is refused and told to the model."""
    policy = _policy(
        tmp_path,
        """\
permissions:
  allow: ["*"]
  deny: [files.write, post.send]
""",
    )
    assert (await interlock("policy", policy, cwd=tmp_path)).status == 0
    async with ScriptedServer(answers_of("desk")) as server:
        done = await interlock("run", str(desk), "--json", env={"INTERLOCK_MODEL_URL": server.url}, cwd=tmp_path)
    assert done.status == 1, done.err
    assert "no call of files.write can ever be allowed" in done.report["reason"]
    assert not (desk.parent / "drafts").exists()


async def test_a_policy_can_be_read_again(tmp_path: Path) -> None:
    """What stands is shown with its number, which rises with each policy; without one that is said."""
    none = await interlock("policy", cwd=tmp_path)
    assert (none.status, none.out) == (
        0,
        "no policy stands: teams are bound by their own rules and principles alone\n",
    )
    first = await interlock("policy", _policy(tmp_path, "permissions: {deny: [web.*]}\n"), cwd=tmp_path)
    second = await interlock("policy", _policy(tmp_path, "principles: [never web.fetch]\n"), "--json", cwd=tmp_path)
    assert "deny       web.*" in first.out
    shown = await interlock("policy", "--json", cwd=tmp_path)
    assert shown.report == second.report
    assert shown.report["policy"]["principles"] == ["never web.fetch"]
    assert shown.report["epoch"] == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("permissions: {deny: ['web.fetch(']}\n", "policy.yaml:1:22: "),
        ("principles: [be nice]\n", "policy.yaml:1:14: "),
        ("permisions: {}\n", "policy.yaml:1:1: unknown key 'permisions'"),
        ("permissions: {deny: web.fetch}\n", "policy.yaml:1:21: "),
        ("a: [\n", "policy.yaml:"),
    ],
)
async def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    """A policy with a mistake is not laid down; the mistake is told as FILE:LINE:COLUMN."""
    done = await interlock("policy", _policy(tmp_path, text), cwd=tmp_path)
    assert done.status == 2
    assert told in done.err
    assert not (tmp_path / ".interlock").exists()
