"""Hands bytes on between a network namespace and a socket of the file system; run by ``network.py``, alone.

``carrier.py tcp PORT SOCKET READY`` or ``carrier.py unix SOCKET HOST:PORT READY``: what listens first, then where to.
"""

import asyncio
import contextlib
import sys
from pathlib import Path


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()


async def _serve(kind: str, here: str, there: str, ready: str) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = there.rpartition(":")
        try:
            opened = asyncio.open_unix_connection(there) if kind == "tcp" else asyncio.open_connection(host, int(port))
            other_reader, other_writer = await opened
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, other_writer), _pump(other_reader, writer))

    if kind == "tcp":
        server = await asyncio.start_server(carry, "0.0.0.0", int(here))  # noqa: S104 -- in a network of its own
    else:
        server = await asyncio.start_unix_server(carry, here)
    Path(ready).touch()  # noqa: ASYNC240 -- once, before anything is served
    async with server:
        await server.serve_forever()


asyncio.run(_serve(*sys.argv[1:]))
