"""The tools of a team: what is known of them when a job is submitted, and the tools themselves in a worker process."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from interlock.agents.tools._mcp_session import McpSession
from interlock.agents.tools.calling import Tool
from interlock.agents.tools.code import Code
from interlock.agents.tools.errors import ToolMissing, ToolNameTaken, ToolSettingsInvalid
from interlock.agents.tools.files import Files
from interlock.agents.tools.functions import function_tool
from interlock.agents.tools.mcp import McpAction, require_same, specs_of
from interlock.agents.tools.modules import tools_of_module
from interlock.agents.tools.secrets import Secrets
from interlock.agents.tools.web import Web
from interlock.protocol.team import McpServer, Team, ToolSources
from interlock.protocol.tools import ToolSpec

__all__ = ["BUILT_IN", "MCP_SECONDS", "catalogue", "discover", "open_tools"]

BUILT_IN = frozenset({"files", "web", "python", "shell"})
"""The first parts of the names of built-in tools, which no other tool can have."""

MCP_SECONDS = 60.0
"""How long an MCP server may take to start, and how long for each answer."""


def catalogue(team: Team, base: Path) -> dict[str, ToolSpec]:
    """Return what is known of the team's tools without asking anybody: the built-in ones and those of its modules.

    The modules are imported. No secret is read.

    :param base: the folder of the team file
    :raises ToolSetupError: a tool cannot be had as the team file or its declaration says
    """
    _check_servers(team.tools.mcp, frozenset(team.secrets))
    return {name: tool.spec for name, tool in _local(team.tools, base, Secrets.unread(team.secrets)).items()}


async def discover(
    team: Team, base: Path, secrets: Secrets, *, mcp_seconds: float = MCP_SECONDS
) -> dict[str, ToolSpec]:
    """Return the catalogue of all the team's tools: its MCP servers are asked too, those that are commands started.

    :raises ToolSetupError: a tool cannot be had, or a server does not answer
    """
    known = catalogue(team, base)
    if not team.tools.mcp:
        return known

    async with _home() as group:
        for name, server in team.tools.mcp.items():
            session = McpSession(
                name, server, base=base, secrets=secrets, group=group, start_seconds=mcp_seconds, seconds=mcp_seconds
            )
            known |= await specs_of(session, server)
    return known


@asynccontextmanager
async def open_tools(
    sources: ToolSources,
    base: Path,
    catalogue: Iterable[ToolSpec],
    secrets: Secrets,
    *,
    mcp_start_seconds: float = MCP_SECONDS,
    mcp_seconds: float = MCP_SECONDS,
) -> AsyncIterator[Mapping[str, Tool]]:
    """Open tools for as long as the block runs, by their names. Only the MCP servers that have one of them are started.

    :param base: the folder of the team file
    :param catalogue: the tools that are wanted, as they were when the job was submitted
    :param secrets: the team's, read from the environment of this process
    :param mcp_start_seconds: how long an MCP server may take to start
    :param mcp_seconds: how long it may take for each answer
    :raises ToolMissing: there is no such tool
    :raises ToolChanged: one is not what the catalogue says
    :raises ToolSetupError: one cannot be had
    """
    wanted = {spec.name: spec for spec in catalogue}
    _check_servers(sources.mcp, secrets.names)
    servers = {name: server for name, server in sources.mcp.items() if any(_is_of(name, tool) for tool in wanted)}
    local = _local(sources, base, secrets)
    opened = {name: local[name] for name in wanted if name in local}
    async with AsyncExitStack() as stack:
        if servers:
            group = await stack.enter_async_context(_home())
            begin = partial(
                McpSession,
                base=base,
                secrets=secrets,
                group=group,
                start_seconds=mcp_start_seconds,
                seconds=mcp_seconds,
            )
            opened |= await _remote(servers, wanted, begin, secrets)
        for name, spec in wanted.items():
            if name not in opened:
                raise ToolMissing(name, local)
            require_same(spec, opened[name].spec)
        yield opened


async def _remote(
    servers: Mapping[str, McpServer],
    wanted: Mapping[str, ToolSpec],
    begin: Callable[[str, McpServer], McpSession],
    secrets: Secrets,
) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    for server_name, server in servers.items():
        session = begin(server_name, server)
        live = await specs_of(session, server)
        for name in wanted:
            if _is_of(server_name, name):
                require_same(wanted[name], live.get(name))
                tools[name] = Tool(wanted[name], McpAction(wanted[name], session, server), secrets)
    return tools


def _local(sources: ToolSources, base: Path, secrets: Secrets) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    origins: dict[str, str] = {}
    for origin, tool in _all_local(sources, base, secrets):
        name = tool.spec.name
        if name in tools:
            raise ToolNameTaken(name, origins[name], origin)
        if origin != _OURS and name.partition(".")[0] in (BUILT_IN | sources.mcp.keys()):
            raise ToolNameTaken(name, "a tool source of that name", origin)
        tools[name], origins[name] = tool, origin
    return tools


_OURS = "Interlock"


def _all_local(sources: ToolSources, base: Path, secrets: Secrets) -> Iterator[tuple[str, Tool]]:
    for tool in _built_in(sources, base, secrets):
        yield _OURS, tool
    for path in sources.modules:
        for tool in tools_of_module(base / path, secrets):
            yield path, tool


def _built_in(sources: ToolSources, base: Path, secrets: Secrets) -> Iterator[Tool]:
    files = Files(sources.files, base)
    if sources.files.read or sources.files.write:
        yield function_tool(files.read, secrets)
        yield function_tool(files.list, secrets)
    if sources.files.write:
        yield function_tool(files.write, secrets)
    yield function_tool(Web(sources.web).fetch, secrets)
    code = Code(sources.code, base)
    yield function_tool(code.python, secrets, effect=code.effect, outside=code.outside)
    yield function_tool(code.shell, secrets, effect=code.effect, outside=code.outside)


def _check_servers(servers: Mapping[str, McpServer], secrets: frozenset[str]) -> None:
    for name, server in servers.items():
        where = f"tools.mcp.{name}"
        if name in BUILT_IN:
            raise ToolSettingsInvalid(where, "built-in tools are called like that: give the server another name")
        if bool(server.command) == (server.url is not None):
            raise ToolSettingsInvalid(where, "it needs either a command to start or a url to reach")
        if unknown := sorted({*server.env} - secrets):
            raise ToolSettingsInvalid(f"{where}.env", f"{unknown[0]!r} is none of the team's secrets: name it there")
        if server.env and server.url is not None:
            raise ToolSettingsInvalid(f"{where}.env", "a server that is reached by a url has no environment of ours")


def _is_of(server: str, tool: str) -> bool:
    return tool.partition(".")[0] == server


@asynccontextmanager
async def _home() -> AsyncIterator[TaskGroup]:
    """Open a task group that ends with the block, and out of which the block's own error comes as it is."""
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        try:
            yield group
        except Exception as error:  # noqa: BLE001 -- raised again below, where no group is wrapped around it
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
