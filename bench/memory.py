"""Memory of each process of an `interlock run` over the items that it has closed.

    python -m bench.memory [--items N] [--parallel P] [--every S] [--json]

Each item costs one call of a worker and a check by code; the model answers at once. ``peak_mb``, ``at_2000_mb``,
``at_end_mb`` and ``growth`` are the manager's; ``others`` has the same of everything else that the command started.
``flat`` says whether the manager never had more than a fifth above what it had at 2,000 items, or at half of fewer
items than 4,000. Linux only.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from aiohttp import web
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError

from bench._family import family, name_of, rss_mb
from interlock.runtime.broker import running_broker

_SETTLED = 2000
"""Items after which memory is to stay where it is."""
_LEEWAY = 1.2
"""How many times as much it may have later and count as flat: it keeps a few bytes of each item."""
_COUNT = 0.1
"""Seconds between two counts."""
_ANSWER = json.dumps(
    {
        "object": "chat.completion",
        "model": "scripted",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "done"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11},
    }
).encode()


@dataclass
class Samples:
    """What was measured, by the name of the process."""

    mb: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    """Items closed so far, and MB."""
    closed: int = 0

    def take(self, pid: int) -> None:
        """Look at a command and all below it."""
        for one in family(pid):
            if name := name_of(one):
                self.mb[name].append((self.closed, rss_mb(one)))

    def figures(self, name: str, settled: int) -> dict[str, Any]:
        """Return the figures of one process; what it had while it started counts too."""
        sizes = self.mb[name]
        after = [mb for closed, mb in sizes if closed >= settled]
        then, end = (after[0], after[-1]) if after else (0.0, 0.0)
        return {
            "peak_mb": round(max(mb for _, mb in sizes), 1),
            "at_2000_mb": round(then, 1),
            "at_end_mb": round(end, 1),
            "growth": round(end / then, 3) if then else None,
            "flat": bool(after) and max(after) <= then * _LEEWAY,
        }


def main() -> int:
    """Run one job and print what its processes needed."""
    options = _options()
    samples, began = Samples(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as folder:
        status = asyncio.run(_measure(Path(folder), options, samples))
    settled = min(_SETTLED, options.items // 2)
    manager = next((name for name in samples.mb if name.startswith("manager")), None)
    if manager is None or status:
        sys.exit(f"the run ended with {status}")
    found = {
        **samples.figures(manager, settled),
        "items": samples.closed,
        "parallel": options.parallel,
        "seconds": round(time.monotonic() - began, 1),
        "others": {name: samples.figures(name, settled) for name in sorted(samples.mb) if name != manager},
    }
    print(json.dumps(found) if options.json else _table(samples, options.items))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description="Memory over the items closed.")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--parallel", type=int, default=64)
    parser.add_argument("--every", type=float, default=0.25, metavar="S", help="seconds between two looks")
    parser.add_argument("--durable", action="store_true", help="sync the log before anything counts as written")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


async def _measure(folder: Path, options: argparse.Namespace, samples: Samples) -> int:
    with (folder / "items.jsonl").open("w") as items:
        items.writelines(f'{{"n": {n}}}\n' for n in range(options.items))
    (folder / "team.yaml").write_text(json.dumps(_team(options.parallel)))
    async with _model() as url:
        arguments = ["run", "team.yaml", "bench", "--json", *(["--durable"] if options.durable else [])]
        env = {**os.environ, "INTERLOCK_MODEL_URL": url, "INTERLOCK_STATE": str(folder / "state")}
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            command = [sys.executable, "-m", "interlock.runtime.cli", *arguments]
            process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=env, stdout=out, stderr=err)
        looking = asyncio.create_task(_look(process, samples, options.every))
        counting = asyncio.create_task(_count(folder / "state", samples))
        try:
            await process.wait()
        finally:
            looking.cancel()
            counting.cancel()
            await asyncio.gather(looking, counting, return_exceptions=True)
        if process.returncode:
            sys.stderr.write((folder / "err").read_text()[-2000:])
    return process.returncode or 0


def _team(parallel: int) -> dict[str, Any]:
    criteria = [{"check": "words", "min": 1}]
    step = {"step": "answer", "for_each": {"jsonl": "items.jsonl"}, "agent": "reader", "do": "Answer {{ item.n }}."}
    return {
        "interlock": 1,
        "team": "bench",
        "agents": {"reader": {"kind": "worker"}, "checker": {"kind": "verifier"}},
        "plan": [{**step, "verify": {"criteria": criteria}}],
        "limits": {"parallel": parallel},
    }


@asynccontextmanager
async def _model() -> AsyncIterator[str]:
    """Serve a model that answers everything at once and remembers nothing."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=_ANSWER, content_type="application/json")

    async def models(_request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def _look(process: Process, samples: Samples, every: float) -> None:
    while True:
        samples.take(process.pid)
        await asyncio.sleep(every)


async def _count(state: Path, samples: Samples) -> None:
    """Count the items that are closed: what waits for a consumer that never asks for anything."""
    address = await _once(lambda: running_broker(state))
    client = await nats.connect(address.url, nkeys_seed_str=address.seed, error_cb=_hear, max_reconnect_attempts=0)
    stream = client.jetstream()
    silent = ConsumerConfig(ack_policy=AckPolicy.NONE, mem_storage=True, inactive_threshold=24 * 3600)
    closed = "il.main.log.*.*.*.closed"
    while True:
        try:
            pull = await stream.pull_subscribe(closed, stream="IL_main", config=silent)
            break
        except NotFoundError:
            await asyncio.sleep(0.05)
    while True:
        samples.closed = (await pull.consumer_info()).num_pending or 0
        await asyncio.sleep(_COUNT)


async def _hear(error: Exception) -> None:
    """Let the broker end with its command without a word about it."""


async def _once(found: Callable[[], Any]) -> Any:
    """Return what ``found`` finds, as soon as there is something."""
    while (one := found()) is None:  # noqa: ASYNC110 -- another process writes it
        await asyncio.sleep(0.02)
    return one


def _table(samples: Samples, items: int) -> str:
    """Return what each process had at each tenth of the items."""
    marks = [items * tenth // 10 for tenth in range(1, 11)]
    rows = [["items", *(str(mark) for mark in marks)]]
    for name, sizes in sorted(samples.mb.items()):
        rows.append([name, *(_at(sizes, mark) for mark in marks)])
    return "\n".join(" ".join(f"{cell:>10}" for cell in row) for row in rows)


def _at(sizes: Sequence[tuple[int, float]], mark: int) -> str:
    return next((f"{mb:.1f}" for closed, mb in sizes if closed >= mark), "-")


if __name__ == "__main__":
    sys.exit(main())
