"""What the tests against the real vLLM share."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.vllm.serving import MODEL
from tests.cli import Finished, Running, running

from interlock.backends.engines import Endpoint

__all__ = ["at", "command", "environment_of", "finished"]

_LIMIT = 300.0


def at(*endpoints: Endpoint, **of_model: Any) -> dict[str, Any]:
    """Return a team's settings of its model at servers that run already."""
    urls = [endpoint.url for endpoint in endpoints]
    return {"engine": "vllm", "name": MODEL, "url": urls[0] if len(urls) == 1 else urls, **of_model}


def environment_of(endpoint: Endpoint) -> dict[str, str]:
    """Return what a command needs to ask a server that runs already."""
    return {"INTERLOCK_API_KEY": endpoint.api_key or ""}


@asynccontextmanager
async def command(*arguments: str, env: Mapping[str, str], cwd: Path) -> AsyncIterator[Running]:
    """Run ``interlock ARGUMENTS``; what it starts of vLLM may warn."""
    async with running(*arguments, env={"PYTHONWARNINGS": "default", **env}, cwd=cwd) as one:
        yield one


async def finished(*arguments: str, env: Mapping[str, str], cwd: Path) -> Finished:
    """Run ``interlock ARGUMENTS`` to its end."""
    async with command(*arguments, env=env, cwd=cwd) as one:
        return await one.finish(_LIMIT)
