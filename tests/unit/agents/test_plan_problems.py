"""A plan that a manager proposes is held to its team, to the rules and to the plan before it; nothing wrong passes."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.agents.office import job, problems, step, steps_of, team

from interlock.agents.plan_problems import plan_problems
from interlock.agents.proposals import question_about_plan
from interlock.protocol.control import NO_POLICY, Policy
from interlock.protocol.criteria import CommandCriterion, WordsCheck
from interlock.protocol.messages import PlanProposed
from interlock.protocol.permissions import Permissions
from interlock.protocol.plan import check_graph
from interlock.protocol.team import Files, Step, Team, Verify
from interlock.runtime.teamfile import parse_team

WORDS = [{"kind": "words", "field": "", "value": "40"}]


def once(name: str, do: str, **changes: Any) -> dict[str, Any]:
    """Return a good step that is one task with a text as its result."""
    return step(name, **{"do": do, "for_each": "", "output": [], "criteria": WORDS, **changes})


def test_a_good_plan_has_no_problem() -> None:
    """A plan that fits its team is accepted, with tools that it pins too."""
    send = {"tool": "box.send", "pin": [{"argument": "times", "value": "1"}]}
    assert problems(step(), once("post", "Send {{ steps.sum_up.outputs }}", agent="clerk", tools=[send])) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"agent": "raeder"}, "step sum_up: agent: there is no agent 'raeder': did you mean 'reader'?"),
        (
            {"agent": "boss"},
            "step sum_up: agent: agent 'boss' is a manager, and this must be a worker; workers: reader",
        ),
        ({"verify_by": "clerk"}, "step sum_up: verify_by: agent 'clerk' is a worker, and this must be a verifier"),
        ({"needs": ["summ_up"]}, "step sum_up: needs: there is no step 'summ_up'"),
        ({"needs": ["sum_up"]}, "step sum_up: needs: step 'sum_up' needs itself"),
        ({"do": "Sum up {{ item.body }}"}, "step sum_up: do: an item made of a file has no 'body'; it has: path, name"),
        ({"do": "Sum up {{ inputs.document }}"}, "step sum_up: do: there is no input 'document': did you mean"),
        ({"do": "Sum up {{ item"}, "step sum_up: do: this is no template"),
        ({"for_each": "all of them"}, "step sum_up: for_each: this gives text, not a list"),
        ({"for_each": ""}, "step sum_up: do: 'item' is only there in a step with for_each"),
        ({"criteria": [], "output": []}, "step sum_up: nothing of step 'sum_up' can be verified"),
        ({"criteria": [{"kind": "regex", "field": "", "value": "("}]}, "step sum_up: criterion 1: this is no regular"),
        ({"criteria": [{"kind": "judge", "field": "", "value": "{{ x }}"}]}, "criterion 1: there is no variable 'x'"),
        ({"criteria": [{"kind": "words", "field": "x", "value": "3"}]}, "criterion 1: the output has no field 'x'"),
        ({"output": {"summary": {"type": "strng"}}}, "step sum_up: output: this is no JSON Schema"),
        ({"tools": [{"tool": "box.send", "pin": []}]}, "step sum_up: tools: agent 'reader' has no tool 'box.send'; it"),
        ({"tools": [{"tool": "box.lok", "pin": []}]}, "has no tool 'box.lok': did you mean 'box.look'?"),
        ({"outside": False}, "step sum_up: outside: what comes from outside is for the team file to say"),
        (
            {"agent": "clerk", "tools": [{"tool": "box.send", "pin": [{"argument": "to", "value": "bob"}]}]},
            'step sum_up: tools: box.send: the team fixes to to "ann", and the plan cannot change that',
        ),
        (
            {"agent": "clerk", "tools": [{"tool": "box.send", "pin": [{"argument": "too", "value": "x"}]}]},
            "step sum_up: tools: box.send: it has no argument 'too': did you mean 'to'?",
        ),
        ({"agent": "clerk", "tools": [{"tool": "box.burn", "pin": []}]}, "may use box.burn, which"),
        ({"on_failure": {"agent": "clerk"}, "tools": ["box.look"]}, "agent 'clerk' has no tool 'box.look'"),
    ],
)
def test_every_mistake_is_named(changes: Mapping[str, Any], says: str) -> None:
    """What is wrong is told with the step, and nothing else is said of it."""
    [found] = problems(step(**changes))
    assert says in found


def test_names_twice_circles_and_too_many_steps() -> None:
    """The graph is checked as a whole."""
    assert problems(step(), step()) == [
        "step sum_up: step 'sum_up' is defined twice, first as number 1 of the plan: rename one"
    ]
    circle = problems(once("a", "x", needs=["b"]), once("b", "{{ steps.a.output }}"))
    assert circle == ["step a: needs: steps need each other in a circle: a -> b -> a (each needs the next)"]
    assert problems(*(once(f"s{number}", "x") for number in range(21))) == [
        "the plan has 21 new steps, and at most 20 are allowed"
    ]
    assert plan_problems(job(), NO_POLICY, ()) == ("the plan has no steps",)


def test_inputs_of_a_team_that_declares_none_are_those_of_the_job() -> None:
    """Where a team declares no inputs a plan can name those that the job was given, and no others."""
    bare = job(team=team(inputs={}), inputs={"letter": "x"})
    assert problems(once("a", "Read {{ inputs.letter }}"), of=bare) == []
    assert problems(once("a", "Read {{ inputs.leter }}"), of=bare) == [
        "step a: do: there is no input 'leter': did you mean 'letter'?"
    ]
    assert problems(once("a", "{{ inputs.b }}"), of=job(team=team(inputs={}), inputs={})) == [
        "step a: do: there is no input 'b'; the job has none"
    ]


def test_rules_and_the_operator_bind_a_plan() -> None:
    """A tool that no rule can allow, also as it is pinned, or that the operator denies, is a reason."""
    eve = {"tool": "box.send", "pin": [{"argument": "to", "value": "eve"}]}
    clerk = {"kind": "worker", "tools": ["box.send"]}
    free = job(team=team(agents={"clerk": clerk, "checker": {"kind": "verifier"}}))
    send = once("post", "Send it", agent="clerk", tools=[eve])
    assert problems(send, of=free) == ["step post: tools: no call of box.send with what is pinned can ever be allowed"]
    at = datetime(2026, 1, 1, tzinfo=UTC)
    policy = Policy(id="p1", at=at, permissions=Permissions(deny=("box.*",)), base="/")
    [denied] = problems(once("look", "Look", tools=["box.look"]), policy=policy)
    assert "no call of box.look can ever be allowed" in denied


def test_a_person_s_liberties_are_none_of_a_plan() -> None:
    """Commands and files of this machine are for team files to name."""
    command = Verify(criteria=(CommandCriterion(command=("true",)),))
    step_ = Step(step="a", agent="reader", do="x", verify=command, for_each=Files(files="/etc/*"))
    assert plan_problems(job(), NO_POLICY, [step_]) == (
        "step a: for_each: files are inputs of a job: name the input, as {{ inputs.NAME }}",
        "step a: a command can only be demanded by a team file: use another criterion",
    )


def test_a_goal_from_outside_pins_nothing() -> None:
    """What a plan pins counts as the team's own word, so a goal made of text from outside gets no say in it."""
    pinned = {"tool": "box.send", "pin": [{"argument": "times", "value": "3"}]}
    send = once("post", "Send it", agent="clerk", tools=[pinned])
    assert problems(send) == []
    [found] = problems(send, of=job(taint=("input letters",)))
    assert "the goal comes from outside" in found
    own = once("post", "Send it", agent="clerk", tools=["box.send"])
    assert problems(own, of=job(taint=("input letters",))) == []


