"""Why a tool did not do what it was asked, or is not there. What sets them apart is what may have happened outside.

::

    ToolError                     while a tool is called; ``nothing_changed`` says what the ledger has to know
    |-- ToolFailed                nothing was changed: the tool says so, or it only reads; may be tried again
    |-- ToolArgumentsInvalid      nothing was changed: the arguments do not fit, so the tool did not run
    |-- ToolRefused               nothing was changed: a rule stands against what the tool would have done next
    `-- ToolUncertain             nobody knows whether the effect took place
    ToolSetupError                before any tool is called
    |-- ToolMissing               no such tool
    |-- ToolNameTaken             two tools have one name
    |-- ToolModuleInvalid         a team's Python file cannot be imported
    |-- ToolDeclarationInvalid    a function marked ``@tool`` is no tool
    |-- ToolSettingsInvalid       what the team file says of tools cannot be
    |-- ToolChanged               a tool is not what it was when the job was submitted
    |-- McpNotInstalled           the package for MCP servers is not installed
    |-- McpServerFailed           an MCP server does not start, does not answer or does not speak MCP
    |-- SecretMissing             the environment variable of a secret is not set
    `-- SecretTooWeak             a secret is too short to be found in texts

No message holds a secret.
"""

from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "McpNotInstalled",
    "McpServerFailed",
    "SecretMissing",
    "SecretTooWeak",
    "ToolArgumentsInvalid",
    "ToolChanged",
    "ToolDeclarationInvalid",
    "ToolError",
    "ToolFailed",
    "ToolMissing",
    "ToolModuleInvalid",
    "ToolNameTaken",
    "ToolRefused",
    "ToolSettingsInvalid",
    "ToolSetupError",
    "ToolUncertain",
]


class ToolError(Exception):
    """A call of a tool came to no outcome."""

    nothing_changed: bool = True
    """Whether it is certain that the call changed nothing outside."""

    def __init__(self, reason: str, *, tool: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.tool = tool
        """Its name; whoever raises it inside of a tool leaves it out."""

    def __str__(self) -> str:
        return f"{self.tool}: {self.reason}" if self.tool else self.reason


class ToolFailed(ToolError):
    """The tool could not do it, and changed nothing. Tools raise it where they know that."""


class ToolRefused(ToolError):
    """A rule stands against what the tool would have done next, such as following a redirect."""


class ToolArgumentsInvalid(ToolError):
    """The arguments do not fit the tool's parameters; it did not run."""

    def __init__(self, tool: str, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        """What is wrong with which argument, one text each."""
        super().__init__(f"the arguments do not fit: {'; '.join(self.problems)}", tool=tool)


class ToolUncertain(ToolError):
    """The call ended in a way that leaves open whether its effect took place."""

    nothing_changed = False


class ToolSetupError(Exception):
    """The tools of a team cannot be had as it says."""


class ToolMissing(ToolSetupError):
    """There is no tool of that name."""

    def __init__(self, tool: str, known: Iterable[str]) -> None:
        self.tool = tool
        self.known = tuple(sorted(known))
        hint = _HINTS.get(tool) or f"there are {', '.join(self.known) or 'none at all'}"
        super().__init__(f"there is no tool {tool!r}: {hint}")


_HINTS = {
    "files.read": "name the folders that it may read in tools.files.read",
    "files.list": "name the folders that it may read in tools.files.read",
    "files.write": "name the folders that it may write to in tools.files.write",
}


class ToolNameTaken(ToolSetupError):
    """Two tools of a team have one name."""

    def __init__(self, tool: str, one: str, other: str) -> None:
        self.tool = tool
        super().__init__(f"{one} and {other} both define the tool {tool!r}: call one of them something else")


class ToolModuleInvalid(ToolSetupError):
    """A Python file of a team cannot be imported."""

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        super().__init__(f"{path} cannot be imported: {problem}")


class ToolDeclarationInvalid(ToolSetupError):
    """A function marked ``@tool`` is no tool."""

    def __init__(self, where: str, problem: str) -> None:
        self.where = where
        super().__init__(f"{where} is no tool: {problem}")


class ToolSettingsInvalid(ToolSetupError):
    """What the team file says under ``tools`` cannot be."""

    def __init__(self, where: str, problem: str) -> None:
        self.where = where
        """The path of the setting in the team file."""
        super().__init__(f"{where}: {problem}")


class ToolChanged(ToolSetupError):
    """A tool is not what it was when the job was submitted, and so not what rules and people agreed to."""

    def __init__(self, tool: str, fields: Iterable[str]) -> None:
        self.tool = tool
        self.fields = tuple(fields)
        """The fields of its ``ToolSpec`` that differ; none: it is gone."""
        what = f"differs in {', '.join(self.fields)}" if self.fields else "is gone"
        super().__init__(f"{tool!r} is not what it was when the job was submitted: it {what}; submit a new job")


class McpNotInstalled(ToolSetupError):
    """The package that speaks with MCP servers is not installed."""

    def __init__(self, server: str) -> None:
        self.server = server
        super().__init__(f"the MCP server {server!r} needs the package mcp: pip install 'interlock[mcp]'")


class McpServerFailed(ToolSetupError):
    """An MCP server does not start, does not answer in time or does not speak MCP."""

    def __init__(self, server: str, problem: str) -> None:
        self.server = server
        super().__init__(f"the MCP server {server!r} {problem}")


class SecretMissing(ToolSetupError):
    """The environment variable that holds a secret is not set, or empty."""

    def __init__(self, name: str, variable: str) -> None:
        self.name = name
        self.variable = variable
        super().__init__(f"the secret {name!r} is missing: set the environment variable {variable}")


class SecretTooWeak(ToolSetupError):
    """A secret could not be kept out of texts without spoiling them."""

    def __init__(self, name: str, problem: str) -> None:
        self.name = name
        super().__init__(f"the secret {name!r} {problem}")
