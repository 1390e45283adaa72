"""A long list through the real thing: over standard input, in chunks, from step to step."""

import json
import sys
from pathlib import Path

import anyio
from tests.cli import environment, read_log
from tests.teams import write_team

from interlock.protocol.messages import JobSubmitted, PlanExpanded
from interlock.testing import Answer, Call, ScriptedServer

_COUNT = 100
_ITEMS = [{"n": n, "text": f"{n} " + "x" * 800} for n in range(_COUNT)]
_VERIFY = {"by": "checker", "criteria": [{"check": "words", "max": 50}]}
_TEAM = {
    "interlock": 1,
    "team": "long",
    "agents": {"reader": {"kind": "worker"}, "checker": {"kind": "verifier"}},
    "inputs": {"rows": {"type": "jsonl"}},
    "plan": [
        {
            "step": "read",
            "for_each": "{{ inputs.rows }}",
            "agent": "reader",
            "do": "Read item {{ item.n }}.",
            "verify": _VERIFY,
        },
        {
            "step": "again",
            "for_each": "{{ steps.read.results }}",
            "agent": "reader",
            "do": "Read {{ item.item.n }} after {{ item.output }}",
            "verify": _VERIFY,
        },
    ],
}


def _echo(call: Call) -> Answer:
    return Answer(call.conversation.rpartition("Read ")[2].split("\n")[0].split('"')[0].strip())


async def test_a_generators_items_go_through_a_pipe(tmp_path: Path) -> None:
    """Nothing of the list stands in the messages of the job, and every item has come through both steps."""
    team = write_team(tmp_path, _TEAM)
    lines = "".join(f"{json.dumps(item)}\n" for item in _ITEMS)
    async with ScriptedServer(_echo) as server:
        ran = await anyio.run_process(
            [sys.executable, "-m", "interlock.runtime.cli", "run", str(team), "go", "--input", "rows=@-", "--json"],
            input=lines.encode(),
            check=False,
            env=environment({"INTERLOCK_MODEL_URL": server.url}),
            cwd=tmp_path,
        )
    assert ran.returncode == 0, ran.stderr.decode()
    result = json.loads(ran.stdout)["result"]
    assert len(result) == _COUNT
    log = [entry.message for entry in await read_log(tmp_path / ".interlock")]
    (submitted,) = [message for message in log if isinstance(message, JobSubmitted)]
    assert submitted.inputs == {}
    assert submitted.stored["rows"].count == _COUNT
    expanded = {message.step: message for message in log if isinstance(message, PlanExpanded)}
    assert expanded["again"].items == _COUNT
    assert expanded["again"].stored is not None
    assert {message.step: message.items for message in expanded.values()} == {"read": _COUNT, "again": _COUNT}


async def test_a_line_that_is_no_json_starts_nothing(tmp_path: Path) -> None:
    """The command ends with a line that says which, and there is no state folder."""
    team = write_team(tmp_path, _TEAM)
    (tmp_path / "items.jsonl").write_text('{"n": 1}\n' * 9000 + '{"n": \n')
    ran = await anyio.run_process(
        [sys.executable, "-m", "interlock.runtime.cli", "run", str(team), "go", "--input", "rows=items.jsonl"],
        check=False,
        env=environment({"INTERLOCK_MODEL_URL": "http://127.0.0.1:9/v1"}),
        cwd=tmp_path,
    )
    assert ran.returncode == 2
    assert "items.jsonl:9001: this line is no JSON" in ran.stderr.decode()
    assert not (tmp_path / ".interlock").exists()
