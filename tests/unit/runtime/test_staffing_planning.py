"""Which processes and models a team needs whose plan is yet to be made."""

from typing import Any

import pytest

from interlock.protocol.team import Team
from interlock.runtime.address import BrokerAddress
from interlock.runtime.staffing import models_used, process_configs, queues_of, tool_names

_AGENTS: dict[str, Any] = {
    "boss": {"kind": "manager", "model": {"name": "large"}},
    "reader": {"kind": "worker", "tools": ["files.read", {"tool": "web.fetch", "pin": {"url": "https://example.org"}}]},
    "clerk": {"kind": "worker", "tools": ["files.list"]},
    "checker": {"kind": "verifier"},
}
_STEP = {"step": "read", "agent": "reader", "do": "x", "output": {"a": "string"}, "tools": ["files.read"]}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no model named by the environment."""
    monkeypatch.delenv("INTERLOCK_MODEL_URL", raising=False)


def team(**more: Any) -> Team:
    """Return a team of these agents."""
    return Team.model_validate({"interlock": 1, "team": "t", "agents": _AGENTS, **more})


def test_all_agents_may_be_used_with_all_their_tools() -> None:
    """Without a plan every worker and verifier gets processes, with every tool that it has."""
    configs = process_configs(team(), "main", BrokerAddress("nats://127.0.0.1:4222", "u", "p"), job="t-1", workers=1)
    assert [config.name for config in configs] == ["manager", "reader-1", "clerk-1", "checker-1"]
    assert queues_of(team()) == [("assigned", "clerk@t"), ("assigned", "reader@t"), ("result", "checker@t")]
    assert tool_names(team()) == {"files.read", "web.fetch", "files.list"}
    assert tool_names(team(), "clerk") == {"files.list"}
    assert configs[3].model is not None, "whether it has to judge shows later"


def test_the_manager_s_model_is_used() -> None:
    """The manager's model is among those used, its own or the team's, and also where the file names no manager."""
    assert [(name, one.name) for name, one in models_used(team())] == [
        ("boss", "large"),
        ("reader", None),
        ("clerk", None),
        ("checker", None),
    ]
    unnamed = {name: one for name, one in _AGENTS.items() if name != "boss"}
    assert models_used(team(agents=unnamed, model={"name": "small"}))[0][0] == "manager"


def test_a_plan_that_may_be_made_anew_needs_everybody() -> None:
    """With a plan only its agents and tools count, unless a step of it may lead to another plan."""
    assert [name for name, _ in models_used(team(plan=[_STEP]))] == ["reader"]
    assert tool_names(team(plan=[_STEP])) == {"files.read"}
    replanned = team(plan=[{**_STEP, "on_failure": "replan"}])
    assert [name for name, _ in models_used(replanned)] == ["boss", "reader", "checker", "clerk"]
    assert tool_names(replanned) == {"files.read", "web.fetch", "files.list"}
