"""The session with one MCP server, for as long as a worker process runs; begun again when it has ended.

A server that is a child process dies with this one, and gets no more of the environment than PATH, HOME, LANG and the
secrets that the team file gives it.
"""

import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from interlock.agents.tools.errors import McpNotInstalled, McpServerFailed
from interlock.agents.tools.secrets import Secrets
from interlock.backends._tether import tethered
from interlock.protocol.base import Json
from interlock.protocol.team import McpServer

if TYPE_CHECKING:  # the package is optional, and takes half a second to import
    import mcp
    import mcp.types

_MOST_PAGES = 50
_KEPT_LINES, _LONGEST_LINE = 20, 4_096
_KEPT = ("PATH", "HOME", "LANG")
_NOT_KEPT = ("LOGNAME", "SHELL", "TERM", "USER")  # what the package hands on besides
_SIGN_OF_LIFE = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Connection:
    client: "mcp.Client"
    over: anyio.Event
    """Set by whoever finds that it is of no more use."""


class McpSession:
    """Speaks with one server, over one connection at a time."""

    def __init__(
        self,
        name: str,
        server: McpServer,
        *,
        base: Path,
        secrets: Secrets,
        group: TaskGroup,
        start_seconds: float,
        seconds: float,
    ) -> None:
        """Take what the team file says of the server; nothing is started yet.

        :param group: where the connections live; they end when it is cancelled
        :param start_seconds: how long the server may take to start
        :param seconds: how long it may take for each answer
        """
        self.name = name
        self._server = server
        self._base = base
        self._secrets = secrets
        self._group = group
        self._start_seconds = start_seconds
        self._seconds = seconds
        self._lock = anyio.Lock()
        self._current: _Connection | None = None
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)

    async def tools(self) -> "list[mcp.types.Tool]":
        """Ask the server for its tools.

        :raises McpServerFailed: it does not start or does not answer
        :raises McpNotInstalled: the package mcp is missing
        """
        connection = await self._connection()
        tools: list[mcp.types.Tool] = []
        cursor: str | None = None
        try:
            with anyio.fail_after(self._seconds):
                for _ in range(_MOST_PAGES):
                    page = await connection.client.list_tools(cursor=cursor)
                    tools += page.tools
                    cursor = page.next_cursor
                    if not cursor:
                        return tools
        except Exception as error:  # noqa: BLE001 -- the package raises all kinds of them
            connection.over.set()
            raise McpServerFailed(self.name, f"does not say which tools it has: {self._told(error)}") from None
        raise McpServerFailed(self.name, f"goes on listing tools after {_MOST_PAGES} pages")

    async def call(self, tool: str, arguments: Mapping[str, Json], meta: dict[str, Any]) -> "mcp.types.CallToolResult":
        """Have the server run a tool. Whatever else is raised leaves open whether it did.

        :raises McpServerFailed: it cannot be reached, so nothing was sent
        :raises mcp.MCPError: it answers with an error, or hung up
        :raises TimeoutError: it does not answer
        """
        connection = await self._connection()
        import mcp.types  # noqa: PLC0415 -- see above; the connection shows that it is there

        try:
            with anyio.fail_after(self._seconds):
                return await connection.client.call_tool(tool, dict(arguments), meta=meta)  # type: ignore[arg-type] # keys of ours are allowed beside those that its TypedDict knows
        except TimeoutError:
            await self._check(connection)
            raise TimeoutError(f"the server did not answer within {self._seconds:g} s") from None
        except mcp.MCPError as error:
            if error.code == mcp.types.CONNECTION_CLOSED:
                connection.over.set()
            raise

    async def _check(self, connection: _Connection) -> None:
        """End the connection if the server answers nothing at all, so that the next call begins a new one."""
        with anyio.move_on_after(min(_SIGN_OF_LIFE, self._seconds)) as waiting:
            try:
                await connection.client.list_tools()
            except Exception:  # noqa: BLE001 -- no matter what: it is of no use
                connection.over.set()
        if waiting.cancelled_caught:
            connection.over.set()

    async def _connection(self) -> _Connection:
        async with self._lock:
            current = self._current
            if current is None or current.over.is_set():
                current = self._current = await self._begin()
            return current

    async def _begin(self) -> _Connection:
        connection: _Connection = await self._group.start(self._connect, name=f"MCP server {self.name}")
        return connection

    async def _connect(self, *, task_status: TaskStatus[_Connection]) -> None:
        """Hold a connection until it is over; an error before it stands is for whoever asked for it."""
        try:
            from mcp import Client  # noqa: PLC0415 -- see above
        except ImportError:
            raise McpNotInstalled(self.name) from None
        over, stands = anyio.Event(), False
        problem: McpServerFailed
        try:
            with anyio.fail_after(self._start_seconds) as starting:
                async with Client(self._transport(), cache=None) as client:
                    stands, starting.deadline = True, float("inf")
                    task_status.started(_Connection(client, over))
                    await over.wait()
                    return
        except TimeoutError:
            problem = McpServerFailed(self.name, f"did not start within {self._start_seconds:g} s{self._output()}")
        except Exception as error:  # noqa: BLE001 -- the package raises all kinds of them, also in groups
            problem = McpServerFailed(self.name, f"cannot be used: {self._told(error)}{self._output()}")
        over.set()
        if not stands:
            raise problem
        _log.warning("%s", problem)

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        if self._server.url is None:
            async with self._child() as streams:
                yield streams
        else:
            import httpx2  # noqa: PLC0415 -- as above
            from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415 -- as above

            timeout = httpx2.Timeout(self._seconds)
            async with (
                httpx2.AsyncClient(trust_env=False, timeout=timeout) as http,
                streamable_http_client(self._server.url, http_client=http) as streams,
            ):
                yield streams

    @asynccontextmanager
    async def _child(self) -> AsyncIterator[Any]:
        from mcp import StdioServerParameters, stdio_client  # noqa: PLC0415 -- as above

        program, *arguments = tethered(["env", *(f"-u{name}" for name in _NOT_KEPT), *self._server.command])
        parameters = StdioServerParameters(
            command=program, args=arguments, env=self._environment(), cwd=self._base, encoding_error_handler="replace"
        )
        reading, writing = os.pipe()
        errors = os.fdopen(writing, "w")
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._listen, reading)
                async with stdio_client(parameters, errlog=errors) as streams:
                    errors.close()  # the child has it
                    yield streams
                group.cancel_scope.cancel()
        finally:
            errors.close()
            os.close(reading)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return kept | {name: self._secrets.reveal(name) for name in self._server.env}

    async def _listen(self, reading: int) -> None:
        """Log what the server writes to its standard error, and keep its end for when something goes wrong."""
        rest = b""
        while True:
            await anyio.wait_readable(reading)
            if not (data := os.read(reading, 65_536)):
                return
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-_LONGEST_LINE:]
            for line in lines:
                said = self._secrets.scrub(line[-_LONGEST_LINE:].decode("utf-8", "replace"))
                self._said.append(said)
                _log.info("%s: %s", self.name, said)

    def _output(self) -> str:
        return "; it wrote: " + " / ".join(self._said) if self._said else ""

    def _told(self, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        return self._secrets.scrub(f"{type(error).__name__}: {error}")
