"""What an assignment grants, and what in it comes from outside."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpds import HashTrieMap

from interlock.agents.grants import Labels, grant_of, pinned_texts, uses_of
from interlock.agents.templates import TemplateError
from interlock.protocol.base import Json
from interlock.protocol.messages import JobSubmitted, TaskResult
from interlock.protocol.state import Attempt, JobState, Phase, StepState, TaskState
from interlock.protocol.team import Agent, Step, Team
from interlock.protocol.tools import Pin, ToolGrant

_AT = datetime(2026, 1, 1, tzinfo=UTC)
_INPUTS = {
    "page": {"type": "string", "outside": True},
    "name": {"type": "string"},
    "files": {"type": "files"},
    "own": {"type": "files", "outside": False},
}


def team_of(*steps: Mapping[str, Any], tools: Sequence[Any] = ()) -> Team:
    """Return a team with these steps and inputs of each kind."""
    return Team.model_validate(
        {
            "interlock": 1,
            "team": "t",
            "agents": {"w": {"kind": "worker", "tools": list(tools)}, "v": {"kind": "verifier"}},
            "inputs": _INPUTS,
            "plan": [{"agent": "w", "do": "go", **step} for step in steps],
        }
    )


def state_of(team: Team, taints: Mapping[str, Sequence[Sequence[str]]] | None = None) -> JobState:
    """Return the state of a job in which the attempts of tasks have given results with these labels."""
    submitted = JobSubmitted(
        id="m", ns="n", job="j", at=_AT, team=team, goal="g", inputs=dict.fromkeys(_INPUTS, "x"), autonomy="ask"
    )
    tasks = {task: _task(task, attempts) for task, attempts in (taints or {}).items()}
    closed = {name: sum(one.step == name for one in tasks.values()) for name in (step.step for step in team.plan)}
    steps = {
        step.step: StepState(step, size=max(1, closed[step.step]), accepted=closed[step.step]) for step in team.plan
    }
    order = tuple(step.step for step in team.plan)
    return JobState(submitted=submitted, steps=HashTrieMap(steps), tasks=HashTrieMap(tasks), order=order)


def _task(task: str, attempts: Sequence[Sequence[str]]) -> TaskState:
    step, _, index = task.partition(":")
    made = tuple(
        Attempt(number, "w@t", "v@t", _result(task, number, taint)) for number, taint in enumerate(attempts, 1)
    )
    return TaskState(task, step, int(index) if index else None, 1, Phase.CLOSED, made)


def _result(task: str, number: int, taint: Sequence[str]) -> TaskResult:
    common: dict[str, Any] = {"id": f"r{number}", "ns": "n", "job": "j", "at": _AT, "task": task, "attempt": number}
    return TaskResult(**common, by="w@t", role="v@t", status="done", taint=tuple(taint))


def labels_of(
    do: str, *, taints: Mapping[str, Sequence[Sequence[str]]] | None = None, before: Sequence[Any] = (), **step: Any
) -> tuple[str, ...]:
    """Return the labels of the first assignment of a step that does ``do`` after the steps ``before``."""
    team = team_of(*before, {"step": "s", "do": do, **step})
    task = "s:0" if "for_each" in step else "s"
    return Labels(team).of_task(state_of(team, taints), team.plan[-1], task)


@pytest.mark.parametrize(
    ("do", "labels"),
    [
        ("Say hello about {{ goal }} to {{ inputs.name }}", ()),
        ("Read {{ inputs.page }}", ("input page",)),
        ("Read {{ inputs.page | upper }} and {{ inputs['page'] }}", ("input page",)),
        ("{% for f in inputs.files %}{{ f.text }}{% endfor %}", ("input files",)),
        ("{% set x = inputs.page %}{{ x }}", ("input page",)),
        ("{{ inputs.own | length }}", ()),
        ("{{ inputs | length }}", ("input files", "input page")),
        ("{{ inputs.files }} {{ inputs.page }}", ("input files", "input page")),
    ],
)
def test_what_inputs_bring_along(do: str, labels: tuple[str, ...]) -> None:
    """Text from outside labels an instruction by whichever way it gets into its template."""
    assert tuple(sorted(labels_of(do))) == labels


def test_criteria_bring_it_along_too() -> None:
    """What a worker is told of its criteria stands in the same message."""
    criteria = {"criteria": [{"check": "grounded", "source": "{{ inputs.page }}"}]}
    assert labels_of("go", verify=criteria) == ("input page",)


def test_results_bring_along_what_their_attempts_saw() -> None:
    """A step that reads another one's output is labelled with what any attempt of that had seen, also a failed one."""
    first = {"step": "a"}
    taints = {"a": [("tool web.fetch",), ("tool mail.read",)]}
    both = ("tool web.fetch", "tool mail.read")
    assert labels_of("{{ steps.a.output }}", before=[first], taints=taints) == both
    assert labels_of("{{ steps.a.status }}", before=[first], taints=taints) == both
    assert labels_of("{{ goal }}", before=[first], taints=taints) == ()