# --- versions


def test_what_was_accepted_stays_as_it_was() -> None:
    """A kept step can neither be left out nor changed, and no name is used twice."""
    before = steps_of(step(), once("post", "Send {{ steps.sum_up.outputs }}"))
    changed = before[0].model_copy(update={"do": "Sum up {{ item.name }}"})
    new = [changed, before[1].model_copy(update={"step": "mail"})]
    assert plan_problems(job(), NO_POLICY, new[1:], before, kept={"sum_up"})[0] == (
        "step mail: do: there is no step 'sum_up'; steps: mail"
    )
    assert "sum_up has accepted results" in plan_problems(job(), NO_POLICY, new[1:], before, kept={"sum_up"})[1]
    assert plan_problems(job(), NO_POLICY, new, before, kept={"sum_up"}) == (
        "step sum_up was in the plan before and stays as it was: give a changed step another name",
    )
    assert plan_problems(job(), NO_POLICY, [before[0], new[1]], before, kept={"sum_up"}) == ()
    assert "an earlier plan had a step of this name" in "".join(
        plan_problems(job(), NO_POLICY, [before[0], new[1]], before, kept={"sum_up"}, gone={"mail"})
    )


def test_needs_that_were_written_out_are_no_change() -> None:
    """The plan that is followed has every need written out, and a step that is kept may have them or not."""
    before = steps_of(step(), once("post", "Send {{ steps.sum_up.outputs }}"))
    written = [before[0], before[1].model_copy(update={"needs": ("sum_up",)})]
    assert plan_problems(job(), NO_POLICY, before, written) == ()
    assert plan_problems(job(), NO_POLICY, written, written) == ()


