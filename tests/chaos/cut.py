"""A network that can be cut: a TCP proxy before a server, whose directions stop and go on without a word."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Literal
from urllib.parse import urlsplit

import anyio
from anyio.abc import SocketAttribute, SocketStream

from interlock.runtime.address import BrokerAddress

__all__ = ["BOTH", "Cuttable", "Direction"]

Direction = Literal["there", "back"]

BOTH: tuple[Direction, ...] = ("there", "back")


class Cuttable:
    """A way to a broker. While a direction is cut, nothing gets through it: no byte, no end of a connection.

    What was sent meanwhile comes through once it is whole again, as TCP has it.
    """

    def __init__(self, target: BrokerAddress) -> None:
        self._target = target
        self._port = 0
        self._open = {direction: asyncio.Event() for direction in BOTH}
        for event in self._open.values():
            event.set()

    @classmethod
    @asynccontextmanager
    async def before(cls, target: BrokerAddress) -> "AsyncIterator[Cuttable]":
        """Have a way to ``target`` while the block runs."""
        way = cls(target)
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener, anyio.create_task_group() as group:
            way._port = listener.extra(SocketAttribute.local_port)  # noqa: S610 -- anyio's, not Django's
            group.start_soon(listener.serve, way._carry)
            yield way
            group.cancel_scope.cancel()

    @property
    def address(self) -> BrokerAddress:
        """Where the broker is, this way."""
        return replace(self._target, url=f"nats://127.0.0.1:{self._port}")

    def cut(self, *directions: Direction) -> None:
        """Let nothing through in these directions."""
        for direction in directions:
            self._open[direction].clear()

    def heal(self) -> None:
        """Let everything through again, first what waits."""
        for event in self._open.values():
            event.set()

    async def _carry(self, client: SocketStream) -> None:
        target = urlsplit(self._target.url)
        with suppress(OSError):
            broker = await anyio.connect_tcp(target.hostname or "127.0.0.1", target.port or 4222)
            async with client, broker, anyio.create_task_group() as group:
                group.start_soon(self._pump, client, broker, "there")
                group.start_soon(self._pump, broker, client, "back")

    async def _pump(self, source: SocketStream, sink: SocketStream, direction: Direction) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                while True:
                    data = await source.receive()
                    await self._open[direction].wait()
                    await sink.send(data)
            await self._open[direction].wait()  # the end gets through as little as anything else
            await sink.aclose()
