"""A process that reserves calls from a budget as fast as it can until there are none, and prints how many it got.

With ``die`` it ends itself with ``kill -9`` in the midst of it, after it has printed what it has.
"""

import json
import os
import signal
import sys
from dataclasses import asdict

import anyio

from interlock.backends.errors import BudgetSpent
from interlock.protocol.messages import Allowance
from interlock.runtime.address import BrokerAddress
from interlock.runtime.budgets import Budgets
from interlock.runtime.bus import Bus

__all__ = ["PROCESSES", "TASKS", "told"]

PROCESSES = 3
"""How many there have to be before any of them begins."""

TASKS = 16
"""How many reserve at once in one process."""


def told(address: BrokerAddress) -> str:
    """Return what is written to the standard input of such a process."""
    return json.dumps(asdict(address))


async def _main(ns: str, job: str, calls: int, *, die: bool) -> None:
    address = BrokerAddress(**json.load(sys.stdin))
    got = 0
    async with Bus.connect(address, ns, "reserving") as bus:
        await bus.counters.add("all.there", 1)
        while await bus.counters.add("all.there", 0) < PROCESSES:  # noqa: ASYNC110 -- other processes set no event
            await anyio.sleep(0.001)
        meter = Budgets(bus.counters).meter([Allowance(job=job, calls=calls)], patience=1)

        async def reserve() -> None:
            nonlocal got
            while True:
                try:
                    async with meter.sending(10, 10):
                        got += 1
                except BudgetSpent:
                    return
                if die and got >= calls // 8:
                    os.write(1, f"{got}\n".encode())
                    os.kill(os.getpid(), signal.SIGKILL)

        async with anyio.create_task_group() as group:
            for _ in range(TASKS):
                group.start_soon(reserve)
    os.write(1, f"{got}\n".encode())


if __name__ == "__main__":
    anyio.run(lambda: _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), die="die" in sys.argv))
