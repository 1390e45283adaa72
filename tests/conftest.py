"""Shared fixtures: a real nats-server, never a mock."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.killable_broker import KillableBroker

from interlock.runtime.address import BrokerAddress
from interlock.runtime.broker import embedded_broker
from interlock.runtime.bus import Bus


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrokerAddress]:
    """Run one server for the whole session: tests keep apart by their ``ns``."""
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
    """Run a server of the test's own that it may kill and bring back."""
    state = tmp_path / "killable"
    state.mkdir()
    async with KillableBroker.run(state) as running:
        yield running
