"""How fast a kill order ends everything: from the moment before it is written to the death of the last process.

    python -m bench.stop [--kills N] [--workers W] [--json]

Each kill is a run of its own: W worker processes, all in calls to a model that never answers, of which most then go
wrong (see ``bench/misbehaving/sitecustomize.py``: busy loops, ignored signals, daemons, SIGSTOP, stuck in C), a manager
and a verifier in the middle of a command check that left its session. The order goes out over the broker from here. The
death of every process is told by the kernel (a pidfd each). Survivors are those that live after 10 s, or that are found
by their environment when all is over. Most of the time goes into starting the processes, one second each.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from tests.cli import Running, agent_pids, broker_pid, descendants, running
from tests.teams import digest_team, item_of, summary, write_items, write_team
from tests.waiting import eventually

from bench.misbehaving.sitecustomize import behaviour_of
from interlock.protocol.control import AllScope
from interlock.runtime.killswitch import command
from interlock.runtime.place import Place, open_log
from interlock.testing import Call, Hang, Reply, ScriptedServer

_LIMIT = 10.0
"""Seconds after which a process counts as a survivor."""
_START = 120.0
_TOKEN = "INTERLOCK_BENCH"  # noqa: S105 -- it marks processes and opens nothing
_HERE = Path(__file__).parent
_CHECK = """
import os, subprocess, sys, time
pid = subprocess.Popen(["sleep", "600"], start_new_session=True).pid
with open(sys.argv[1], "w") as told:
    told.write(f"{os.getpid()} {pid}")