def test_a_new_version_demands_no_less() -> None:
    """A step that is left out needs one that demands all that it did, fields included."""
    before = steps_of(
        once("post", "Send it"), step("tell", output=[{"field": "text", "type": "string"}], criteria=WORDS)
    )
    looser = before[0].model_copy(
        update={"step": "mail", "verify": Verify(criteria=(WordsCheck(check="words", max=400),))}
    )
    [found] = plan_problems(job(), NO_POLICY, [looser, before[1]], before)
    assert found.startswith("step post is left out, and no new step demands all that it did: words is missing")
    same = before[0].model_copy(update={"step": "mail"})
    assert plan_problems(job(), NO_POLICY, [same, before[1]], before) == ()
    other = before[1].model_copy(update={"step": "say", "output": {"text": "integer"}})
    assert "field text is missing" in plan_problems(job(), NO_POLICY, [before[0], other], before)[0]


def test_a_step_that_the_result_names_stays() -> None:
    """A result of the team's own names its steps, so that none of them can be left out."""
    before = steps_of(once("post", "Send it"))
    of = job(team=team(plan=[one.model_dump() for one in before], result="{{ steps.post.output }}"))
    [found] = plan_problems(of, NO_POLICY, [before[0].model_copy(update={"step": "mail"})], before)
    assert "the team's result names what the plan does not have: there is no step 'post'" in found


_names = st.sampled_from(["a", "b", "c"])
_steps = st.builds(
    once,
    _names,
    st.sampled_from(["x", "{{ steps.a.output }}", "{{ steps.b.outputs }}", "{{ item }}", "{{ inputs.tone }}", "{{"]),
    agent=st.sampled_from(["reader", "clerk", "boss", "nobody"]),
    needs=st.lists(_names, max_size=2),
    for_each=st.sampled_from(["", "{{ inputs.documents }}", "{{ steps.c.outputs }}"]),
    tools=st.lists(st.sampled_from(["box.look", "box.send", "box.burn"]), max_size=2),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_steps, min_size=1, max_size=4))
def test_what_passes_can_run(plan: list[dict[str, Any]]) -> None:
    """A plan without problems is a graph, done by workers, with the tools that these have; none raises an error."""
    steps = steps_of(*plan)
    if plan_problems(job(), NO_POLICY, steps):
        return
    agents = job().team.agents
    assert check_graph(steps) == []
    assert all(agents[one.agent].kind == "worker" for one in steps)
    assert {"box.burn"}.isdisjoint(str(use) for one in steps for use in one.tools or ())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_steps, min_size=1, max_size=4))
def test_what_passes_may_stand_in_a_team_file(plan: list[dict[str, Any]]) -> None:
    """A plan without problems is one that ``interlock check`` has nothing against, in the file of the same team."""
    bare = team(permissions={}, principles=[], agents=_without_tools(team()))
    steps = steps_of(*({**one, "tools": []} for one in plan), of=job(team=bare))
    if not plan_problems(job(team=bare), NO_POLICY, steps):
        whole = bare.model_copy(update={"plan": steps}).model_dump_json(exclude_defaults=True, exclude={"interlock"})
        parse_team(f'{{"interlock": 1, {whole[1:]}', "team.yaml")


def _without_tools(of: Team) -> dict[str, Any]:
    return {name: agent.model_dump(exclude={"tools", "permissions", "team"}) for name, agent in of.agents.items()}


def test_what_a_person_is_asked_has_tools_and_criteria() -> None:
    """Before a yes a person reads what each step may use, with what is fixed, and what its result is held to."""
    pinned = {"tool": "box.send", "pin": [{"argument": "times", "value": "1"}]}
    steps = steps_of(once("post", "Send it", agent="clerk", tools=[pinned], output=[{"field": "a", "type": "string"}]))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    asked = question_about_plan(PlanProposed(id="m2", ns="n", job="j", at=at, version=1, steps=steps))
    assert asked.splitlines()[1] == (
        '1. post by clerk, with box.send with {"times":1,"to":"ann"}: Send it [held to: fields a; at most 40 words]'
    )
