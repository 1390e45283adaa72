"""A nats-server of its own with a configuration that ``interlock broker-config`` wrote."""

import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from tests.waiting import eventually

from interlock.runtime._nats_server import find_binary


class Server:
    """A server that runs."""

    def __init__(self, pid: int, port: int, log: Path) -> None:
        self.pid = pid
        self.port = port
        self.log = log

    async def reload(self) -> None:
        """Have it read its configuration anew."""
        before = self.log.read_text().count("Reloaded server configuration")
        os.kill(self.pid, signal.SIGHUP)
        await eventually(lambda: self.log.read_text().count("Reloaded server configuration") > before, 10)


@asynccontextmanager
async def served(config: Path) -> AsyncIterator[Server]:
    """Run a server with this configuration, on any free port."""
    folder = config.parent
    ports = ["--port", "-1", "--ports_file_dir", str(folder)]
    with (folder / "log").open("wb") as log:
        process = await anyio.open_process(
            [str(find_binary()), "--config", str(config), *ports], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        await eventually(lambda: process.returncode is not None or _port(folder, process.pid), 20)
        assert process.returncode is None, (folder / "log").read_text()
        yield Server(process.pid, _port(folder, process.pid), folder / "log")
    finally:
        process.terminate()
        await process.wait()
        await process.aclose()


def _port(folder: Path, pid: int) -> int:
    for path in folder.glob(f"*_{pid}.ports"):
        try:
            return int(json.loads(path.read_text())["nats"][0].rpartition(":")[2])
        except ValueError:  # half written
            return 0
    return 0
