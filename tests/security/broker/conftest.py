"""One broker with the keys of a team, for all tests of a module."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.security.broker.parties import NS, PARTIES

from interlock.runtime.address import BrokerAddress
from interlock.runtime.broker import embedded_broker
from interlock.runtime.bus import Bus


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def operator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrokerAddress]:
    """Run a broker that knows ``PARTIES``, its streams made, and return its operator's login."""
    async with embedded_broker(tmp_path_factory.mktemp("parties"), parties=PARTIES, ns=NS) as address:
        async with Bus.connect(address, NS, "operator"):
            pass
        yield address
