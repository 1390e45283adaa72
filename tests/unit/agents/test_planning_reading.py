"""What a manager's model wrote becomes a proposal, or a reason why it is none that a model can act on."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tests.unit.agents.office import CATALOGUE, proposal, step, steps_of, team

from interlock.agents.planning_form import CRITERIA, MAX_STEPS, plan_schema
from interlock.agents.planning_reading import read_proposal
from interlock.protocol.criteria import ContainsCheck, GroundedCheck, JudgeCriterion, OneOfCheck, RegexCheck, WordsCheck
from interlock.protocol.team import PinnedTool, Step, Verify


def unreadable(text: str) -> str:
    """Return why ``text`` is no proposal."""
    outcome = read_proposal(text, team(), CATALOGUE)
    assert outcome.steps == ()
    return outcome.unreadable


def test_a_plan_is_read_into_steps() -> None:
    """A plan in the form of the answer becomes the steps that a team file would have had."""
    [read] = steps_of(step())
    assert read == Step(
        step="sum_up",
        agent="reader",
        do="Sum up {{ item.text }}",
        for_each="{{ inputs.documents }}",
        output={"summary": "string"},
        verify=Verify(criteria=(WordsCheck(check="words", field="summary", max=40),)),
        tools=(),
    )


def test_a_plan_as_in_a_team_file_is_read_too() -> None:
    """A model that nothing binds may write what team files have: mappings, and criteria with their own keys."""
    [read] = steps_of(
        {
            "step": "sum_up",
            "agent": "reader",
            "do": "Sum up",
            "output": {"summary": "string"},
            "verify": {"by": "checker", "criteria": [{"check": "words", "max": 9}, {"judge": "It is short."}]},
            "tools": ["box.look"],
            "attempts": 2,
        }
    )
    assert (read.attempts, read.tools, read.verify.by) == (2, ("box.look",), "checker")
    assert [type(one) for one in read.verify.criteria] == [WordsCheck, JudgeCriterion]


@pytest.mark.parametrize(
    ("kind", "value", "criterion"),
    [
        ("judge", "It is kind.", JudgeCriterion(judge="It is kind.")),
        ("words", "at most 40", WordsCheck(check="words", field="a", max=40)),
        ("words", "10-40", WordsCheck(check="words", field="a", min=10, max=40)),
        ("contains", "lamp", ContainsCheck(check="contains", field="a", all=("lamp",))),
        ("lacks", "lamp", ContainsCheck(check="contains", field="a", none=("lamp",))),
        ("regex", "^A", RegexCheck(check="regex", field="a", pattern="^A")),
        ("one_of", "red | green", OneOfCheck(check="one_of", field="a", values=("red", "green"))),
        ("grounded", "{{ item }}", GroundedCheck(check="grounded", field="a", source="{{ item }}")),
    ],
)
def test_criteria_mean_what_they_say(kind: str, value: str, criterion: Any) -> None:
    """Each kind of criterion becomes the check, or the judge's sentence, that it stands for."""
    [read] = steps_of(step(criteria=[{"kind": kind, "field": "a", "value": value}]))
    assert read.verify.criteria == (criterion,)


def test_pins_have_the_type_of_their_argument() -> None:
    """A number that is pinned as text is a number, a template stays one, and what the team pins is pinned too."""
    pins = [{"argument": "times", "value": "3"}]
    [read] = steps_of(step(agent="clerk", tools=[{"tool": "box.send", "pin": pins}, {"tool": "box.burn", "pin": []}]))
    assert read.tools == (PinnedTool(tool="box.send", pin={"to": "ann", "times": 3}), "box.burn")
    [read] = steps_of(
        step(agent="clerk", tools=[{"tool": "box.send", "pin": [{"argument": "times", "value": "{{ 3 }}"}]}])
    )
    assert read.tools == (PinnedTool(tool="box.send", pin={"to": "ann", "times": "{{ 3 }}"}),)


@pytest.mark.parametrize("makes", ["answer", "question", "refusal"])
def test_what_is_no_plan_is_its_text(makes: str) -> None:
    """An answer, a question and a refusal are their text, and steps beside it mean nothing."""
    outcome = read_proposal(proposal(step(), makes=makes, text=" Four. "), team())
    assert (outcome.makes, outcome.text, outcome.steps, outcome.unreadable) == (makes, "Four.", (), "")
    assert f"the {makes}" in unreadable(proposal(makes=makes))


def test_words_around_the_object_are_forgiven() -> None:
    """A whole object in a code fence, or after thoughts, is read; half of one is not."""
    text = proposal(step())
    assert read_proposal(f"I think so:\n```json\n{text}\n```", team()).steps
    assert "no JSON" in unreadable(text[:-9])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON"),
        ("[]", "expected one JSON object"),
        ('{"makes": "soup"}', '"makes" is one of plan, answer'),
        (proposal(), "there are no steps"),
        (proposal(step(criteria=[{"kind": "nice", "field": "", "value": "x"}])), "step sum_up: there is no criterion"),
        (proposal(step(criteria=[{"kind": [], "field": "", "value": "x"}])), "there is no criterion []"),
        (proposal(step(criteria=[{"kind": "words", "field": "", "value": "few"}])), "'few' is no number of words"),
        (proposal(step(criteria=[{"kind": "words", "field": "", "value": "9-3"}])), "max (3) is below min (9)"),
        (proposal(step(criteria="short")), "step sum_up: criteria: expected a list"),
        (proposal(step(output=["summary"])), "step sum_up: output is a list of"),
        (proposal(step("Sum Up")), "step Sum Up: step: "),
        (proposal({"step": "a"}), "step a: agent: Field required; do: Field required"),
        (proposal(step(tools=[3])), "a tool is written as"),
        (proposal(step(replaces="nothing")), '"replaces" names a step of the plan before'),
        (proposal(step(wish="x")), "step sum_up: wish: Extra inputs"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, says: str) -> None:
    """The reason names the step and what would be right."""
    assert says in unreadable(text)


