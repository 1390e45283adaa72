"""A process that freezes a job over a file of JSON lines and stores its items, and prints what memory that took."""

import json
import sys
import tracemalloc
from pathlib import Path

import anyio

from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.sources import freeze, store
from interlock.runtime.teamfile import load_team


async def _main(ns: str, team: Path) -> None:
    address = BrokerAddress(**json.load(sys.stdin))
    async with Bus.connect(address, ns, "storing") as bus:
        tracemalloc.start()
        given = await store(freeze(load_team(team), {}, team.parent), bus)
        _, peak = tracemalloc.get_traced_memory()
    sys.stdout.write(json.dumps({"peak": peak, "items": given.items["s"].count}))


if __name__ == "__main__":
    anyio.run(_main, sys.argv[1], Path(sys.argv[2]))
