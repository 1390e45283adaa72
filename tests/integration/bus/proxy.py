"""A TCP proxy in front of a broker that can lose bytes in either direction and cut connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from interlock.runtime.address import BrokerAddress


class Proxy:
    """Passes bytes on, unless told to lose them."""

    def __init__(self, behind: BrokerAddress) -> None:
        host, _, port = behind.url.removeprefix("nats://").rpartition(":")
        self._behind = (host, int(port))
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = behind
        self.lose_replies = False
        """Lose what the broker sends."""
        self.lose_requests = False
        """Lose what the client sends."""

    @classmethod
    @asynccontextmanager
    async def run(cls, behind: BrokerAddress) -> "AsyncIterator[Proxy]":
        """Run one in front of a broker."""
        proxy = cls(behind)
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy.address = replace(behind, url=f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        try:
            yield proxy
        finally:
            server.close()
            await proxy.cut()
            await server.wait_closed()

    async def cut(self) -> None:
        """Cut every connection and pass everything on again."""
        tasks = tuple(self._tasks)
        for writer in tuple(self._writers):
            writer.close()
        if tasks:
            await asyncio.wait(tasks)
        self.lose_replies = self.lose_requests = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self._behind)
        except OSError:
            await _close(writer)
            return
        self._writers |= {writer, back}
        directions = (self._pass(reader, back, "lose_requests"), self._pass(there, writer, "lose_replies"))
        for direction in directions:
            task = asyncio.create_task(direction)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: str) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if not getattr(self, losing):
                    writer.write(data)
        self._writers.discard(writer)
        await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
