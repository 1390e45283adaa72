"""Two servers of one model, of which one is killed while it works."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from anyio.from_thread import start_blocking_portal
from bench.vllm import serving
from bench.vllm.serving import meters
from tests.cli import command_lines, descendants, kill
from tests.teams import write_items, write_team
from tests.vllm.real import at, command, environment_of
from tests.waiting import eventually

from interlock.backends.engines import Endpoint

_ITEMS = 24
_LENGTH = {"type": "string", "minLength": 120, "maxLength": 160}
_SECONDS = 240.0


@pytest.fixture
def second(built: Path, server: Endpoint) -> Iterator[Endpoint]:
    """Run a second server with the key of the first, on another core where there is one; killed, it stays so."""
    cores = sorted(os.sched_getaffinity(0))
    with start_blocking_portal() as portal:
        run = serving.serving(built, core=cores[-1], again=False, key=server.api_key)
        with portal.wrap_async_context_manager(run) as endpoint:
            yield endpoint


def _team(*servers: Endpoint) -> dict[str, Any]:
    return {
        "interlock": 1,
        "team": "pair",
        "model": at(*servers, max_tokens=256),
        "agents": {"writer": {"kind": "worker"}, "checker": {"kind": "verifier"}},
        "plan": [
            {
                "step": "write",
                "for_each": {"jsonl": "items.jsonl"},
                "agent": "writer",
                "do": "Write a sentence about number {{ item.n }}.",
                "output": {"text": _LENGTH},
                "verify": {"by": "checker"},
            }
        ],
        "limits": {"parallel": 8},
    }


def _process_of(server: Endpoint) -> int:
    """Return the process that answers at a server's URL, which is no keeper of it."""
    ending = f"--port {urlsplit(server.url).port}"
    [found] = [
        pid for pid in descendants(os.getpid())
        if (line := command_lines(pid)[0]).strip().endswith(ending) and "_keeper.py" not in line
    ]  # fmt: skip
    return found


async def test_no_task_is_lost_with_a_server(server: Endpoint, second: Endpoint, tmp_path: Path) -> None:
    """Both servers have requests in hand when one is killed with -9: the other answers all that is left."""
    write_items(tmp_path, _ITEMS)
    team = write_team(tmp_path, _team(server, second))
    async with command("run", str(team), "go", "--json", env=environment_of(server), cwd=tmp_path) as run:
        await eventually(lambda: min(meters(server.url).running, meters(second.url).running) > 1)
        kill(_process_of(second))
        done = await run.finish(_SECONDS)
    assert done.status == 0, done.err
    tasks = done.report["tasks"]
    assert [task["status"] for task in tasks] == ["accepted"] * _ITEMS
    assert all(len(task["output"]["text"]) >= 120 for task in tasks)
