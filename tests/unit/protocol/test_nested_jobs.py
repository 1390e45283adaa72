"""Jobs within jobs: which orders reach them, and how many of them a job has at once."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.protocol.story import Story, step

from interlock.protocol.commands import Assign
from interlock.protocol.control import (
    AgentScope,
    AllScope,
    ControlOrder,
    JobScope,
    Order,
    TeamScope,
    control_subject,
    stop_of_job,
)
from interlock.protocol.lineage import child_job
from interlock.protocol.messages import Bounds, JobSubmitted
from interlock.protocol.team import Limits, Team

_AT = datetime(2026, 1, 1, tzinfo=UTC)
_CHILD = child_job("paper-1", "s", 1)


def _order(scope: Any, *, stop: bool = True) -> dict[str, Order]:
    order = Order(1, ControlOrder(id="o", stop=stop, scope=scope, at=_AT))
    return {control_subject("n", scope): order}


@pytest.mark.parametrize(
    ("scope", "reaches"),
    [
        (AllScope(), True),
        (JobScope(job="paper-1"), True),
        (JobScope(job=_CHILD), True),
        (JobScope(job="paper"), False),
        (JobScope(job=child_job("paper-1", "s", 2)), False),
        (TeamScope(team="desk"), True),
        (TeamScope(team="paper"), True),
        (TeamScope(team="other"), False),
        (AgentScope(team="paper", agent="writers"), True),
        (AgentScope(team="paper", agent="painters"), False),
        (AgentScope(team="desk", agent="writers"), False),
    ],
)
def test_which_orders_reach_a_child(scope: Any, reaches: bool) -> None:
    """Those for it, for a job or team that it is within, and for the agent that it does the work of."""
    team = Team.model_validate({"interlock": 1, "team": "desk", "agents": {"w": {"kind": "worker"}}})
    bounds = (Bounds(team="paper", agent="writers"),)
    child = JobSubmitted(id="m", ns="n", job=_CHILD, at=_AT, team=team, goal="", parent="paper-1", bounds=bounds)
    assert (stop_of_job(_order(scope), child) is not None) == reaches
    assert stop_of_job(_order(scope, stop=False), child) is None


def _nested(span: int) -> Story:
    story = Story((step("many", items=True), step("one")), items={"many": 5})
    agents = {name: agent.model_copy(update={"kind": "team"}) for name, agent in story.team.agents.items()}
    agents["v"] = story.team.agents["v"]
    story.team = story.team.model_copy(update={"agents": agents, "limits": Limits(managers_span=span)})
    assert story.state.submitted is not None
    story.state = replace(story.state, submitted=story.state.submitted.model_copy(update={"team": story.team}))
    return story


def test_a_job_has_no_more_children_at_once_than_its_span() -> None:
    """Further tasks that teams do begin only when others are closed."""
    story = _nested(2).go_on()
    assert len(list(story.state.open_tasks())) == 2
    assert not [command for command in story.decide() if isinstance(command, Assign)]
    first = next(iter(story.state.open_tasks())).id
    story.attempt(first, "pass")
    assert len(list(story.state.open_tasks())) == 2
