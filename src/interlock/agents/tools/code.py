"""The tools ``python.run`` and ``shell.run``: code and commands, always in a sandbox and never anywhere else."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from interlock.agents.tools.errors import ToolFailed
from interlock.agents.tools.isolation import Mount, MountRefused, SandboxLimits, SandboxMissing, SandboxResult
from interlock.agents.tools.tool import ToolContext, tool
from interlock.protocol.base import Json
from interlock.protocol.team import CodeTools
from interlock.protocol.tools import EffectClass

__all__ = ["Code"]

_MOST_SOURCE = 200_000
_MOST_TEXT = 40_000
_MIB = 1024 * 1024


class Code:
    """The code tools of one team."""

    def __init__(self, settings: CodeTools, base: Path) -> None:
        """Resolve the folders now.

        :param base: the folder of the team file
        """
        writable = tuple(Mount((base / folder).resolve(), writable=True) for folder in settings.write)
        self._mounts = (*(Mount((base / folder).resolve()) for folder in settings.read), *writable)
        self._folder = next((mount.path for mount in (*writable, *self._mounts)), None)
        self._limits = SandboxLimits(
            seconds=settings.seconds,
            cpu_seconds=max(1, round(settings.seconds)),
            memory_bytes=settings.memory * _MIB,
        )
        self.effect: EffectClass = "once" if writable else "read"
        """Without a folder to write to, nothing that it does is left: no network, no other process, no file."""
        self.outside = bool(self._mounts)
        """Without a folder to read from, all that comes out is made of what went in."""

    @tool(effect="once", name="python.run", primary="code")
    async def python(
        self, code: Annotated[str, Field(max_length=_MOST_SOURCE)], context: ToolContext
    ) -> dict[str, Json]:
        """Run Python code without network; what it prints is returned."""
        return await self._run(["python3", "-I", "-"], context, code)

    @tool(effect="once", name="shell.run", kinds={"command": "command"}, primary="command")
    async def shell(
        self, command: Annotated[str, Field(max_length=_MOST_SOURCE // 2)], context: ToolContext
    ) -> dict[str, Json]:
        """Run a shell command without network; what it prints is returned."""
        return await self._run(["sh", "-c", command], context)

    async def _run(self, command: list[str], context: ToolContext, stdin: str = "") -> dict[str, Json]:
        """Run ``command``; a sandbox that fails in the middle is neither of the errors below.

        :raises ToolFailed: nothing was run
        """
        if any("\0" in part for part in command):
            raise ToolFailed("a command holds no NUL character")
        try:
            sandbox = await context.sandbox()
            result = await sandbox.run(
                command,
                stdin=stdin.encode("utf-8", "replace"),
                mounts=self._mounts,
                folder=self._folder,
                limits=self._limits,
            )
        except (SandboxMissing, MountRefused) as error:
            raise ToolFailed(str(error)) from error
        return self._told(result)

    def _told(self, result: SandboxResult) -> dict[str, Json]:
        told: dict[str, Json] = {"exit": result.exit_status, "stdout": _text(result.stdout)}
        if result.stderr:
            told["stderr"] = _text(result.stderr)
        if result.timed_out:
            told["ended"] = f"after {self._limits.seconds:g} s, which is its time"
        elif result.truncated:
            told["ended"] = f"for writing more than {self._limits.output_bytes} bytes"
        elif result.exceeded:
            told["ended"] = f"for using more {result.exceeded} than it may"
        return told


def _text(output: bytes) -> str:
    """Return ``output`` as text; of a long one the beginning and the end."""
    text = output.decode("utf-8", "replace")
    if len(text) <= _MOST_TEXT:
        return text
    half = _MOST_TEXT // 2
    return f"{text[:half]}\n[{len(text) - _MOST_TEXT} characters left out]\n{text[-half:]}"