def test_aggregation_joins_the_labels_of_all_items() -> None:
    """One tainted item of many taints whoever reads the list of them."""
    each = {"step": "a", "for_each": ["x", "y", "z"]}
    taints: dict[str, list[tuple[str, ...]]] = {"a:0": [()], "a:1": [("tool web.fetch",)], "a:2": [("input page",)]}
    assert labels_of("{{ steps.a }}", before=[each], taints=taints) == ("tool web.fetch", "input page")
    assert labels_of("{{ steps | length }}", before=[each], taints=taints) == ("tool web.fetch", "input page")


def test_items_are_as_their_list() -> None:
    """A step for each item of a tainted result is tainted; of a list in the team file it is not."""
    first, taints = {"step": "a"}, {"a": [("tool web.fetch",)]}
    over = "{{ steps.a.output }}"
    assert labels_of("{{ item }}", before=[first], taints=taints, for_each=over) == ("tool web.fetch",)
    assert labels_of("{{ index }}", before=[first], taints=taints, for_each=over) == ()
    assert labels_of("{{ item }}", for_each=["x"]) == ()
    assert labels_of("{{ item }}", for_each="{{ inputs.files }}") == ("input files",)


def test_whoever_wrote_the_team_may_say_what_is_from_outside() -> None:
    """``outside`` on a step decides for its items, both ways."""
    assert labels_of("{{ item }}", for_each=["x"], outside=True) == ("items of s",)
    assert labels_of("{{ item }}", for_each="{{ inputs.files }}", outside=False) == ()


def test_a_redo_keeps_what_the_attempts_before_saw() -> None:
    """Feedback and the earlier output stand in the next assignment, whatever its template says."""
    assert labels_of("go", taints={"s": [("tool web.fetch",), ()]}) == ("tool web.fetch",)


def test_labels_of_an_open_step_are_not_kept() -> None:
    """What a step still adds is seen by who looks later."""
    team = team_of({"step": "a", "for_each": ["x", "y"]}, {"step": "s", "do": "{{ steps.a }}"})
    labels = Labels(team)
    early = state_of(team, {"a:0": [()]})
    open_step = StepState(team.plan[0], size=2, accepted=1)
    early = JobState(
        submitted=early.submitted, steps=early.steps.insert("a", open_step), tasks=early.tasks, order=early.order
    )
    assert labels.of_task(early, team.plan[1], "s") == ()
    late = state_of(team, {"a:0": [()], "a:1": [("tool web.fetch",)]})
    assert labels.of_task(late, team.plan[1], "s") == ("tool web.fetch",)


@given(st.lists(st.lists(st.text("ab", max_size=3), max_size=30), max_size=5))
def test_many_labels_are_cut_never_to_none(taints: list[list[str]]) -> None:
    """However much was seen, a tainted task stays tainted, and the labels stay few."""
    labels = labels_of("go", taints={"s": taints})
    seen = {label for some in taints for label in some}
    assert bool(labels) == bool(seen)
    assert len(labels) <= 32
    assert len(seen) > 32 or set(labels) == seen


