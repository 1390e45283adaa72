"""The engine ``vllm``: vLLM servers started, watched and ended here, as child processes.

Environment variables:

- ``INTERLOCK_VLLM``: the command ``vllm``, or the Python of an environment in which vLLM is installed; left out, the
  command on the PATH, or the package beside Interlock.
- ``INTERLOCK_VLLM_START_SECONDS``: how long a server may take until it is ready.
- ``INTERLOCK_VLLM_LOG``: a file that gets all that the servers print.
"""

import asyncio
import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import anyio
from anyio.abc import Process

from interlock.backends.engines import VLLM_KEY_ENV, VLLM_SERVERS_ENV, Endpoint, served_as
from interlock.backends.errors import VllmFailed
from interlock.backends.vllm_command import (
    cannot_trace,
    command_line,
    find_vllm,
    last_line,
    plain,
    server_environment,
    tracing_options,
    with_options,
)
from interlock.protocol.team import ModelSettings

__all__ = [
    "VLLM_LOG_ENV",
    "VLLM_START_ENV",
    "VllmSettings",
    "vllm_server",
    "vllm_servers",
]

_log = logging.getLogger(__name__)

VLLM_START_ENV = "INTERLOCK_VLLM_START_SECONDS"
VLLM_LOG_ENV = "INTERLOCK_VLLM_LOG"

_KEEPER = Path(__file__).with_name("_keeper.py")
_GRACE = 5.0
"""Seconds that a server has for its end before it is killed."""
_LOOK = 0.1
"""Seconds between two looks at whether a server is ready."""
_HEALTH = 5.0
"""Seconds between two looks at whether a server that is ready still is."""
_SICK = 3
"""How often in a row a server may say that it is not well before it is ended and started again."""
_TELL = 5.0
"""Seconds between two lines to a person while a server gets ready."""
_SHOWN = 4000
"""Bytes from the end of a server's output that an error shows."""
_LONGEST_LOG = 64 * 1024 * 1024
"""Bytes of output after which it is forgotten."""
_WELL = 200
_SICK_STATUS = 503
_Say = Callable[[str], None]
"""Tells a person one line."""
_Failed = Callable[[VllmFailed], None]
"""Is told that a server is given up."""


def _log_failure(failure: VllmFailed) -> None:
    _log.error("%s", failure)


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """How servers are kept up. All times are seconds."""

    start_timeout: float = 1800.0
    """Until a server must be ready; it may have to fetch its model first."""
    restarts: int = 5
    """How often a server that died is started again before that is a failure."""
    first_wait: float = 1.0
    """Before the first restart; it doubles with each further one."""
    longest_wait: float = 30.0
    steady: float = 300.0
    """After so long in health, earlier deaths do not count any more."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "VllmSettings":
        """Return the settings in ``environ``; what is no positive number there counts for nothing."""
        try:
            seconds = float(environ.get(VLLM_START_ENV, ""))
        except ValueError:
            return cls()
        return cls(start_timeout=seconds) if seconds > 0 else cls()


@asynccontextmanager
async def vllm_servers(
    models: Iterable[ModelSettings],
    environ: Mapping[str, str] = os.environ,
    say: _Say = lambda _: None,
    how: VllmSettings | None = None,
    failed: _Failed = _log_failure,
) -> AsyncGenerator[dict[str, str]]:
    """Run a server for each of ``models`` that differs in name or options, while the context is open.

    They are started one after the other: each measures how much memory the others leave. Yields the variables by which
    other processes find them, through ``engines.resolve_endpoint``.

    :raises VllmMissing: there is no vLLM on this machine
    :raises VllmFailed: a server did not get ready
    """
    different = {served_as(model): model for model in models}
    key, urls = secrets.token_urlsafe(), dict[str, str]()
    async with AsyncExitStack() as stack:
        for name, model in different.items():
            server = vllm_server(model, {**environ, VLLM_KEY_ENV: key}, say, how, failed)
            urls[name] = (await stack.enter_async_context(server)).url
        yield {VLLM_SERVERS_ENV: json.dumps(urls), VLLM_KEY_ENV: key}


@asynccontextmanager
async def vllm_server(
    model: ModelSettings,
    environ: Mapping[str, str] = os.environ,
    say: _Say = lambda _: None,
    how: VllmSettings | None = None,
    failed: _Failed = _log_failure,
) -> AsyncGenerator[Endpoint]:
    """Run a server for ``model`` while the context is open; one that dies is started again, at the same URL.

    It answers on loopback, and only to the key of its endpoint. It runs in a session of its own, and ends with all that
    it started however this process ends.

    ``failed`` is called once it ended too often, and nothing answers at its URL any more.

    :raises VllmMissing: there is no vLLM on this machine
    :raises VllmFailed: it did not get ready
    """
    command = find_vllm(environ)
    with _port_of_our_own() as port, _output(environ) as output:
        endpoint = Endpoint(
            url=f"http://127.0.0.1:{port.getsockname()[1]}/v1",
            name=None if "served-model-name" in model.options else model.name,
            api_key=environ.get(VLLM_KEY_ENV) or secrets.token_urlsafe(),
            engine="vllm",
            timeout=model.timeout,
            key_env=VLLM_KEY_ENV,
            own=True,
        )
        server = _Server(command, model, endpoint, environ, output, say, how or VllmSettings.read(environ))
        try:
            await server.start()
            async with _kept_up(server, failed):
                yield endpoint
        finally:
            with anyio.CancelScope(shield=True):
                await server.end()


def _port_of_our_own() -> socket.socket:
    """Return a socket that keeps a port for servers that are started one after the other; it takes no connection.

    Servers open theirs with SO_REUSEADDR at least, so they are let in beside it, and nobody else's are.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


