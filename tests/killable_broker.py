"""A broker that a test may kill, bring back, and give more users."""

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio

from interlock.runtime._nats_server import NatsServer, ServerOptions, find_binary, start
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BrokerRefused
from interlock.runtime.credentials import STREAMS, Party, accounts
from interlock.runtime.keyring import Keyring


class KillableBroker:
    """A server that keeps its port and its store when it is killed and brought back."""

    def __init__(self, server: NatsServer) -> None:
        self._server = server

    @classmethod
    @asynccontextmanager
    async def run(cls, state: Path) -> "AsyncIterator[KillableBroker]":
        """Run one with its store in the folder ``state``."""
        keys = Keyring(state / "keys")
        keys.make([Party("operator")])
        operator = replace(keys.login("nats://127.0.0.1", Party("operator")), keys=None)
        options = ServerOptions(find_binary(), state, accounts(keys.public(), "main"), operator, durable=False, port=-1)
        broker = cls(await start(options))
        try:
            yield broker
        finally:
            await broker._server.stop()

    @property
    def address(self) -> BrokerAddress:
        """Where it is, also after it was brought back."""
        return self._server.address

    async def kill(self) -> None:
        """``kill -9`` it and wait until it is gone."""
        os.kill(self._server.process.pid, signal.SIGKILL)
        await self._server.process.wait()

    async def restart(self) -> None:
        """Bring it back, whether or not it was killed before."""
        await self._server.stop()
        self._server = await start(replace(self._server.options, port=self._server.port))

    async def let_in(self, user: str, permissions: dict[str, Any]) -> BrokerAddress:
        """Make a user with these permissions and return how it logs in."""
        self._reload([{"user": user, "password": "weak", "permissions": permissions}])
        address = BrokerAddress(self.address.url, user, "weak")
        await _until_known(address)
        return address

    def shut_out(self) -> None:
        """Take back every user that was made: their connections end."""
        self._reload([])

    def _reload(self, more_users: list[dict[str, Any]]) -> None:
        path = self._server.options.state / "nats-server.conf"
        config = json.loads(path.read_text())
        users = config["accounts"][STREAMS]["users"]
        users[:] = [user for user in users if "nkey" in user] + more_users
        path.write_text(json.dumps(config))
        os.kill(self._server.process.pid, signal.SIGHUP)


async def _until_known(address: BrokerAddress) -> None:
    with anyio.fail_after(10):
        while True:
            try:
                async with Bus.connect(address, "probe", "probe"):
                    return
            except BrokerRefused:
                await anyio.sleep(0.01)
