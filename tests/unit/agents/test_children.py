"""The job that a task of a team agent is: everything narrows on the way down, and its end says no more than is so."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from interlock.agents.authority import Authority, plan_objections
from interlock.agents.children import Home, NoSuchTeam, child_of, ended, teams_of, too_deep
from interlock.agents.grants import Labels
from interlock.protocol.base import Json
from interlock.protocol.control import NO_POLICY
from interlock.protocol.lineage import child_job
from interlock.protocol.messages import (
    Allowance,
    CriterionVerdict,
    Feedback,
    Grant,
    JobClosed,
    JobSubmitted,
    TaskAssigned,
)
from interlock.protocol.permissions import Permissions
from interlock.protocol.state import JobState
from interlock.protocol.taint import begun
from interlock.protocol.team import Budget, Team
from interlock.protocol.tools import ToolGrant, ToolSpec

_AT = datetime(2026, 1, 1, tzinfo=UTC)
_PUT = ToolSpec(
    name="box.put",
    effect="idempotent",
    outside=False,
    parameters={"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]},
)


def _inner(**more: Any) -> Team:
    return Team.model_validate(
        {
            "interlock": 1,
            "team": "inner",
            "agents": {"w": {"kind": "worker", "tools": ["box.put"]}, "v": {"kind": "verifier"}},
            "plan": [{"step": "s", "agent": "w", "do": "do {{ goal }}", "tools": ["box.put"]}],
            "permissions": {"allow": ["box.*"]},
            **more,
        }
    )


def _parent(inner: Team, job: str = "p", **more: Any) -> JobSubmitted:
    outer = Team.model_validate(
        {
            "interlock": 1,
            "team": "outer",
            "agents": {"desk": {"kind": "team", "team": inner}, "v": {"kind": "verifier"}},
            "plan": [{"step": "s", "agent": "desk", "do": "go"}],
            **more,
        }
    )
    return JobSubmitted(id="m1", ns="n", job=job, at=_AT, team=outer, goal="go", base="/srv/outer")


def _assigned(**more: Any) -> TaskAssigned:
    given: dict[str, Any] = {"grant": Grant(seconds=60), "instruction": "write it", **more}
    return TaskAssigned(
        id="m2",
        ns="n",
        job="p",
        task="s",
        attempt=2,
        at=_AT,
        step="s",
        role="desk@outer",
        verifier="v@outer",
        **given,
    )


def _child(parent: JobSubmitted, assignment: TaskAssigned) -> JobSubmitted:
    return child_of(parent, assignment, "desk", Home(tools=(_PUT,), base="/srv/inner"), message_id="m3", at=_AT)


def test_a_child_is_known_by_its_attempt() -> None:
    """Its id, parent, goal and inputs come from the assignment; the team from the job, the tools from its own home."""
    inner = _inner(inputs={"topic": {"type": "string"}, "tone": {"type": "string", "default": "dry"}})
    child = _child(_parent(inner), _assigned(inputs={"topic": "tea"}))
    assert (child.job, child.parent) == (child_job("p", "s", 2), "p")
    assert (child.goal, child.inputs) == ("write it", {"topic": "tea", "tone": "dry"})
    assert (child.team, child.tools, child.base) == (inner, (_PUT,), "/srv/inner")


def test_a_child_has_the_narrower_of_time_budget_and_autonomy() -> None:
    """Neither its own team nor the task can give it more than the other does."""
    inner = _inner(budget={"tokens": 500, "calls": 9}, autonomy="ask")
    allowances = (Allowance(job="p", tokens=1000), Allowance(job="p", step="s", calls=3))
    assignment = _assigned(
        deadline=_AT + timedelta(seconds=90),
        grant=Grant(seconds=60, autonomy="bounded"),
        allowances=allowances,
    )
    child = _child(_parent(inner), assignment)
    assert child.budget == Budget(tokens=500, calls=3)
    assert child.deadline == _AT + timedelta(seconds=60)
    assert child.autonomy == "ask"
    assert child.allowances == allowances
    sooner = assignment.model_copy(update={"deadline": _AT + timedelta(seconds=5)})
    assert _child(_parent(inner), sooner).deadline == _AT + timedelta(seconds=5)
    cautious = assignment.model_copy(update={"grant": Grant(seconds=60, autonomy="suggest")})
    assert _child(_parent(inner), cautious).autonomy == "suggest"


def test_a_redo_is_told_why() -> None:
    """The child of a second attempt knows the objections to the first."""
    objection = CriterionVerdict(criterion="words", holds=False, evidence="41 words", change="use 40")
    child = _child(_parent(_inner()), _assigned(feedback=(Feedback(attempt=1, criteria=(objection,)),)))
    assert child.goal.splitlines()[0] == "write it"
    assert child.goal.endswith("- words: 41 words use 40")


@pytest.mark.parametrize(
    ("outer", "step", "outcome"),
    [
        ({}, {}, "go"),
        ({"permissions": {"deny": ["box.*"]}}, {}, "refuse"),
        ({"permissions": {"allow": ["files.*"]}}, {}, "refuse"),
        ({"permissions": {"ask": ["box.*"]}}, {}, "ask"),
        ({}, {"deny": ["box.put"]}, "refuse"),
        ({"principles": [{"never": "box.*"}]}, {}, "refuse"),
    ],
)
def test_what_is_laid_down_around_a_team_binds_it(outer: dict[str, Any], step: dict[str, Any], outcome: str) -> None:
    """Rules and principles of the outer team, and rules of its step, narrow what the inner team allows itself."""
    grant = Grant(seconds=60, permissions=Permissions.model_validate(step))
    child = _child(_parent(_inner(), **outer), _assigned(grant=grant))
    inside = TaskAssigned(
        **_assigned(grant=Grant(seconds=9, tools=(ToolGrant(tool="box.put"),))).model_dump(
            exclude={"job", "role", "verifier"}
        ),
        job=child.job,
        role="w@inner",
        verifier="v@inner",
    )
    authority = Authority(child, inside, "w")
    judged = authority.judge(NO_POLICY, "box.put", {"what": "a"}, begun("go", "go", ()), used=Counter())
    assert judged.outcome == outcome, judged.reason
    assert bool(plan_objections(child, NO_POLICY, child.team.plan)) == (outcome == "refuse")


def test_a_grandchild_is_bound_by_both_around_it() -> None:
    """The bounds add up on the way down, the outermost first."""
    lowest = _inner().model_copy(update={"team": "lowest"})
    middle = Team.model_validate({**_parent(lowest).team.model_dump(), "team": "inner"})
    child = _child(_parent(middle), _assigned())
    grandchild = _child(child, _assigned())
    assert [(one.team, one.agent, one.base) for one in grandchild.bounds] == [
        ("outer", "desk", "/srv/outer"),
        ("inner", "desk", "/srv/inner"),
    ]
    assert [team.team for team in teams_of(_parent(middle).team)] == ["outer", "inner", "lowest"]
    assert not too_deep(_parent(middle), child.job)
    shallow = _parent(middle, limits={"depth": 1})
    assert "level 2" in too_deep(shallow, child.job)


def test_text_from_outside_stays_so_on_the_way_down() -> None:
    """What a tainted task gives to a child taints the tasks of the child."""
    child = _child(_parent(_inner()), _assigned(taint=("items of s",)))
    state = JobState(submitted=child)
    assert Labels(child.team).of_task(state, child.team.plan[0], "s") == ("items of s",)
    assert Labels(child.team).of_template(state, child.team.plan[0], "{{ goal }}") == ("items of s",)


def test_an_agent_that_is_no_team_has_no_child() -> None:
    """It is told which agent of which team was meant to be one."""
    with pytest.raises(NoSuchTeam, match="agent v of team outer"):
        child_of(_parent(_inner()), _assigned(), "v", Home(), message_id="m3", at=_AT)


_SCHEMA: dict[str, Json] = {"type": "object", "properties": {"line": {"type": "string"}}}


@pytest.mark.parametrize(
    ("result", "schema", "output"),
    [
        ("text", None, "text"),
        ({"a": 1}, None, '{"a": 1}'),
        ({"line": "x"}, _SCHEMA, {"line": "x"}),
        ('{"line": "x"}', _SCHEMA, {"line": "x"}),
        ("plain", _SCHEMA, {"line": "plain"}),
        (None, _SCHEMA, None),
        ("plain", {"properties": {"a": {}, "b": {}}}, "plain"),
    ],
)
def test_a_result_is_brought_into_the_form_that_is_asked_for(
    result: Json, schema: dict[str, Json] | None, output: Json
) -> None:
    """As far as that says the same; the verifier sees to the rest."""
    closed = JobClosed(id="m", ns="n", job="p:1", at=_AT, status="succeeded", result=result)
    came_to = ended(closed, schema)
    assert (came_to.status, came_to.output) == ("done", output)


@pytest.mark.parametrize("status", ["partial", "failed", "killed"])
def test_what_is_not_whole_is_no_result(status: Any) -> None:
    """Then the attempt has given up, with what the child says of it."""
    closed = JobClosed(id="m", ns="n", job="p:1", at=_AT, status=status, result="half", reason="no time")
    came_to = ended(closed, None)
    assert (came_to.status, came_to.reason) == ("gave_up", f"job p:1 ended {status}: no time")