def test_a_step_says_its_tools_or_else_its_agent() -> None:
    """``tools`` on a step replaces those of the agent, also by none."""
    agent = Agent.model_validate({"kind": "worker", "tools": ["box.look"]})
    plain = Step(step="s", agent="w", do="go")
    assert uses_of(plain, agent) == ("box.look",)
    assert uses_of(plain.model_copy(update={"tools": ()}), agent) == ()
    assert uses_of(plain.model_copy(update={"tools": ("box.put",)}), agent) == ("box.put",)


def granted(tools: Sequence[Any], scope: Mapping[str, Json], **step: Any) -> tuple[ToolGrant, ...]:
    """Return the tool grants of an assignment of a step with these tools."""
    team = team_of({"step": "s", "tools": list(tools), **step})
    state = state_of(team)
    assert state.submitted is not None
    return grant_of(state.submitted, state, team.plan[0], "w", scope, Labels(team)).tools


def test_pins_are_evaluated_and_keep_their_types() -> None:
    """A pinned template is a value, at any depth: a number stays a number."""
    pin = {"to": "{{ inputs.name }}", "count": "{{ 1 + 1 }}", "deep": {"list": ["{{ goal }}", 3]}, "plain": True}
    scope: dict[str, Json] = {"inputs": {"name": "ann"}, "goal": "g"}
    [grant] = granted([{"tool": "box.send", "pin": pin, "times": 2}], scope)
    assert {name: one.value for name, one in grant.pins.items()} == {
        "to": "ann",
        "count": 2,
        "deep": {"list": ["g", 3]},
        "plain": True,
    }
    assert (grant.times, [one.tainted for one in grant.pins.values()]) == (2, [False] * 4)


@pytest.mark.parametrize(
    ("value", "tainted"),
    [("{{ inputs.name }}", False), ("{{ inputs.page }}", True), (["a", "{{ inputs.page }}"], True), (7, False)],
)
def test_a_pin_made_of_outside_text_says_so(value: Json, *, tainted: bool) -> None:
    """Such a pin binds the call all the same, but is no decision of whoever wrote the plan."""
    scope: dict[str, Json] = {"inputs": {"name": "ann", "page": "<html>"}}
    [grant] = granted([{"tool": "box.send", "pin": {"to": value}}], scope)
    assert grant.pins["to"].tainted is tainted


def test_a_pin_of_a_tainted_item_is_tainted() -> None:
    """So it is under ``for_each``."""
    uses = [{"tool": "box.send", "pin": {"to": "{{ item }}"}}]
    [outside] = granted(uses, {"item": "x"}, for_each=["x"], outside=True)
    [own] = granted(uses, {"item": "x"}, for_each=["x"])
    assert (outside.pins, own.pins) == ({"to": Pin(value="x", tainted=True)}, {"to": Pin(value="x")})


def test_a_pin_that_cannot_be_told_is_an_error() -> None:
    """No grant is better than one that fixes something else."""
    with pytest.raises(TemplateError):
        granted([{"tool": "box.send", "pin": {"to": "{{ inputs.none.x }}"}}], {"inputs": {}})


def test_a_grant_takes_over_what_the_step_and_the_job_say() -> None:
    """Time, autonomy and the step's own rules."""
    team = team_of({"step": "s", "timeout": 7, "permissions": {"deny": ["box.burn"]}})
    state = state_of(team)
    assert state.submitted is not None
    grant = grant_of(state.submitted, state, team.plan[0], "w", {}, Labels(team))
    assert (grant.seconds, grant.autonomy, grant.permissions) == (7, "ask", team.plan[0].permissions)


def test_pinned_texts_are_all_templates_of_the_pins() -> None:
    """Whoever checks a team's templates sees those in its pins, at any depth."""
    pin = {"a": "{{ x }}", "b": [{"c": "{{ y }}"}], "d": 1}
    team = team_of({"step": "s", "tools": ["box.look", {"tool": "box.send", "pin": pin}]})
    assert pinned_texts(team.plan[0].tools or ()) == ["{{ x }}", "{{ y }}"]
