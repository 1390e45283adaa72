"""What tests of tools call them with."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from interlock.agents.tools.calling import Tool
from interlock.agents.tools.functions import function_tool
from interlock.agents.tools.isolation import Sandbox, SandboxMissing
from interlock.agents.tools.secrets import NO_SECRETS, Secrets
from interlock.agents.tools.tool import ToolContext

__all__ = ["context_of_call", "tool_of"]


async def _no_sandbox() -> Sandbox:
    raise SandboxMissing({"none": "this test has none"})


async def _any_url(url: str) -> None:
    pass


def context_of_call(
    base: Path = Path("/"),
    *,
    key: str = "k-1",
    allow_url: Callable[[str], Awaitable[None]] = _any_url,
    sandbox: Callable[[], Awaitable[Sandbox]] = _no_sandbox,
) -> ToolContext:
    """Return the context of a call in the first attempt of some task."""
    return ToolContext(job="j-1", task="t-1", attempt=1, key=key, base=base, sandbox=sandbox, allow_url=allow_url)


def tool_of(function: Callable[..., Any], secrets: Secrets = NO_SECRETS) -> Tool:
    """Return the tool that ``function`` is, in a module ``mine``."""
    return function_tool(function, secrets, module="mine")