def test_the_schema_is_small_and_binds() -> None:
    """The schema accepts what is read, refuses agents and tools that there are not, and has no recursion."""
    schema = plan_schema(team())
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    good = json.loads(proposal(step()))
    assert validator.is_valid(good)
    for wrong in (step(agent="boss"), step(tools=[{"tool": "web.fetch", "pin": []}]), step("Bad Name"), {"step": "a"}):
        assert not validator.is_valid(json.loads(proposal(wrong)))
    assert not validator.is_valid(json.loads(proposal(*[step()] * (MAX_STEPS + 1))))
    text = json.dumps(schema)
    assert not any(word in text for word in ("$ref", "anyOf", "oneOf", "allOf"))
    assert len(text) < 2500


def test_teams_without_tools_and_with_one_verifier_have_a_smaller_form() -> None:
    """What there is no choice of is not asked for."""
    bare = team(agents={"reader": {"kind": "worker"}, "checker": {"kind": "verifier"}}, principles=[])
    assert not {"tools", "verify_by", "keep", "replaces"} & set(json.dumps(plan_schema(bare)).split('"'))
    agents = {**bare.model_dump()["agents"], "second": {"kind": "verifier"}}
    assert '"verify_by"' in json.dumps(plan_schema(team(agents=agents)))


def test_a_team_within_the_team_is_given_inputs() -> None:
    """Where an agent is a team with inputs, a step gives it these, each of its type."""
    inner = {
        "interlock": 1,
        "team": "desk",
        "agents": {"reader": {"kind": "worker"}, "checker": {"kind": "verifier"}},
        "inputs": {"count": {"type": "integer"}, "topic": {}},
    }
    outer = team(agents={"desk": {"kind": "team", "team": inner}, "checker": {"kind": "verifier"}}, principles=[])
    assert '"inputs"' in json.dumps(plan_schema(outer))
    assert '"inputs"' not in json.dumps(plan_schema(team()))
    given = [{"name": "count", "value": "3"}, {"name": "topic", "value": "3"}, {"name": "x", "value": "{{ goal }}"}]
    [read] = read_proposal(proposal(step(agent="desk", inputs=given)), outer).steps
    assert read.inputs == {"count": 3, "topic": "3", "x": "{{ goal }}"}


def test_what_was_accepted_stays_and_demands_are_handed_on() -> None:
    """A new version has what is kept, as it was, and a step in another's place demands what that one did."""
    before = steps_of(
        step(),
        step(
            "headline",
            do="{{ steps.sum_up.outputs }}",
            for_each="",
            criteria=[
                {"kind": "grounded", "field": "summary", "value": "{{ steps.sum_up.outputs }}"},
            ],
        ),
        step("send", for_each="", do="Send {{ steps.headline.output }}"),
    )
    new = step("heading", replaces="headline", do="Try {{ steps.sum_up.outputs }}", for_each="", output=[], criteria=[])
    sent = step("post", replaces="send", for_each="", do="Send {{ steps.heading.output }}", criteria=[])
    outcome = read_proposal(proposal(new, sent, text="Once more"), team(), (), before, kept={"sum_up"})
    assert outcome.steps[0] is before[0]
    assert [one.step for one in outcome.steps] == ["sum_up", "heading", "post"]
    assert outcome.steps[1].verify.criteria == before[1].verify.criteria
    assert outcome.steps[1].output == {"summary": "string"}
    assert outcome.text == "Once more"
    assert read_proposal(proposal(keep=["sum_up", "headline"]), team(), (), before).steps == before[:2]


def test_templates_that_are_handed_on_name_the_new_steps() -> None:
    """Where a criterion named a step that is left out, it names the one in its place."""
    before = steps_of(
        step("a"), step("b", criteria=[{"kind": "grounded", "field": "", "value": "{{ steps.a.outputs }}"}])
    )
    new = (step("c", replaces="a"), step("d", replaces="b", criteria=[]))
    steps = read_proposal(proposal(*new), team(), (), before).steps
    assert steps[1].verify.criteria == (GroundedCheck(check="grounded", source="{{ steps['c'].outputs }}"),)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "plan", "a", "reader", "words", "{{", "40"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["step", "kind", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["makes", "text", "keep", "steps"]), _json), st.data())
def test_no_text_breaks_the_reader(noise: dict[str, Any], data: st.DataObject) -> None:
    """Whatever a model writes is a proposal or unreadable, never an error."""
    draft = step()
    for key in data.draw(st.lists(st.sampled_from([*sorted(draft), "replaces", "attempts"]), max_size=3)):
        draft[key] = data.draw(_json)
    for value in (noise, {"makes": "plan", "steps": [draft]}, [noise], noise.get("steps")):
        outcome = read_proposal(json.dumps(value), team(), CATALOGUE)
        assert bool(outcome.unreadable) != bool(outcome.steps or outcome.text)


def test_the_kinds_of_criteria_are_all_read() -> None:
    """No kind is offered that cannot be read."""
    for kind in CRITERIA:
        [read] = steps_of(step(criteria=[{"kind": kind, "field": "", "value": "3"}]))
        assert len(read.verify.criteria) == 1
