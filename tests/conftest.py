"""Shared fixtures: a real nats-server, never a mock."""

import os
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from interlock.runtime._nats_server import NatsServer, ServerOptions, find_binary, start
from interlock.runtime.address import BrokerAddress
from interlock.runtime.broker import embedded_broker
from interlock.runtime.bus import Bus

__all__ = ["KillableBroker"]


class KillableBroker:
    """A server that a test may kill and bring back on the same port and store."""

    def __init__(self, server: NatsServer) -> None:
        self._server = server

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
        options = self._server.options
        await self._server.stop()
        restarted = ServerOptions(
            options.binary, options.state, options.password, durable=options.durable, port=self._server.port
        )
        self._server = await start(restarted)

    async def stop(self) -> None:
        """End it for good."""
        await self._server.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrokerAddress]:
    """One server for the whole session: tests keep apart by their ``ns``."""
    async with embedded_broker(tmp_path_factory.mktemp("broker")) as address:
        yield address


@pytest.fixture
def ns() -> str:
    """Return a namespace that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest_asyncio.fixture
async def bus(broker: BrokerAddress, ns: str) -> AsyncIterator[Bus]:
    """Connect a bus in the test's own namespace."""
    async with Bus.connect(broker, ns, "test") as connected:
        yield connected


@pytest_asyncio.fixture
async def killable_broker(tmp_path: Path) -> AsyncIterator[KillableBroker]:
    """Start a server of the test's own that it may kill and bring back."""
    state = tmp_path / "killable"
    state.mkdir()
    options = ServerOptions(find_binary(), state, "secret-of-a-test", durable=False, port=-1)
    killable = KillableBroker(await start(options))
    yield killable
    await killable.stop()