time.sleep(600)
"""


@dataclass
class Figures:
    """What was measured, in seconds after the moment before the order was written."""

    gone: list[float] = field(default_factory=list)
    """For each kill, when the last process was gone."""
    ended: list[float] = field(default_factory=list)
    """For each kill, when the command was over, the job closed and its broker stopped."""
    closed: list[float] = field(default_factory=list)
    """For each call, when the model server saw its connection closed."""
    survivors: int = 0
    processes: int = 0


def main() -> None:
    """Kill some runs and print how long their ends took."""
    parser = argparse.ArgumentParser(prog="python -m bench.stop", description="How fast a kill order ends everything.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures, began = Figures(), time.monotonic()
    for number in range(options.kills):
        anyio.run(_one_kill, options.workers, figures)
        seconds = f"gone after {figures.gone[-1]:.3f} s, survivors {figures.survivors}"
        print(f"kill {number + 1} of {options.kills}: {seconds}", file=sys.stderr, flush=True)
    found = {
        "p50_s": _at(figures.gone, 0.5),
        "p99_s": _at(figures.gone, 0.99),
        "survivors": figures.survivors,
        "kills": options.kills,
        "workers": options.workers,
        "processes": figures.processes,
        "connections_closed_p50_s": _at(figures.closed, 0.5),
        "connections_closed_p99_s": _at(figures.closed, 0.99),
        "connections_closed_max_s": _at(figures.closed, 1),
        "command_ended_p99_s": _at(figures.ended, 0.99),
        "bench_s": round(time.monotonic() - began, 1),
    }
    print(json.dumps(found) if options.json else "\n".join(f"{name:26} {value}" for name, value in found.items()))


def _at(values: Sequence[float], quantile: float) -> float | None:
    """Return the value that so many do not exceed: with fewer than 100 values, the 99th percentile is the largest."""
    if not values:
        return None
    if quantile == 0.5:  # noqa: PLR2004 -- the median
        return round(statistics.median(values), 3)
    return round(sorted(values)[min(len(values) - 1, int(len(values) * quantile))], 3)


async def _one_kill(workers: int, figures: Figures) -> None:
    folder, token = Path(tempfile.mkdtemp(prefix="interlock-bench-")), uuid.uuid4().hex
    try:
        async with ScriptedServer(_model) as server:
            env = {
                "INTERLOCK_MODEL_URL": server.url,
                "BENCH_FOLDER": str(folder),
                "PYTHONPATH": os.pathsep.join([str(_HERE / "misbehaving"), str(_HERE.parent / "src")]),
                _TOKEN: token,
            }
            calls = workers * 2
            arguments = ("run", _team(folder, calls), "bench", "--workers", str(workers))
            async with running(*arguments, env=env, cwd=folder) as job:
                with anyio.fail_after(_START):
                    await server.until(lambda seen: len(seen.calls) > calls)
                    await _all_in_place(job, folder, workers)
                await _kill(job, folder, server, figures)
    finally:
        left = [pid for pid in _marked(token) if pid != os.getpid()]
        figures.survivors += len(left)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _team(folder: Path, calls: int) -> str:
    """Write the team; of one item more than hang, the answer is checked by a command that does not end."""
    write_items(folder, calls + 1)
    (folder / "check.py").write_text(_CHECK)
    check = {"command": [sys.executable, str(folder / "check.py"), str(folder / "check.pids")], "timeout": 60}
    return str(write_team(folder, digest_team(parallel=calls * 2, criteria=[check])))


def _model(call: Call) -> Reply:
    return summary(call) if item_of(call) == 0 else Hang()


async def _all_in_place(job: Running, folder: Path, workers: int) -> None:
    """Have the workers go wrong, and wait until they have."""
    pids = {f"reader-{n}": agent_pids(job.process.pid, f"reader-{n}")[0] for n in range(1, workers + 1)}
    for pid in pids.values():
        os.kill(pid, signal.SIGUSR1)
    await eventually(lambda: all(_in_place(folder, name) for name in pids) and (folder / "check.pids").exists(), _START)
    for name, pid in pids.items():
        if behaviour_of(name) == "frozen":
            os.kill(pid, signal.SIGSTOP)


def _in_place(folder: Path, name: str) -> bool:
    told = folder / f"{name}.pids"
    return told.exists() and (behaviour_of(name) != "parent" or len(told.read_text().split()) >= 3)  # noqa: PLR2004


async def _kill(job: Running, folder: Path, server: ScriptedServer, figures: Figures) -> None:
    pids = sorted({*descendants(job.process.pid), *_written(folder)} - {broker_pid(job.process.pid)})
    figures.processes += len(pids)
    watched = [os.pidfd_open(pid) for pid in pids]
    waiting = [seen for seen in server.seen if seen.ended is None]
    async with open_log(Place(folder / ".interlock"), "bench") as bus, anyio.create_task_group() as group:
        last = _LastDeath(len(watched))
        for descriptor in watched:
            group.start_soon(last.watch, descriptor)
        await anyio.lowlevel.checkpoint()
        began = time.monotonic()
        group.cancel_scope.deadline = anyio.current_time() + _LIMIT
        await command(bus, AllScope(), stop=True)
    figures.gone.append(last.at - began if not last.living else _LIMIT)
    figures.survivors += last.living
    await job.finish()
    figures.ended.append(time.monotonic() - began)
    with anyio.move_on_after(1):
        await server.until(lambda _: all(seen.ended is not None for seen in waiting))
    figures.closed += [(seen.ended or began + _LIMIT) - began for seen in waiting]


def _written(folder: Path) -> list[int]:
    """Return the pids of what left its parent, told by itself."""
    return [int(pid) for path in folder.glob("*.pids") for pid in path.read_text().split()]


class _LastDeath:
    """When the last of some processes died."""

    def __init__(self, living: int) -> None:
        self.living = living
        self.at = 0.0

    async def watch(self, descriptor: int) -> None:
        """Wait for the end of the process that a pidfd is of, and close the pidfd."""
        try:
            await anyio.wait_readable(descriptor)
            self.living -= 1
            self.at = time.monotonic()
        finally:
            os.close(descriptor)


def _marked(token: str) -> list[int]:
    """Return the processes that carry this run's token in their environment."""
    found: list[int] = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdecimal() and f"{_TOKEN}={token}".encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
        except OSError:  # gone meanwhile, or somebody else's
            continue
    return found


if __name__ == "__main__":
    main()
