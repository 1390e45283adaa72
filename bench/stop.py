"""How fast a kill order ends everything: from the order's acknowledgement to the death of the last process.

    python -m bench.stop [--kills N] [--workers W] [--json]

Each kill is a run of its own: W worker processes in calls to a model that never answers, every second one stopped
(SIGSTOP, so it hears nothing and cannot end by itself), a manager and a verifier. The order goes out over the broker
from here; every process of the run is then looked at until none lives. Survivors are those that live after 10 s.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import anyio
from tests.cli import agent_pids, alive, descendants, running
from tests.teams import digest_team, write_items, write_team
from tests.waiting import eventually

from interlock.protocol.control import AllScope
from interlock.runtime.killswitch import command
from interlock.runtime.place import Place, open_log
from interlock.testing import Hang, ScriptedServer

_LIMIT = 10.0


def main() -> None:
    """Kill some runs and print how long their ends took."""
    parser = argparse.ArgumentParser(prog="python -m bench.stop", description="How fast a kill order ends everything.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    times: list[float] = []
    survivors = 0
    for _ in range(options.kills):
        took, left = anyio.run(_one_kill, options.workers)
        times.append(took)
        survivors += left
        print(f"{took:.3f} s, {left} survivors", file=sys.stderr)
    found = {
        "p50_s": round(statistics.median(times), 3),
        "p99_s": round(sorted(times)[min(len(times) - 1, int(len(times) * 0.99))], 3),
        "survivors": survivors,
        "kills": options.kills,
        "workers": options.workers,
    }
    print(json.dumps(found) if options.json else "\n".join(f"{name:10} {value}" for name, value in found.items()))


async def _one_kill(workers: int) -> tuple[float, int]:
    """Return the seconds until all were gone, and how many were not."""
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as name:
        folder = Path(name)
        write_items(folder, workers * 2)
        team = str(write_team(folder, digest_team()))
        async with ScriptedServer(Hang()) as server:
            env = {"INTERLOCK_MODEL_URL": server.url}
            arguments = ("run", team, "bench", "--workers", str(workers))
            async with running(*arguments, env=env, cwd=folder) as job:
                await server.until(lambda seen: len(seen.calls) >= workers * 2)
                readers = agent_pids(job.process.pid, "reader")
                agents = [*readers, *agent_pids(job.process.pid, "manager"), *agent_pids(job.process.pid, "checker")]
                for pid in readers[::2]:
                    os.kill(pid, signal.SIGSTOP)
                took = await _kill(folder, agents)
                await job.finish()
                return took, sum(alive(pid) for pid in {*agents, *descendants(job.process.pid)})


async def _kill(folder: Path, pids: list[int]) -> float:
    async with open_log(Place(folder / ".interlock"), "bench") as bus:
        await command(bus, AllScope(), stop=True)
        began = time.monotonic()
        try:
            await eventually(lambda: not any(alive(pid) for pid in pids), _LIMIT)
        except TimeoutError:
            return _LIMIT
        return time.monotonic() - began


if __name__ == "__main__":
    main()
