"""Budgets in a cluster: the death of the node that adds up gives nobody more than there was."""

from contextlib import suppress

import anyio
import pytest
from tests.cluster import Cluster

from interlock.backends.errors import BudgetSpent
from interlock.protocol.messages import Allowance
from interlock.runtime._names import budget_stream
from interlock.runtime.budgets import Budgets
from interlock.runtime.bus import Bus

pytestmark = pytest.mark.timeout(120)

_CALLS, _TASKS = 2000, 8


async def test_no_more_is_given_out_when_the_leader_dies(cluster: Cluster, ns: str) -> None:
    """``kill -9`` of the counters' leader in the midst: never more than the budget, and little less."""
    sent = 0
    async with Bus.connect(cluster.address, ns, "test") as bus:
        meter = Budgets(bus.counters).meter([Allowance(job="j", calls=_CALLS)], patience=5)
        enough = anyio.Event()

        async def send() -> None:
            nonlocal sent
            with suppress(BudgetSpent):
                while True:
                    async with meter.sending(1, 1):
                        sent += 1
                    if sent >= _CALLS // 4:
                        enough.set()

        leader = await cluster.leader(budget_stream(ns))
        async with anyio.create_task_group() as group:
            for _ in range(_TASKS):
                group.start_soon(send)
            await enough.wait()
            await cluster.kill(leader)
        assert await bus.counters.add("j.calls", 0) >= _CALLS
        await cluster.start(leader)
    assert _CALLS - 100 <= sent <= _CALLS
