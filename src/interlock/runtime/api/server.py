"""The process of the HTTP API: a server on a socket, answering from the log until it is told to end."""

import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import uvicorn
from fastapi import FastAPI

from interlock.observability.tracing import Tracing
from interlock.runtime.api.app import make_app
from interlock.runtime.api.context import open_context
from interlock.runtime.api.keys import KeyFile
from interlock.runtime.api.settings import HttpSetup
from interlock.runtime.bus import Bus
from interlock.runtime.config import ProcessConfig

__all__ = ["serve_api", "serving"]

_log = logging.getLogger(__name__)

_BACKLOG = 1024

_LEAVE_SECONDS = 0.4
_KEEP_ALIVE = 30
"""Seconds that a connection may be silent between two requests."""


class _Server(uvicorn.Server):
    """A server that leaves signals to the process that it runs in."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


async def serve_api(config: ProcessConfig, bus: Bus, tracing: Tracing, ready: Callable[[], None]) -> None:
    """Serve the HTTP API as ``config.http`` says, until cancelled. ``ready`` is called once it listens.

    :raises OSError: the address cannot be listened on
    """
    setup = config.http
    if setup is None:
        raise ValueError("the process of the HTTP API has to be told where to listen")
    keys = None if setup.keys is None else KeyFile(Path(setup.keys))
    with _listening(setup) as listener:
        async with (
            open_context(bus, tracing, keys, setup.settings) as context,
            serving(make_app(context), listener),
        ):
            ready()
            await anyio.sleep_forever()


@asynccontextmanager
async def serving(app: FastAPI, listener: socket.socket) -> AsyncIterator[None]:
    """Serve an app on a socket that listens, while the block runs; what is under way then is broken off."""
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        backlog=_BACKLOG,
    )
    server = _Server(config)
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, [listener])
        while not server.started:  # noqa: ASYNC110 -- it sets no event
            await anyio.sleep(0.01)
        try:
            yield
        finally:
            app.state.is_ending = True  # who is hung up on has not hung up
            with anyio.CancelScope(shield=True):
                await _end(server)
            group.cancel_scope.cancel()


async def _end(server: _Server) -> None:
    """Hang up on everybody, which ends what is under way for them, and then end the server."""
    for connection in list(server.server_state.connections):
        if connection.transport is not None:
            connection.transport.abort()
    server.should_exit = server.force_exit = True
    with anyio.move_on_after(_LEAVE_SECONDS):
        while server.server_state.tasks or any(one.is_serving() for one in server.servers):  # noqa: ASYNC110 -- as above
            await anyio.sleep(0.01)


@contextmanager
def _listening(setup: HttpSetup) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in setup.host else socket.AF_INET
    with socket.create_server((setup.host, setup.port), family=family, backlog=_BACKLOG) as listener:
        yield listener
