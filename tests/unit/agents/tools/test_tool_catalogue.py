"""The catalogue of a team's tools: built-in ones and those of its modules, known without running any."""

from pathlib import Path

import pytest
from tests.unit.agents.tools.calls import context_of_call

from interlock.agents.tools.catalogue import catalogue, discover, open_tools
from interlock.agents.tools.errors import (
    SecretMissing,
    ToolChanged,
    ToolDeclarationInvalid,
    ToolMissing,
    ToolModuleInvalid,
    ToolNameTaken,
    ToolSetupError,
)
from interlock.agents.tools.secrets import NO_SECRETS, Secrets
from interlock.protocol.messages import JobSubmitted
from interlock.protocol.team import Agent, FilesTools, McpServer, SecretSource, Step, Team, ToolSources
from interlock.protocol.tools import ToolSpec

TICKETS = '''
from __future__ import annotations
from dataclasses import dataclass
from typing import Annotated
from interlock.agents.tools.tool import Key, Secret, tool

@dataclass
class Ticket:
    title: str
    number: int

@tool(effect="once", network=True, outside=False)
def create(title: str, key: Key, token: Annotated[str, Secret("TRACKER")]) -> Ticket:
    """Open a ticket."""
    return Ticket(f"{title} {token}", 7)

@tool(effect="read", name="tracker.find")
async def find(words: list[str]) -> list[Ticket]:
    return [Ticket(word, number) for number, word in enumerate(words)]

def helper() -> None:
    raise AssertionError
'''


def team_of(*modules: str, files: FilesTools | None = None, mcp: dict[str, McpServer] | None = None) -> Team:
    return Team(
        interlock=1,
        team="t",
        agents={"a": Agent(kind="worker")},
        plan=(Step(step="s", agent="a", do="x"),),
        tools=ToolSources(modules=modules, files=files or FilesTools(), mcp=mcp or {}),
        secrets={"TRACKER": SecretSource(env="TRACKER_TOKEN")},
    )


def written(base: Path, source: str, name: str = "tickets.py") -> str:
    (base / name).write_text(source)
    return name


def test_a_team_without_settings_has_few_tools(tmp_path: Path) -> None:
    """Pages can be fetched and code run; files are there only where a folder is open."""
    assert sorted(catalogue(team_of(), tmp_path)) == ["python.run", "shell.run", "web.fetch"]
    reading = team_of(files=FilesTools(read=("docs",)))
    assert {"files.read", "files.list"} == {*catalogue(reading, tmp_path)} - {*catalogue(team_of(), tmp_path)}
    assert "files.write" in catalogue(team_of(files=FilesTools(write=("out",))), tmp_path)


async def test_modules_give_their_tools(tmp_path: Path) -> None:
    """A function is called like its file and itself, or as it says; annotations may be texts; secrets are not read."""
    team = team_of(written(tmp_path, TICKETS))
    specs = catalogue(team, tmp_path)
    assert (specs["tickets.create"].effect, specs["tickets.create"].outside) == ("once", False)
    assert specs["tickets.create"].primary == "title"
    assert specs["tracker.find"].parameters["properties"] == {"words": {"type": "array", "items": {"type": "string"}}}
    assert await discover(team, tmp_path, NO_SECRETS) == specs
    secrets = Secrets({"TRACKER": "canary-42-tracker"})
    async with open_tools(team.tools, tmp_path, [specs["tickets.create"], specs["tracker.find"]], secrets) as tools:
        made = await tools["tickets.create"].call({"title": "leak"}, context_of_call())
        assert made == {"title": "leak [secret TRACKER]", "number": 7}
        found = await tools["tracker.find"].call({"words": ["a"]}, context_of_call())
        assert found == [{"title": "a", "number": 0}]


def test_the_catalogue_survives_the_log(tmp_path: Path) -> None:
    """A spec that went through JSON is equal to what it was."""
    team = team_of(written(tmp_path, TICKETS), files=FilesTools(write=("out",)))
    for spec in catalogue(team, tmp_path).values():
        assert ToolSpec.model_validate_json(spec.model_dump_json()) == spec
    assert "tools" in JobSubmitted.model_fields


