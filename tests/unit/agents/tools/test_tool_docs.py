"""docs/tools.md: its example is a module that can be loaded, and its settings are settings."""

import re
from pathlib import Path

from ruamel.yaml import YAML
from tests.modules import ROOT
from tests.unit.agents.tools.calls import context_of_call

from interlock.agents.tools.catalogue import catalogue, open_tools
from interlock.agents.tools.secrets import Secrets
from interlock.agents.tools.tool import NOT_DONE
from interlock.protocol.team import Agent, SecretSource, Step, Team, ToolSources

PAGE = (ROOT / "docs" / "tools.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


async def test_the_example_works(tmp_path: Path) -> None:
    """The tools of the page are found by the names that it says, and do what it says."""
    [source] = blocks("python")
    (tmp_path / "tickets.py").write_text(source)
    team = Team(
        interlock=1,
        team="t",
        agents={"a": Agent(kind="worker")},
        plan=(Step(step="s", agent="a", do="x"),),
        tools=ToolSources(modules=("tickets.py",)),
        secrets={"TRACKER": SecretSource(env="TRACKER_TOKEN")},
    )
    known = catalogue(team, tmp_path)
    wanted = [known["tickets.create"], known["tickets.count"]]
    async with open_tools(team.tools, tmp_path, wanted, Secrets({"TRACKER": "long enough"})) as tools:
        create, count = tools["tickets.create"], tools["tickets.count"]
        arguments = create.complete({"title": "leak", "queue": "home"})
        assert arguments == {"title": "leak", "queue": "home", "urgent": False}
        assert await create.probe(arguments, context_of_call(key="k-1")) is NOT_DONE
        assert await create.call(arguments, context_of_call(key="k-1")) == {"ticket": "T-1"}
        assert await create.probe(arguments, context_of_call(key="k-1")) == "T-1"
        assert await count.call({}, context_of_call()) == 1


def test_the_settings_are_settings() -> None:
    """Every piece of a team file on the page has the form that team files have."""
    pieces = [YAML(typ="safe").load(block) for block in blocks("yaml")]
    assert len(pieces) == 3
    for piece in pieces:
        ToolSources.model_validate(piece["tools"])
        for source in piece.get("secrets", {}).values():
            SecretSource.model_validate(source)
