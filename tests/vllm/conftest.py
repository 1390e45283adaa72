"""The real vLLM: built by ``make test-vllm``, one server for all tests that need no server of their own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from bench.vllm import serving

from interlock.backends.engines import Endpoint


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what stands in this folder, and give it the time that a model on the CPU needs."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.timeout(480))


@pytest.fixture(scope="session")
def built() -> Path:
    """Return the folder with vLLM's environment and the model."""
    if serving.FOLDER_ENV not in os.environ:
        pytest.skip("`make test-vllm` builds the real vLLM and says where it is")
    return serving.folder()


@pytest.fixture(scope="session")
def server(built: Path) -> Iterator[Endpoint]:
    """Run one server, started and watched as Interlock does it for a team."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serving.serving(built)) as endpoint:
        yield endpoint