async def test_a_module_that_changed_since_is_not_opened(tmp_path: Path) -> None:
    """A tool whose code says something else than when the job was submitted is refused; another edit does no harm."""
    team = team_of(written(tmp_path, TICKETS))
    spec = catalogue(team, tmp_path)["tickets.create"]
    secrets = Secrets({"TRACKER": "canary-42-tracker"})
    written(tmp_path, TICKETS.replace("{title} {token}", "new {title}"))
    async with open_tools(team.tools, tmp_path, [spec], secrets) as tools:
        made = await tools["tickets.create"].call({"title": "leak"}, context_of_call())
        assert made == {"title": "new leak", "number": 7}
    for field, old, new in [
        ("effect", 'effect="once"', 'effect="read"'),
        ("description", "Open a ticket", "Close a ticket"),
        ("parameters", "title: str, key", "title: int, key"),
    ]:
        written(tmp_path, TICKETS.replace(old, new))
        with pytest.raises(ToolChanged, match=f"differs in {field}"):
            async with open_tools(team.tools, tmp_path, [spec], secrets):
                pass
    written(tmp_path, "")
    with pytest.raises(ToolMissing, match=r"no tool 'tickets\.create'"):
        async with open_tools(team.tools, tmp_path, [spec], secrets):
            pass


@pytest.mark.parametrize(
    ("source", "error", "problem"),
    [
        ("import nowhere_to_be_found", ToolModuleInvalid, r"mine\.py cannot be imported: line 1: ModuleNotFoundError"),
        ("x = 1\ny = (", ToolModuleInvalid, "SyntaxError"),
        ("x = 1\nraise SystemExit(3)", ToolModuleInvalid, "line 2: SystemExit: 3"),
        (
            "from interlock.agents.tools.tool import tool\n@tool\ndef f(): ...",
            ToolModuleInvalid,
            "line 2: TypeError.*each tool says what it changes",
        ),
        (
            "from interlock.agents.tools.tool import tool\n@tool(network=True)\ndef f(): ...",
            ToolModuleInvalid,
            "effect.*each tool says what it changes",
        ),
        (
            "from interlock.agents.tools.tool import tool\n@tool(effect='read')\ndef f(x): ...",
            ToolDeclarationInvalid,
            r"f in .*mine\.py is no tool: the parameter 'x' needs a type",
        ),
        (
            "from interlock.agents.tools.tool import tool\n@tool(effect='read')\ndef f(x: 'Nowhere'): ...",
            ToolDeclarationInvalid,
            "its annotations cannot be read",
        ),
        (
            "from interlock.agents.tools.tool import tool\n@tool(effect='read', name='files.read')\ndef f(): ...",
            ToolNameTaken,
            r"'files\.read'",
        ),
        (
            "from interlock.agents.tools.tool import tool\n@tool(effect='read', name='github.f')\ndef f(): ...",
            ToolNameTaken,
            r"'github\.f'",
        ),
        (
            (
                "from interlock.agents.tools.tool import tool\n"
                "@tool(effect='read', name='a.b')\ndef f(): ...\n@tool(effect='read', name='a.b')\ndef g(): ..."
            ),
            ToolNameTaken,
            r"mine\.py and mine\.py both define the tool 'a\.b'",
        ),
    ],
)
def test_modules_that_cannot_be_had(source: str, error: type[ToolSetupError], problem: str, tmp_path: Path) -> None:
    """A mistake in a module is an error when the team is loaded, with the file, the line and what would be right."""
    team = team_of(written(tmp_path, source, "mine.py"), mcp={"github": McpServer(command=("x",))})
    with pytest.raises(error, match=f"(?s){problem}"):
        catalogue(team, tmp_path)


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    """So is a file that is missing."""
    with pytest.raises(ToolModuleInvalid, match=r"gone\.py cannot be imported: No such file"):
        catalogue(team_of("gone.py"), tmp_path)


def test_imported_tools_are_not_the_modules_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that a module imports from elsewhere is not offered twice, nor under another name."""
    written(tmp_path, TICKETS, "shared_tools_of_a_test.py")
    monkeypatch.syspath_prepend(tmp_path)
    team = team_of(written(tmp_path, "from shared_tools_of_a_test import create, find", "mine.py"))
    assert "mine.create" not in catalogue(team, tmp_path)
    assert "tracker.find" not in catalogue(team, tmp_path)


def test_missing_tools_are_said_with_what_to_do() -> None:
    """A file tool that is missing needs a folder; of others the known ones are listed."""
    assert "tools.files.write" in str(ToolMissing("files.write", []))
    assert "there are a.b, c.d" in str(ToolMissing("x.y", ["c.d", "a.b"]))
    assert "TRACKER_TOKEN" in str(SecretMissing("TRACKER", "TRACKER_TOKEN"))
