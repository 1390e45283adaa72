"""What an effect costs: calls of tools that do nothing, through the gateway and bare, one after the other.

    python -m bench.effects [--rounds N] [--durable] [--json]

One attempt over a real broker of its own. A call that only reads costs the look at the orders right before it; an
effect also its intent, the second look, the look at the chain and its outcome. Each call has other arguments, so that
nothing is reused.
"""

import argparse
import json
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from tests.integration.tools.desk import Attempt, Desk, box_team, open_desk

from interlock.runtime._wire import Wire
from interlock.runtime.broker import embedded_broker
from interlock.runtime.bus import Bus

_TOOLS = '''
from interlock.agents.tools.tool import tool


@tool(effect="read", outside=False, name="box.look")
async def look(what: str) -> str:
    """Look at something."""
    return what


@tool(effect="idempotent", outside=False, name="box.put")
async def put(what: str) -> str:
    """Put something in the box."""
    return what
'''


_KINDS = {"bare": "", "read": "box.look", "effect": "box.put"}

_AT_ONCE = 40
"""Calls of one attempt: a grant has 50."""


async def measure(rounds: int, *, durable: bool) -> dict[str, Any]:
    """Return calls a second of each kind, and the requests to the broker that one call takes."""
    asked = 0
    seconds: dict[str, float] = dict.fromkeys(_KINDS, 0.0)
    computing: dict[str, float] = dict(seconds)
    requests: dict[str, int] = dict.fromkeys(_KINDS, 0)
    request = Wire.request

    async def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal asked
        asked += 1
        return await request(*arguments, **named)

    Wire.request = counted  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "noop.py").write_text(_TOOLS)
        async with embedded_broker(base / "state", durable=durable) as address:
            for _ in range(rounds):
                for kind, tool in _KINDS.items():
                    async with (
                        Bus.connect(address, f"b{uuid.uuid4().hex[:8]}", "bench") as bus,
                        _desk(bus, base) as desk,
                    ):
                        attempt = await desk.begin()
                        call = _through(attempt, tool) if tool else _bare
                        await call("first")
                        asked, began = 0, time.process_time()
                        seconds[kind] += await _seconds(call)
                        computing[kind] += time.process_time() - began
                        requests[kind] += asked
    Wire.request = request  # type: ignore[method-assign]
    calls = rounds * _AT_ONCE
    return {
        kind: {
            "calls_per_s": round(calls / spent),
            "cpu_ms": round(1000 * computing[kind] / calls, 3),
            "requests": round(requests[kind] / calls, 2),
        }
        for kind, spent in seconds.items()
    }


def _desk(bus: Bus, base: Path) -> AbstractAsyncContextManager[Desk]:
    team = box_team(
        agents={"w": {"kind": "worker", "tools": ["box.look", "box.put"]}, "v": {"kind": "verifier"}},
        tools={"modules": ["noop.py"]},
    )
    return open_desk(bus, base, team)


async def _bare(what: str) -> str:
    return what


def _through(attempt: Attempt, tool: str) -> Callable[[str], Awaitable[object]]:
    async def call(what: str) -> object:
        return await attempt.call(tool, what=what)

    return call


async def _seconds(call: Callable[[str], Awaitable[object]]) -> float:
    began = time.perf_counter()
    for number in range(_AT_ONCE):
        await call(f"thing {number}")
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help=f"attempts of {_AT_ONCE} calls each")
    parser.add_argument("--durable", action="store_true", help="sync before each acknowledgement")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    measured = partial(measure, chosen.rounds, durable=chosen.durable)
    found = anyio.run(measured, backend_options={"use_uvloop": True})
    if chosen.json:
        print(json.dumps(found))
        return
    print("| call | calls/s | ms | of which computing here | requests to the broker |")
    print("| --- | --- | --- | --- | --- |")
    for kind, one in found.items():
        print(
            f"| {kind} | {one['calls_per_s']} | {1000 / one['calls_per_s']:.3f} | {one['cpu_ms']} | {one['requests']} |"
        )


if __name__ == "__main__":
    main()
