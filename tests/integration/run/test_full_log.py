"""A log that is full holds jobs up, and nothing else happens to them."""

from pathlib import Path

import anyio
from tests.cli import interlock, read_log, running
from tests.oracle import account_of
from tests.teams import digest_team, summary, write_items, write_team
from tests.waiting import eventually

from interlock.runtime._jetstream import api
from interlock.runtime._names import log_stream
from interlock.runtime.broker import running_broker
from interlock.runtime.place import Place, open_log
from interlock.testing import ScriptedServer

_ITEMS = 60
_MESSAGE = 8 * 1024
"""More bytes than any message of these jobs takes, with what the broker adds."""


async def _bytes(state: Path) -> int:
    """Return how large the log is."""
    async with open_log(Place(state), "test") as bus:
        info = await api(bus._wire, f"STREAM.INFO.{log_stream(bus.ns)}")
    return int(info["state"]["bytes"])


async def test_a_job_waits_for_room_and_goes_on_when_another_was_archived(tmp_path: Path) -> None:
    """A second job finds the log full, waits, and is done without a loss once the first one was put away."""
    state = tmp_path / ".interlock"
    write_items(tmp_path, _ITEMS)
    team = write_team(tmp_path, digest_team())
    async with ScriptedServer(summary) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        first = await interlock("run", str(team), "--json", env=env, cwd=tmp_path)
        assert first.status == 0, first.err
        taken = await _bytes(state)
        room = taken + taken // 2
        async with running("run", str(team), "--json", "--log-bytes", str(room), env=env, cwd=tmp_path) as command:
            await eventually(lambda: running_broker(state))
            with anyio.fail_after(60):
                while await _bytes(state) < room - _MESSAGE:  # noqa: ASYNC110 -- nobody tells how large it is
                    await anyio.sleep(0.1)
            assert command.process.returncode is None
            archived = await interlock("archive", first.report["job_id"], cwd=tmp_path)
            assert archived.status == 0, archived.err
            second = await command.finish()
    assert second.status == 0, second.err
    tasks = [task for task in second.report["tasks"] if task["step"] == "summarise"]
    assert [task["output"] for task in tasks] == [{"summary": f"item {number}"} for number in range(_ITEMS)]
    assert sum(task["attempts"] for task in tasks) == _ITEMS
    account = account_of(await read_log(state), "summarise")
    assert len(account.accepted) == _ITEMS
    assert not account.doubled
    shown = await interlock("show", first.report["job_id"], "--json", cwd=tmp_path)
    assert shown.report == first.report