@asynccontextmanager
async def _kept_up(server: "_Server", failed: _Failed) -> AsyncGenerator[None]:
    """Keep a server up until the block is left. A task group would wrap the block's own errors into groups."""
    scope = anyio.CancelScope()

    async def watch() -> None:
        with scope:
            try:
                await server.keep_up()
            except VllmFailed as failure:
                failed(failure)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        scope.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])


@contextmanager
def _output(environ: Mapping[str, str]) -> Iterator[int]:
    """Open what servers print to, to be added to at its end and read from anywhere."""
    if named := environ.get(VLLM_LOG_ENV):
        descriptor = os.open(named, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    else:
        descriptor, path = tempfile.mkstemp(prefix="interlock-vllm-", suffix=".log")
        os.close(descriptor)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        Path(path).unlink()
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Server:
    """One server, through all of its processes."""

    def __init__(
        self,
        command: list[str],
        model: ModelSettings,
        endpoint: Endpoint,
        environ: Mapping[str, str],
        output: int,
        say: _Say,
        how: VllmSettings,
    ) -> None:
        self._command, self._model, self._endpoint, self._environ = command, model, endpoint, environ
        self._output, self._say, self._how = output, say, how
        self._name = model.name or ""
        self._tracing = tracing_options(environ)
        self._process: Process | None = None
        self._from = 0
        """Where in the output what the process prints that runs now begins."""

    async def start(self) -> None:
        """Start the server and wait until it is ready.

        :raises VllmFailed: it ended or took too long
        """
        try:
            await self._start_once()
        except VllmFailed as failure:
            if not (self._tracing and cannot_trace(failure.output)):
                raise
            self._tracing = {}  # it was not asked for by the team, and this vLLM has nothing to do it with
            self._say(f"vllm {self._name}: this vLLM cannot trace; starting it without")
            await self._start_once()

    async def _start_once(self) -> None:
        self._say(f"starting vllm {self._name}")
        await self._launch()
        began = anyio.current_time()
        try:
            with anyio.fail_after(self._how.start_timeout):
                await self._ready(began)
        except TimeoutError:
            await self.end()
            raise self._failed(f"was not ready within {self._how.start_timeout:g} s") from None
        self._say(f"vllm {self._name} is ready after {anyio.current_time() - began:.0f} s")

    async def _launch(self) -> None:
        end = os.lseek(self._output, 0, os.SEEK_END)
        if end > _LONGEST_LOG:
            os.ftruncate(self._output, end := 0)
        self._from = end
        address = urlsplit(self._endpoint.url)
        options = with_options({"uvicorn-log-level": "warning", **self._tracing}, self._model.options)
        command = [
            *self._command,
            self._name,
            *command_line(options),
            "--host",
            "127.0.0.1",
            "--port",
            f"{address.port}",
        ]
        self._process = await anyio.open_process(
            [sys.executable, "-I", "-S", str(_KEEPER), f"{_GRACE:g}", *command],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._output,
            env=server_environment(self._environ, self._endpoint.api_key or "", tracing=bool(self._tracing)),
            start_new_session=True,
        )

    async def _ready(self, began: float) -> None:
        """Wait until the server says that it is well, and tell a person now and then what it says of itself.

        :raises VllmFailed: it ended
        """
        told, line = began, ""
        while await self._health() != _WELL:
            if self._process is None or self._process.returncode is not None:
                raise self._failed(f"ended with exit code {self._exit_code()} before it was ready")
            now = anyio.current_time()
            if now - told >= _TELL:
                told, line = now, last_line(self._tail()) or line
                self._say(f"vllm {self._name}, {now - began:.0f} s: {line or 'starting'}")
            await anyio.sleep(_LOOK)

    async def keep_up(self) -> None:
        """Start the server again whenever it ends or is not well, until cancelled.

        :raises VllmFailed: that happened too often
        """
        deaths, problem = 0, ""
        while True:
            if not problem:
                began = anyio.current_time()
                problem = await self._until_down()
                if anyio.current_time() - began > self._how.steady:
                    deaths = 0
            deaths += 1
            if deaths > self._how.restarts:
                again = f"{self._how.restarts} time{'' if self._how.restarts == 1 else 's'}"
                raise self._failed(f"{problem}, and was started again {again} already")
            wait = min(self._how.longest_wait, self._how.first_wait * 2.0 ** (deaths - 1))
            self._say(f"vllm {self._name} {problem}; starting it again in {wait:g} s")
            await self.end()
            await anyio.sleep(wait)
            try:
                await self.start()
                problem = ""
            except VllmFailed as failure:
                problem = failure.problem

    async def _until_down(self) -> str:
        """Wait until the server has ended or is not well, and return which."""
        process = self._process
        if process is None:
            return "was not started"
        sick = 0
        while sick < _SICK:
            with anyio.move_on_after(_HEALTH):
                await process.wait()
                return f"ended with exit code {process.returncode}"
            sick = sick + 1 if await self._health() == _SICK_STATUS else 0
        return "says that it is not well"

    async def end(self) -> None:
        """End the server with all that it started; what it has in hand is lost."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            with suppress(OSError, anyio.BrokenResourceError):
                await process.stdin.aclose()
        with anyio.move_on_after(_GRACE + 10):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        self._process = None

    async def _health(self) -> int:
        """Return the HTTP status of the server's health; 0: it does not say."""
        address = urlsplit(self._endpoint.url)
        question = f"GET /health HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n"
        with anyio.move_on_after(_HEALTH):
            try:
                async with await anyio.connect_tcp(address.hostname or "", address.port or 0) as stream:
                    await stream.send(question.encode())
                    status = (await stream.receive()).split()[1:2]
            except (OSError, anyio.BrokenResourceError, anyio.EndOfStream):
                return 0
            return int(status[0]) if status and status[0].isdigit() else 0
        return 0

    def _exit_code(self) -> int | None:
        return None if self._process is None else self._process.returncode

    def _failed(self, problem: str) -> VllmFailed:
        return VllmFailed(self._name, problem, self._tail())

    def _tail(self) -> str:
        """Return the end of what the process printed, without the key."""
        end = os.lseek(self._output, 0, os.SEEK_END)
        begin = max(self._from if self._from <= end else 0, end - _SHOWN)
        text = os.pread(self._output, end - begin, begin).decode(errors="replace")
        return plain(text).replace(self._endpoint.api_key or "\0", "***").strip()
