"""A cluster of three real nodes for each test, since nearly each kills some."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from tests.cluster import Cluster


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Run three nodes that the test may kill and bring back."""
    async with Cluster.run(tmp_path) as running:
        yield running
