"""An item over which every process dies, among many that are fine."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli import interlock, read_log, running
from tests.oracle import account_of
from tests.teams import digest_team, item_of, summary, write_items, write_team

from interlock.protocol.messages import TaskAssigned, TaskClosed, TaskResult
from interlock.testing import Answer, Call, CallTool, ScriptedServer

pytestmark = pytest.mark.timeout(360)

_ITEMS, _POISON = 40, 7

_DEADLY = '''
import os, signal
from pathlib import Path
from interlock.agents.tools.tool import tool

@tool(effect="read")
def weigh(what: str) -> str:
    """Weigh something; what is too heavy takes the process down."""
    with Path("deaths").open("a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)
    return what
'''
_REPAIRED = '''
from interlock.agents.tools.tool import tool

@tool(effect="read")
def weigh(what: str) -> str:
    """Weigh something."""
    return what
'''


def _team(folder: Path) -> Path:
    """Write a team whose worker has a tool that kills it."""
    write_items(folder, _ITEMS)
    (folder / "scales.py").write_text(_DEADLY)
    team: dict[str, Any] = digest_team(parallel=8)
    team["agents"]["reader"]["tools"] = ["scales.weigh"]
    return write_team(folder, {**team, "tools": {"modules": ["scales.py"]}, "permissions": {"allow": ["scales.weigh"]}})


def _answers(call: Call) -> Answer | CallTool:
    if item_of(call) == _POISON and "weighed" not in call.conversation:
        return CallTool("scales.weigh", {"what": "weighed"})
    return summary(call)


async def test_poison_fails_once_and_its_retry_after_a_repair_succeeds(tmp_path: Path) -> None:
    """The others are accepted; the item is set aside after few deaths, and its retry after a repair succeeds."""
    team = _team(tmp_path)
    async with ScriptedServer(_answers) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(team), "go", "--json", "--workers", "2", env=env, cwd=tmp_path) as command:
            done = await command.finish(seconds=240)  # twenty deaths, each of which is noticed after five seconds
    assert done.status == 3, done.err
    tasks = {task["id"]: task for task in done.report["tasks"]}
    poison = tasks.pop(f"summarise:{_POISON}")
    assert {task["status"] for task in tasks.values()} == {"accepted"}
    assert poison["status"] == "failed"
    assert poison["reason"].startswith("poison: ")
    log = await read_log(tmp_path / ".interlock")
    of_poison = [entry.message for entry in log if entry.message.task == f"summarise:{_POISON}"]
    assert [one.attempt for one in of_poison if isinstance(one, TaskAssigned)] == [1], "it is not tried again"
    assert [one.poison for one in of_poison if isinstance(one, TaskResult)] == [True]
    assert [one.outcome for one in of_poison if isinstance(one, TaskClosed)] == ["failed"]
    assert not account_of(log, "summarise").doubled
    assert len((tmp_path / "deaths").read_text()) <= 21
    listed = await interlock("dead-letters", "--json", cwd=tmp_path)
    assert [(one["task"], one["attempts"]) for one in json.loads(listed.out)] == [(f"summarise:{_POISON}", 1)]
    (tmp_path / "scales.py").write_text(_REPAIRED)
    put_back = await interlock("retry", done.report["job_id"], "--reason", "repaired", cwd=tmp_path)
    assert put_back.status == 0, put_back.err
    assert put_back.out.startswith(f"put back summarise:{_POISON} of job {done.report['job_id']}: no manager is up now")
    async with ScriptedServer(_answers) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        arguments = ("run", str(team), "go", "--id", done.report["job_id"], "--json", "--workers", "2")
        again = await interlock(*arguments, env=env, cwd=tmp_path)
        assert {item_of(call) for call in server.calls} == {_POISON, None}, "only the item and the headline are made"
    assert again.status == 0, again.err
    assert {task["status"] for task in again.report["tasks"]} == {"accepted"}
    assert (await interlock("dead-letters", cwd=tmp_path)).out == ""
    nothing = await interlock("retry", done.report["job_id"], cwd=tmp_path)
    assert (nothing.status, nothing.out) == (2, "")
    assert "nothing of job" in nothing.err
