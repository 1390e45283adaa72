"""``python.run`` and ``shell.run`` in a real sandbox, and never without one."""

from pathlib import Path

import pytest
from tests.unit.agents.tools.calls import context_of_call

from interlock.agents.tools.calling import Tool
from interlock.agents.tools.catalogue import open_tools
from interlock.agents.tools.code import Code
from interlock.agents.tools.errors import ToolArgumentsInvalid, ToolFailed, ToolUncertain
from interlock.agents.tools.functions import function_tool
from interlock.agents.tools.isolation import Sandbox, SandboxFailed, SandboxMissing
from interlock.agents.tools.secrets import NO_SECRETS
from interlock.agents.tools.tool import ToolContext
from interlock.protocol.base import Json
from interlock.protocol.team import CodeTools, ToolSources
from interlock.runtime.sandbox import open_sandbox


def code_tools(base: Path, settings: CodeTools) -> tuple[Tool, Tool]:
    code = Code(settings, base)
    python = function_tool(code.python, NO_SECRETS, effect=code.effect, outside=code.outside)
    return python, function_tool(code.shell, NO_SECRETS, effect=code.effect, outside=code.outside)


@pytest.fixture
async def sandboxed(tmp_path: Path) -> ToolContext:
    """Return the context of a call on a machine with a sandbox."""
    try:
        await open_sandbox()
    except SandboxMissing as error:
        pytest.skip(str(error))
    return context_of_call(tmp_path, sandbox=open_sandbox)


async def ran(tool: Tool, context: ToolContext, text: str) -> dict[str, Json]:
    assert tool.spec.primary is not None
    outcome = await tool.call({tool.spec.primary: text}, context)
    assert isinstance(outcome, dict)
    return outcome


@pytest.mark.parametrize(
    ("settings", "effect", "outside"),
    [
        (CodeTools(), "read", False),
        (CodeTools(read=("docs",)), "read", True),
        (CodeTools(write=("out",)), "once", True),
    ],
)
async def test_effect_follows_from_what_can_be_reached(
    settings: CodeTools, effect: str, outside: bool, tmp_path: Path
) -> None:
    """Code that can write to no folder changes nothing outside; code that can read one returns what stands there."""
    for tool in code_tools(tmp_path, settings):
        assert (tool.spec.effect, tool.spec.outside, tool.spec.network) == (effect, outside, False)
    assert code_tools(tmp_path, settings)[1].spec.kinds == {"command": "command"}


async def test_code_and_commands_run_inside(sandboxed: ToolContext, tmp_path: Path) -> None:
    """What they print and how they end is returned; a folder to write to keeps what they wrote."""
    (tmp_path / "out").mkdir()
    (tmp_path / "secret.txt").write_text("canary")
    python, shell = code_tools(tmp_path, CodeTools(write=("out",)))
    assert await ran(python, sandboxed, "print(6 * 7); open('x.txt', 'w').write('é')") == {"exit": 0, "stdout": "42\n"}
    assert (tmp_path / "out" / "x.txt").read_text() == "é"
    failed = await ran(shell, sandboxed, "cat x.txt; cat ../secret.txt; exit 3")
    assert (failed["exit"], failed["stdout"]) == (3, "é")
    assert "canary" not in str(failed)
    raised = await ran(python, sandboxed, "raise ValueError('broken')")
    assert raised["exit"] == 1
    assert "ValueError: broken" in str(raised["stderr"])


async def test_runs_are_bounded(sandboxed: ToolContext, tmp_path: Path) -> None:
    """Time and output have ends, and it is said which one was reached."""
    python, shell = code_tools(tmp_path, CodeTools(seconds=2))
    assert (await ran(shell, sandboxed, "sleep 60"))["ended"] == "after 2 s, which is its time"
    much = await ran(python, sandboxed, "while True: print('x' * 1000)")
    assert "for writing more than" in str(much["ended"])
    assert len(str(much["stdout"])) < 50_000
    assert "characters left out" in str(much["stdout"])


async def test_nothing_runs_without_a_sandbox(tmp_path: Path) -> None:
    """On a machine without a sandbox nothing is run at all."""
    for tool, text in zip(
        code_tools(tmp_path, CodeTools(write=(".",))), ("open('x', 'w')", f"touch {tmp_path}/x"), strict=True
    ):
        with pytest.raises(ToolFailed, match="no sandbox works here"):
            await ran(tool, context_of_call(), text)
    assert not (tmp_path / "x").exists()


async def test_a_folder_that_cannot_be_shown_means_that_nothing_ran(sandboxed: ToolContext, tmp_path: Path) -> None:
    """A folder of the team file that is not there is said, and nothing was changed."""
    _, shell = code_tools(tmp_path, CodeTools(write=("missing",)))
    with pytest.raises(ToolFailed, match="missing cannot be shown"):
        await ran(shell, sandboxed, "true")


async def test_a_sandbox_that_fails_leaves_it_open(tmp_path: Path) -> None:
    """If something ends the sandbox in the middle, what was written to folders is not known."""

    async def failing() -> Sandbox:
        raise SandboxFailed("bubblewrap", "it was killed")

    for settings, error in ((CodeTools(write=(".",)), ToolUncertain), (CodeTools(), ToolFailed)):
        python, _ = code_tools(tmp_path, settings)
        with pytest.raises(error, match="it was killed"):
            await ran(python, context_of_call(sandbox=failing), "1")


async def test_what_is_no_command_is_refused(tmp_path: Path) -> None:
    """A NUL character, or far too much text, is no command."""
    _, shell = code_tools(tmp_path, CodeTools())
    with pytest.raises(ToolFailed, match="NUL"):
        await ran(shell, context_of_call(), "echo \0")
    with pytest.raises(ToolArgumentsInvalid, match="at most"):
        await ran(shell, context_of_call(), "x" * 1_000_000)


async def test_they_are_opened_for_a_team(tmp_path: Path) -> None:
    """The catalogue knows them by what the team file opens."""
    python, shell = code_tools(tmp_path, CodeTools())
    async with open_tools(ToolSources(), tmp_path, [python.spec, shell.spec], NO_SECRETS) as tools:
        assert sorted(tools) == ["python.run", "shell.run"]
