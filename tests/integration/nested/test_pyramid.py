"""Three levels of teams, 3 x 10 x 10 tasks: what their logs add up to, whatever dies meanwhile, and how they stop."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from tests.cli import agent_pids, alive, descendants, interlock, kill, read_log, running
from tests.integration.nested.pyramid import Jobs, answer, write_pyramid
from tests.otlp_receiver import OtlpReceiver, ReceivedSpan
from tests.waiting import eventually

from interlock.protocol.base import Usage
from interlock.runtime.place import Place, open_bus
from interlock.testing import ScriptedServer

pytestmark = pytest.mark.timeout(300)

_SIZES = (3, 10, 10)
_LEAVES = 300
_BOUND = 2.0
"""Seconds that an order may take here: one, and one more for a machine that has a lot else to do."""


def _whole(jobs: Jobs, sizes: Sequence[int] = _SIZES) -> None:
    """Hold a log to it that every task of every level was closed once, accepted, and that usage adds up."""
    assert not jobs.doubled
    wanted = 1
    for level, count in enumerate(sizes, 1):
        found = jobs.at_level(level)
        assert len(found) == wanted
        for job in found:
            assert jobs.tasks[job] == {f"each:{number}": 1 for number in range(count)}, job
            assert len(jobs.accepted[job]) == count
            assert jobs.closed[job].status == "succeeded", jobs.closed[job].reason
            assert jobs.closed[job].usage == jobs.usage[job]
        wanted *= count
    for level in range(1, len(sizes)):
        total = sum((jobs.closed[job].usage for job in jobs.at_level(level + 1)), Usage())
        assert total == sum((jobs.closed[job].usage for job in jobs.at_level(level)), Usage()), level


async def test_three_levels_are_one_trace_and_add_up_although_the_manager_dies(tmp_path: Path) -> None:
    """3 x 10 x 10 tasks, the manager killed with -9 on the way: each closed once, usage whole, one trace."""
    team = write_pyramid(tmp_path, *_SIZES)
    async with ScriptedServer(partial(answer, delay=0.02)) as server, OtlpReceiver() as receiver:
        env = {"INTERLOCK_MODEL_URL": server.url, **receiver.environment()}
        async with running("run", str(team), "go", "--json", env=env, cwd=tmp_path) as job:
            for share in (0.2, 0.6):
                await eventually(partial(_answered, server, share))
                [manager] = agent_pids(job.process.pid, "manager")
                kill(manager)
                await eventually(partial(_is_gone, manager))
                await eventually(lambda: bool(agent_pids(job.process.pid, "manager")))
            done = await job.finish()
        assert done.status == 0, done.err
        calls = len(server.calls)
        spans = await receiver.spans_until(_are_told)
    jobs = Jobs(await read_log(tmp_path / ".interlock"))
    _whole(jobs)
    used = done.report["usage"]
    [root] = jobs.at_level(1)
    assert used == jobs.closed[root].usage.model_dump()
    assert used["calls"] == _LEAVES <= calls, "who is taken for dead on a busy machine asks in vain"
    assert {span.trace_id for span in spans} == {done.report["trace_id"]}
    _hang_together(spans)


def _answered(server: ScriptedServer, share: float) -> bool:
    return len(server.calls) >= share * _LEAVES


def _is_gone(pid: int) -> bool:
    return not alive(pid)


def _are_told(spans: Sequence[ReceivedSpan]) -> bool:
    """Whether every job's span has come; one whose manager was killed then may have come twice."""
    names = [name for _, name in {(span.span_id, span.name) for span in spans}]
    return [names.count(f"invoke_workflow level{level}") for level in range(3)] == [1, 3, 30]


def _hang_together(spans: Sequence[ReceivedSpan]) -> None:
    """Hold the jobs' spans to it that each hangs below the span of the task that it is."""
    by_id = {span.span_id: span for span in spans}
    for level in (1, 2):
        for span in spans:
            if span.name == f"invoke_workflow level{level}":
                task = by_id[span.parent_id]
                assert task.name == "task each"
                assert by_id[task.parent_id].name == f"invoke_workflow level{level - 1}"


async def _ordered_at(folder: Path) -> datetime:
    """Return when the only order was given."""
    async with open_bus(Place(folder / ".interlock"), "oracle") as (bus, _):
        [order] = (await bus.orders.standing()).values()
    return order.order.at


async def test_a_kill_at_the_top_stops_every_level(tmp_path: Path) -> None:
    """Within a second no process is left; every job of the tree is killed, and no model is asked any more."""
    team = write_pyramid(tmp_path, *_SIZES)
    async with ScriptedServer(partial(answer, delay=30)) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(team), "go", "--id", "paper", env=env, cwd=tmp_path) as job:
            await eventually(lambda: len(server.calls) >= 20)
            agents = agent_pids(job.process.pid, "")
            async with running("kill", "--job", "paper", cwd=tmp_path) as command:
                await eventually(lambda: not any(alive(pid) for pid in agents), 20)
                gone = datetime.now(UTC)
                asked = len(server.calls)
                killed = await command.finish()
            done = await job.finish()
        assert (killed.status, done.status) == (0, 4), killed.err + done.err
        assert len(server.calls) == asked
        assert not any(alive(pid) for pid in descendants(job.process.pid))
    assert (gone - await _ordered_at(tmp_path)).total_seconds() < _BOUND
    jobs = Jobs(await read_log(tmp_path / ".interlock"))
    assert not jobs.doubled
    assert len(jobs.submitted) > 4
    assert {job: jobs.closed[job].status for job in jobs.submitted} == dict.fromkeys(jobs.submitted, "killed")
    listed = await interlock("jobs", cwd=tmp_path)
    assert "running" not in listed.out
