"""Items per second through a whole `interlock run`, against the same calls written by hand, in one run.

    python -m bench.fanout [--items N] [--parallel P] [--latency MS] [--durable] [--json]

Each item costs one call of a worker and one of a judge. The model is `interlock.testing`'s scripted server in a process
of its own. By hand means: one process, asyncio, the openai client as its documentation shows it, a semaphore, the same
two calls an item, nothing checked, nothing kept. It runs before and after Interlock, and the mean of both rates counts:
what else the machine does changes from one second to the next. All rates run from the first finished item to the last
one, so that starting processes and importing clients is left out; Interlock's times are those of its log.
The machines are noisy: compare the ratio, not the figures.

CPU time is counted between the same two moments, of all processes of the run and the broker, not of the model server:
``cpu_ms_by_process`` by process, ``cpu_ms_by_part`` by kind of work. The latter, except the broker's, is what the same
operations take in this process afterwards, times how often an item needs them; ``rest`` is what is left: the agents'
own thinking, the manager's decisions, and waking up for each of them.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio

from bench._cpu import CpuWatch
from bench._parts import work_of_an_item
from interlock.protocol.messages import TaskClosed
from interlock.protocol.subjects import log_subjects
from interlock.runtime.place import Place, open_bus

_KINDS = ("client", "manager", "workers", "verifiers", "broker")

_ANSWER = {"c1": {"holds": True, "evidence": "it is", "change": ""}}
"""Good for both: a judge's verdict, and any text for the worker."""


def main() -> None:
    """Measure both and print a line of JSON, or a table."""
    options = _options()
    with _model(options.latency) as url, tempfile.TemporaryDirectory(prefix="interlock-bench-") as folder:
        before = _rate(asyncio.run(_by_hand(url, options.items, options.parallel)))
        finished, cpu = _interlock(Path(folder), url, options)
        rate = _rate(finished)
        after = _rate(asyncio.run(_by_hand(url, options.items, options.parallel)))
        by_hand = (before + after) / 2
        work = anyio.run(work_of_an_item, url, Path(folder) / "parts", backend_options={"use_uvloop": True})
    parts = cpu.spent(min(finished), max(finished))
    per_item = {kind: round(parts.get(kind, 0) / (len(finished) - 1) * 1000, 2) for kind in _KINDS}
    total = sum(per_item.values())
    work |= {"broker": per_item["broker"]}
    found = {
        "items_per_s": round(rate, 1),
        "by_hand_items_per_s": round(by_hand, 1),
        "ratio": round(rate / by_hand, 2),
        "cpu_ms_per_item": round(total, 2),
        "cpu_ms_by_process": per_item,
        "cpu_ms_by_part": {**work, "rest": round(total - sum(work.values()), 2)},
        "model_server_ms_per_item": round(parts.get("model_server", 0) / (len(finished) - 1) * 1000, 2),
        "start_cpu_s": round(sum(cpu.spent(0, min(finished)).values()), 2),
        "profile": "durable" if options.durable else "fast",
        "items": options.items,
        "parallel": options.parallel,
        "ahead": options.ahead,
        "latency_ms": options.latency,
    }
    if options.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name:20} {value}" for name, value in found.items()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.fanout", description="Items per second, against by hand.")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--parallel", type=int, default=64)
    parser.add_argument("--ahead", type=int, help="tasks assigned beyond that (default: half as many, with --latency)")
    parser.add_argument("--latency", type=float, default=0, metavar="MS", help="of each call to the model")
    parser.add_argument("--durable", action="store_true", help="sync the log before anything counts as written")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.ahead is None:  # with no latency there is nothing to wait for
        options.ahead = options.parallel // 2 if options.latency else 0
    return options


@contextmanager
def _model(latency: float) -> Iterator[str]:
    command = [
        sys.executable,
        "-m",
        "interlock.testing",
        "--answer",
        json.dumps(_ANSWER),
        "--delay",
        str(latency / 1000),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def _rate(finished: list[float]) -> float:
    """Return items per second between the first and the last of the times at which items were finished."""
    return (len(finished) - 1) / (max(finished) - min(finished))


async def _by_hand(url: str, items: int, parallel: int) -> list[float]:
    """Return when each item of a hand-written loop was finished."""
    import openai  # noqa: PLC0415 -- a second that only this side pays

    client = openai.AsyncOpenAI(base_url=url, api_key="none")
    room = asyncio.Semaphore(parallel)
    finished: list[float] = []

    async def call(text: str) -> str | None:
        answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
        return answer.choices[0].message.content

    async def one(number: int) -> None:
        async with room:
            summary = await call(f"Answer item {number}.")
            await call(f"Does it name the item? {summary}")
            finished.append(time.perf_counter())

    await call("warm up")
    await asyncio.gather(*(one(number) for number in range(items)))
    await client.close()
    return finished


def _interlock(folder: Path, url: str, options: argparse.Namespace) -> tuple[list[float], CpuWatch]:
    """Return when each task was closed, and what all processes took."""
    (folder / "items.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(options.items)))
    (folder / "team.yaml").write_text(json.dumps(_team(options.parallel, options.ahead)))
    command = [sys.executable, "-m", "interlock.runtime.cli", "run", "team.yaml", "bench", "--json"]
    with (folder / "errors").open("w+") as errors:
        process = subprocess.Popen(
            command + ["--durable"] * options.durable,
            cwd=folder,
            env={**os.environ, "INTERLOCK_MODEL_URL": url, "INTERLOCK_STATE": str(folder / "state")},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        with CpuWatch(os.getpid()).watching() as cpu:
            status = process.wait()
        errors.seek(0)
        if status:
            sys.exit(f"the run ended with {status}:\n{errors.read()[-2000:]}")
    return anyio.run(_closings, folder / "state"), cpu


def _team(parallel: int, ahead: int) -> dict[str, Any]:
    return {
        "interlock": 1,
        "team": "bench",
        "agents": {"reader": {"kind": "worker"}, "checker": {"kind": "verifier"}},
        "plan": [
            {
                "step": "answer",
                "for_each": {"jsonl": "items.jsonl"},
                "agent": "reader",
                "do": "Answer item {{ item.n }}.",
                "verify": {"criteria": [{"judge": "It names the item."}]},
            }
        ],
        "limits": {"parallel": parallel, "ahead": ahead},
    }


async def _closings(state: Path) -> list[float]:
    closed: list[float] = []
    async with open_bus(Place(state), "bench") as (bus, _), bus.follow([log_subjects(bus.ns)]) as batches:
        async for batch in batches:
            closed += [entry.message.at.timestamp() for entry in batch.entries if isinstance(entry.message, TaskClosed)]
            if batch.pending == 0:
                break
    return closed


if __name__ == "__main__":
    main()
