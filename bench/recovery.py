"""How long work stands still when a worker, the manager or the broker is killed with ``kill -9``.

    python -m bench.recovery [--kills N] [--items N] [--json]

One job with four worker processes runs against the scripted model, and each is killed so many times. ``worker``: from
the kill until another worker was handed what the dead one held, for every assignment that it held; the broker waits
five seconds for a holder who says nothing. ``manager`` and ``broker``: from the kill until the log has the next entry
of a manager, or of anybody. Linux only.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import anyio
from tests.chaos.storm.stage import Stage, staged
from tests.cli import Running, agent_pids, broker_pid
from tests.oracle import Line

_MANAGERS = frozenset({"assigned", "closed", "accepted", "expanded"})
"""The kinds of entries that only managers write."""
_IN_FLIGHT = 0.3
"""Seconds after a process's death in which what it had sent may still be stored; none is started again so soon."""
_PAUSE = (3.0, 4.0)
"""Seconds between two kills, at least and at most: a process that was killed is back by then."""
_WHO = ("worker", "manager", "broker")


def main() -> int:
    """Run the job and print how long it stood still."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as folder:
        began = time.monotonic()
        stage, lines = anyio.run(_play, Path(folder), options)
        waits = {
            "worker": list(stage.recoveries(lines).values()),
            "manager": _waits(stage, "manager", (line for line in lines if line.kind in _MANAGERS)),
            "broker": _waits(stage, "broker", lines),
        }
    found = {
        **{f"{who}_{name}_s": _at(waits[who], share) for who in _WHO for name, share in (("p50", 0.5), ("p99", 0.99))},
        **{f"{who}_kills": sum(one.what == who for one in stage.kills) for who in _WHO},
        "assignments_taken_over": len(waits["worker"]),
        "items": stage.items,
        "bench_s": round(time.monotonic() - began, 1),
    }
    print(json.dumps(found) if options.json else "\n".join(f"{name:24} {value}" for name, value in found.items()))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description="How long work waits after a kill.")
    parser.add_argument("--kills", type=int, default=4, help="of each of worker, manager and broker")
    parser.add_argument("--items", type=int, help="of the job (default: enough for the kills)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


async def _play(folder: Path, options: argparse.Namespace) -> tuple[Stage, list[Line]]:
    dice = random.Random(options.seed)  # noqa: S311 -- no secret
    async with staged(folder, options.items or 2000 * options.kills, dice) as stage:
        async with stage.command("run", str(stage.team), "go", "--id", "bench", "--workers", "4") as run:
            await stage.server.until(lambda seen: len(seen.seen) > stage.items // 50)
            for number in range(options.kills * len(_WHO)):
                _kill(stage, run, _WHO[number % len(_WHO)])
                await anyio.sleep(dice.uniform(*_PAUSE))
                if run.process.returncode is not None:  # it was over: the figures say how many kills there were
                    break
        return stage, await stage.log()


def _kill(stage: Stage, run: Running, who: str) -> None:
    match who:
        case "worker":
            workers = sorted(agent_pids(run.process.pid, "reader"))
            stage.strike(who, [stage.dice.choice(sorted(stage.serving(workers)) or workers)])
        case "manager":
            stage.strike(who, agent_pids(run.process.pid, "manager"))
        case _:
            stage.strike(who, [broker_pid(run.process.pid)])


def _waits(stage: Stage, who: str, lines: Iterable[Line]) -> list[float]:
    """Return how long it took after each kill until the next of some entries, the last ones of the dead left out."""
    times = sorted(line.at for line in lines)
    kills = [one.at for one in stage.kills if one.what == who]
    flying = 0.0 if who == "broker" else _IN_FLIGHT
    return [min(later) - kill for kill in kills if (later := [at for at in times if at > kill + flying])]


def _at(values: Sequence[float], share: float) -> float | None:
    """Return the value that so many do not exceed: with fewer than 100 values, the 99th percentile is the largest."""
    if not values:
        return None
    if share == 0.5:  # noqa: PLR2004 -- the median
        return round(statistics.median(values), 2)
    return round(sorted(values)[min(len(values) - 1, int(len(values) * share))], 2)


if __name__ == "__main__":
    sys.exit(main())
