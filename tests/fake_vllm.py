"""Stands in for the command ``vllm``: ``serve MODEL OPTIONS`` behaves as the real one does, on the scripted model.

It takes its time until it is ready, starts a process of its own, refuses options and models that it does not
know, serves ``/health`` and ``/metrics``, and dies when it is told to (``POST /die``). Variables:

- ``FAKE_VLLM_DELAY``: seconds until it is ready.
- ``FAKE_VLLM_PIDS``: a file to which it adds its process id and that of a process below it, which it does not end.
- ``FAKE_VLLM_SCRIPT``: ``FILE.py:NAME`` as of ``python -m interlock.testing``; left out, it says "yes" to all.
- ``FAKE_VLLM_DIES``: it ends when it has said that it is ready.
- ``FAKE_VLLM_WITHOUT_OTLP``: it knows no tracing.
"""

import argparse
import asyncio
import os
import runpy
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import anyio
from aiohttp import web

from interlock.testing import ScriptedServer

__all__ = ["install"]

_LOG = "\x1b[0;36m(EngineCore pid=7)\x1b[0;0m INFO 11-22 10:10:10 [core.py:58] {}\n"


def install(folder: Path, name: str = "vllm") -> Path:
    """Put the command into ``folder`` and return its path."""
    path = folder / name
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


class _FakeVllm(ScriptedServer):
    def _serve(self, router: web.UrlDispatcher) -> None:
        super()._serve(router)
        router.add_get("/health", self._health)
        router.add_get("/metrics", self._metrics)
        router.add_post("/die", self._die)

    async def _health(self, _request: web.Request) -> web.Response:
        if "FAKE_VLLM_DIES" in os.environ:
            asyncio.get_running_loop().call_later(0.1, os._exit, 3)
        return web.Response()

    async def _metrics(self, _request: web.Request) -> web.Response:
        calls = len(self.seen)
        label = '{engine="0",model_name="m"}'
        return web.Response(
            text=f"# HELP vllm:num_requests_running Requests.\n"
            f"vllm:num_requests_running{label} {calls - len([one for one in self.seen if one.ended])}\n"
            f"vllm:num_requests_waiting{label} 0.0\n"
            f"vllm:prefix_cache_queries_total{label} {calls * 100}.0\n"
            f"vllm:prefix_cache_hits_total{label} {max(0, calls - 1) * 80}.0\n"
        )

    async def _die(self, _request: web.Request) -> web.Response:
        os.kill(os.getpid(), signal.SIGKILL)
        return web.Response()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="vllm")
    parser.add_argument("serve", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--uvicorn-log-level")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--enforce-eager", action=argparse.BooleanOptionalAction)
    if "FAKE_VLLM_WITHOUT_OTLP" not in os.environ:
        parser.add_argument("--otlp-traces-endpoint")
    options = parser.parse_args()
    sys.stderr.write(_LOG.format(f"Loading {options.model} {' '.join(sys.argv[3:])}"))
    if options.model.startswith("missing/"):
        raise OSError(f"{options.model} is not a local folder and is not a valid model identifier")
    below = subprocess.Popen(["sleep", "600"])
    if pids := os.environ.get("FAKE_VLLM_PIDS"):
        with Path(pids).open("a") as file:
            file.write(f"{os.getpid()} {below.pid}\n")
    time.sleep(float(os.environ.get("FAKE_VLLM_DELAY", "0")))
    sys.stderr.write(_LOG.format("Ready"))
    try:
        anyio.run(_serve, options)
    finally:
        below.kill()


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    path, _, name = os.environ.get("FAKE_VLLM_SCRIPT", "").rpartition(":")
    script = runpy.run_path(path)[name] if path else "yes"
    key = os.environ.get("VLLM_API_KEY")
    async with _FakeVllm(script, model=options.model, api_key=key, port=options.port):
        await stop.wait()


if __name__ == "__main__":
    main()
