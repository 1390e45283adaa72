"""Tools of MCP servers, named ``SERVER.TOOL``. What a server says of itself is never taken for more than text.

A tool does what the team file says that it does (``effects``), else the worst; the hints of a server change nothing.
What models and rules know of a tool is what the server said when the job was submitted: before each call it is asked
again, and a tool that has changed since is not called.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from interlock.agents.checks.schema import check_schema
from interlock.agents.tools._mcp_session import McpSession
from interlock.agents.tools.errors import McpServerFailed, ToolArgumentsInvalid, ToolChanged, ToolFailed, ToolUncertain
from interlock.agents.tools.tool import ToolContext
from interlock.protocol.base import Json
from interlock.protocol.team import McpServer
from interlock.protocol.tools import ArgumentKind, ToolSpec

if TYPE_CHECKING:
    import mcp.types

__all__ = ["McpAction", "require_same", "specs_of"]

_KEY = "interlock/key"
"""Under which name in the request's ``_meta`` a server finds the idempotency key."""
_MOST_DESCRIPTION = 4_000
_log = logging.getLogger(__name__)


async def specs_of(session: McpSession, server: McpServer) -> dict[str, ToolSpec]:
    """Return the tools that a server offers, by their names here; those that no tool can be called like are left out.

    :raises McpServerFailed: it does not start or does not answer
    :raises McpNotInstalled: the package mcp is missing
    """
    found: dict[str, ToolSpec] = {}
    for tool in await session.tools():
        try:
            spec = _spec(session.name, server, tool)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            _log.warning("the tool %r of the MCP server %s is left out: %s", tool.name, session.name, problem["msg"])
        else:
            found[spec.name] = spec
    return found


class McpAction:
    """The action of a tool that an MCP server has."""

    def __init__(self, spec: ToolSpec, session: McpSession, server: McpServer) -> None:
        self._spec = spec
        self._session = session
        self._server = server

    def complete(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        """Return ``arguments`` with the defaults that the tool's schema says, and check them against it.

        :raises ToolArgumentsInvalid: they do not fit, or the schema cannot be applied
        """
        properties = self._spec.parameters.get("properties")
        known = properties if isinstance(properties, dict) else {}
        given = {name: one.get("default") for name, one in known.items() if isinstance(one, dict)}
        completed = {**{name: value for name, value in given.items() if value is not None}, **arguments}
        finding = check_schema(self._spec.parameters, completed)
        if finding.holds is not True:
            raise ToolArgumentsInvalid(self._spec.name, [finding.evidence])
        return completed

    async def run(self, arguments: Mapping[str, Json], context: ToolContext) -> Json:
        """Have the server do it.

        :raises ToolFailed: the server was not asked, or refused the request as such
        :raises ToolUncertain: it says that something went wrong, and not how far it came
        """
        await self._check()
        import mcp.types  # noqa: PLC0415 -- the package is optional

        tool = self._spec.name.partition(".")[2]
        try:
            result = await self._session.call(tool, self.complete(arguments), {_KEY: context.key})
        except McpServerFailed as error:
            raise ToolFailed(str(error)) from error
        except mcp.MCPError as error:
            refused = {mcp.types.INVALID_PARAMS, mcp.types.METHOD_NOT_FOUND, mcp.types.INVALID_REQUEST}
            kind = ToolFailed if error.code in refused else ToolUncertain
            raise kind(f"the server answers: {error}") from error
        if result.is_error:
            raise ToolUncertain(f"the server says: {_text(result)}")
        return _outcome(result)

    async def probe(self, arguments: Mapping[str, Json], context: ToolContext) -> object:
        """Tell that there is none: MCP has no such question."""
        raise NotImplementedError(f"{self._spec.name} has no probe")

    async def _check(self) -> None:
        try:
            live = (await specs_of(self._session, self._server)).get(self._spec.name)
            require_same(self._spec, live)
        except (McpServerFailed, ToolChanged) as error:
            raise ToolFailed(str(error)) from error


def require_same(known: ToolSpec, live: ToolSpec | None) -> None:
    """Check that a tool is what the catalogue says.

    :raises ToolChanged: it is not
    """
    if live is None:
        raise ToolChanged(known.name, ())
    if differing := [field for field in ToolSpec.model_fields if getattr(known, field) != getattr(live, field)]:
        raise ToolChanged(known.name, differing)


def _spec(server_name: str, server: McpServer, tool: "mcp.types.Tool") -> ToolSpec:
    properties = tool.input_schema.get("properties")
    known: dict[str, Any] = properties if isinstance(properties, dict) else {}
    return ToolSpec(
        name=f"{server_name}.{tool.name}",
        description=(tool.description or "")[:_MOST_DESCRIPTION],
        parameters={"type": "object", "properties": {}, **tool.input_schema},
        effect=server.effects.get(tool.name, "irreversible"),
        network=True,  # nobody here knows what it does with what it is given
        outside=True,
        kinds={name: kind for name, one in known.items() if (kind := _kind(one))},
        primary=next(iter(known)) if len(known) == 1 else None,
        destinations=server.destinations.get(tool.name, ()),
    )


def _kind(schema: object) -> ArgumentKind | None:
    return "url" if isinstance(schema, dict) and schema.get("format") in {"uri", "url"} else None


def _outcome(result: "mcp.types.CallToolResult") -> Json:
    """Return structured content as it is, where there is some, and else the text."""
    if result.structured_content is not None:
        structured: Json = result.structured_content
        return structured
    return _text(result)


def _text(result: "mcp.types.CallToolResult") -> str:
    return "\n".join(_block(block.model_dump(mode="json", by_alias=True)) for block in result.content)


def _block(block: Mapping[str, Any]) -> str:
    match block:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "resource", "resource": {"text": str(text)}}:
            return text
        case {"type": "resource_link", "uri": uri}:
            return str(uri)
        case _:
            return f"[{block.get('type', 'something')} left out: only text is taken]"
