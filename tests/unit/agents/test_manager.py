"""How decisions become messages."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.agents.managed import managed
from tests.unit.protocol.story import NOW

from interlock.agents.manager import Planner, Stamp, verifier_of
from interlock.protocol.base import Json
from interlock.protocol.commands import Assign, CloseJob, CloseTask
from interlock.protocol.criteria import ContainsCheck, JudgeCriterion
from interlock.protocol.messages import JobClosed, JobSubmitted, PlanAccepted, PlanExpanded, TaskAssigned, TaskClosed
from interlock.protocol.team import Budget, Team


def test_the_plan_is_accepted_with_every_need_written_out() -> None:
    """Needs that templates name are added to those that were given; the result is made of the last steps."""
    story = managed(
        {"step": "a"},
        {"step": "b", "for_each": "{{ steps.a.output }}"},
        {"step": "c", "do": "{{ goal }}", "verify": {"by": "v", "criteria": [{"judge": "as {{ steps.b.outputs }}"}]}},
        {"step": "d", "do": "{{ steps.a.output }}", "needs": ["c"]},
        {"step": "e", "needs": ["a"]},
    )
    accepted = story.log[1].message
    assert isinstance(accepted, PlanAccepted)
    assert {step.step: step.needs for step in accepted.steps} == {
        "a": (),
        "b": ("a",),
        "c": ("b",),
        "d": ("c", "a"),
        "e": ("a",),
    }
    assert (accepted.version, accepted.answers, accepted.epoch) == (1, 1, 3)
    assert set(accepted.result_steps) == {"d", "e"}


def test_the_result_is_made_of_the_steps_that_its_template_names() -> None:
    """With a result template, a last step that it does not name does not count for the result."""
    story = managed({"step": "a"}, {"step": "b", "needs": ["a"]}, result_template="{{ steps.a.output }}")
    accepted = story.log[1].message
    assert isinstance(accepted, PlanAccepted)
    assert accepted.result_steps == ("a",)


def test_an_assignment_says_everything_that_the_attempt_needs() -> None:
    """Instruction and criteria are rendered for the item; role, verifier, schema, grant and deadline are filled in."""
    story = managed(
        {
            "step": "s",
            "for_each": "{{ inputs.docs }}",
            "do": "{{ index }}: {{ item.text }} for {{ goal }}",
            "output": {"summary": "string"},
            "timeout": 12,
            "verify": {"by": "v2", "criteria": [{"check": "contains", "field": "summary", "all": ["{{ item.text }}"]}]},
        },
        inputs={"docs": [{"path": "a.md", "text": "alpha"}, {"path": "b.md", "text": "beta"}]},
        budget=Budget(seconds=60),
    )
    expanded = story.log[2].message
    assert isinstance(expanded, PlanExpanded)
    assert (expanded.step, expanded.items, expanded.reason) == ("s", 2, "")
    assigned = story.assigned("s:1")
    assert (assigned.instruction, assigned.label, assigned.index) == ("1: beta for g", "b.md", 1)
    assert (assigned.role, assigned.verifier, assigned.goal, assigned.epoch) == ("w@t", "v2@t", "g", 3)
    assert assigned.criteria == (ContainsCheck(check="contains", field="summary", all=("beta",)),)
    assert assigned.output_schema is not None
    assert assigned.output_schema["required"] == ["summary"]
    assert assigned.grant.seconds == 12
    assert assigned.deadline == NOW + timedelta(seconds=60)
    assert (assigned.attempt, assigned.feedback, assigned.earlier) == (1, (), None)


def test_a_redo_carries_feedback_and_the_earlier_attempt() -> None:
    """What was wrong and what the attempt before said stand in the next assignment."""
    story = managed({"step": "s"})
    story.attempt("s", "fail", "too long", "41 words")
    assigned = story.assigned("s")
    assert assigned.attempt == 2
    assert [one.criteria[0].evidence for one in assigned.feedback] == ["41 words"]
    assert assigned.earlier is not None
    assert assigned.earlier.output == "too long"


@pytest.mark.parametrize(
    ("item", "label"),
    [
        ({"path": "p", "name": "n"}, "p"),
        ({"name": "n", "title": "t"}, "n"),
        ({"id": 7}, "7"),
        ({"id": 0}, "0"),
        ({"other": "x"}, ""),
        ("some\n words", "some words"),
        ("x" * 100, "x" * 77 + "..."),
        (5, "5"),
        ([1, 2], ""),
        (None, ""),
        ({"index": 4, "item": {"path": "p"}, "output": "o"}, "p"),
    ],
)
def test_how_an_item_is_called(item: Json, label: str) -> None:
    """An item is called by its path, name, title or id, or by itself where it is short."""
    assert managed({"step": "s", "for_each": [item]}).assigned("s:0").label == label


def test_a_template_that_fails_for_one_item_closes_only_that_item() -> None:
    """The others are assigned; the one says why it could not be put into words."""
    story = managed(
        {"step": "s", "for_each": [{"a": 1}, {}, {"a": 3}], "do": "{{ item.a }}"},
        {"step": "end", "do": "{{ steps.s.outputs }} of {{ steps.s.total }}, {{ steps.s.failed }} failed"},
    )
    assert story.task("s:1").outcome == "failed"
    assert "the task cannot be put into words: template '{{ item.a }}'" in story.task("s:1").reason
    story.attempt("s:0")
    story.attempt("s:2", output="two")
    assert story.assigned("end").instruction == '["output 1", "two"] of 3, 1 failed'


def test_a_criterion_that_renders_to_none_closes_its_task() -> None:
    """A judge's sentence that comes out empty would be a message that nobody can read: the task fails instead."""
    verify = {"by": "v", "criteria": [{"judge": "{{ item }}"}]}
    story = managed({"step": "s", "for_each": ["It rhymes.", ""], "verify": verify})
    assert story.assigned("s:0").criteria == (JudgeCriterion(judge="It rhymes."),)
    assert story.task("s:1").outcome == "failed"
    assert "judge" in story.task("s:1").reason


@pytest.mark.parametrize(
    ("for_each", "reason"),
    [
        ("{{ inputs.count }}", "expected a list, got int"),
        ("{{ inputs.nothing }}", "nothing"),
        ("text {{ inputs.list }}", "expected a list, got str"),
        ("{{ 1 / 0 }}", "division"),
    ],
)
def test_a_for_each_that_gives_no_list_blocks_its_step(for_each: str, reason: str) -> None:
    """The step has no tasks and says why; the job ends."""
    story = managed({"step": "s", "for_each": for_each}, inputs={"count": 3, "list": [1]})
    expanded = story.log[2].message
    assert isinstance(expanded, PlanExpanded)
    assert expanded.items == 0
    assert "its for_each gives no items" in expanded.reason
    assert reason in expanded.reason
    assert story.closed.status == "failed"
    assert story.closed.result is None


def test_an_empty_list_is_a_step_without_tasks() -> None:
    """Nothing to do is no failure."""
    story = managed({"step": "s", "for_each": []})
    assert (story.closed.status, story.closed.result) == ("succeeded", [])


def test_a_reduce_step_sees_only_what_was_accepted() -> None:
    """Outputs and results are those of accepted items, in their order, with their items; failures have reasons."""
    story = managed(
        {"step": "s", "for_each": ["a", "b", "c"], "attempts": 1},
        {
            "step": "end",
            "do": "{% for r in steps.s.results %}{{ r.index }}{{ r.item }}={{ r.output }};{% endfor %}"
            "{% for f in steps.s.failures %}!{{ f.index }}{{ f.item }}:{{ f.reason }}{% endfor %}",
        },
    )
    story.attempt("s:2", output="C")
    story.attempt("s:1", "fail", output="B", evidence="bad")
    story.attempt("s:0", output="A")
    assert story.assigned("end").instruction == "0a=A;2c=C;!1b:words: bad"


def test_a_step_without_items_is_seen_by_its_output() -> None:
    """``steps.NAME.output`` of one task, with counts."""
    story = managed({"step": "a"}, {"step": "b", "do": "{{ steps.a.output }} {{ steps.a.failed }}/{{ steps.a.total }}"})
    story.attempt("a", output="A")
    assert story.assigned("b").instruction == "A 0/1"


@pytest.mark.parametrize(
    ("template", "result"),
    [
        ("{{ steps.s.output }}", {"n": [1, 2]}),
        (" {{ steps.s.output.n }} ", [1, 2]),
        ("{{ steps.s.output.n | length }}", 2),
        ("n is {{ steps.s.output.n }}", "n is [1, 2]"),
        ("{{ steps.s.output.n[0] }}{{ goal }}", "1g"),
    ],
)
def test_a_result_that_is_one_expression_keeps_its_value(template: str, result: Json) -> None:
    """Anything else is text."""
    story = managed({"step": "s"}, result_template=template)
    story.attempt("s", output={"n": [1, 2]})
    assert (story.closed.status, story.closed.result) == ("succeeded", result)


def test_without_a_template_the_result_is_what_the_last_steps_delivered() -> None:
    """One last step gives its output, several give theirs by name, a for_each gives a list of what was accepted."""
    one = managed({"step": "a"}, {"step": "b", "needs": ["a"]})
    one.attempt("a", output="A")
    one.attempt("b", output="B")
    assert one.closed.result == "B"
    several = managed({"step": "a"}, {"step": "b", "for_each": [1, 2], "attempts": 1})
    several.attempt("a", output="A")
    several.attempt("b:1", output="two")
    several.attempt("b:0", "fail")
    assert several.closed.status == "partial"
    assert several.closed.result == {"a": "A", "b": ["two"]}


def test_a_result_template_that_fails_fails_the_job() -> None:
    """The reason says so; a job that was killed stays killed."""
    story = managed({"step": "s"}, result_template="{{ 1 / 0 }}{{ steps.s.output }}")
    story.attempt("s")
    assert (story.closed.status, story.closed.result) == ("failed", None)
    assert "the team's result cannot be told: template" in story.closed.reason
    killed = managed({"step": "s"}, result_template="{{ 1 / 0 }}{{ steps.s.output }}")
    killed.killed = "enough"
    killed.go_on()
    assert killed.closed.status == "killed"
    assert killed.closed.reason.startswith("enough; the team's result cannot be told")


def test_a_result_that_is_nested_too_deeply_fails_the_job() -> None:
    """Outputs that are as deep as one may be make a result that is deeper."""
    deep: Json = "x"
    for _ in range(64):
        deep = [deep]
    story = managed({"step": "a"}, {"step": "b"})
    story.attempt("a", output=deep)
    story.attempt("b")
    assert story.closed.status == "failed"
    assert "nested deeper" in story.closed.reason


def test_a_killed_job_keeps_what_was_accepted() -> None:
    """The result of a job that was stopped is what stands until then."""
    story = managed({"step": "s", "for_each": [1, 2]})
    story.attempt("s:1", output="B")
    story.killed = "enough"
    story.go_on()
    assert (story.closed.status, story.closed.result, story.closed.reason) == ("killed", ["B"], "enough")
    assert (story.task("s:0").outcome, story.task("s:0").reason) == ("cancelled", "enough")


def test_an_accepted_task_names_the_attempt_that_stands() -> None:
    """The closing message carries the outcome, the attempt and the head that it answers."""
    story = managed({"step": "s"})
    story.attempt("s", "fail")
    story.attempt("s", "pass")
    closed = next(one.message for one in story.log if isinstance(one.message, TaskClosed))
    assert (closed.outcome, closed.stands, closed.attempt, closed.task) == ("accepted", 2, 2, "s")


def test_what_cannot_be_sent_is_excused() -> None:
    """An assignment becomes the end of its task, the end of a job one without a result; the rest has no excuse."""
    story = managed({"step": "s"})
    stamp = Stamp("x", datetime(2026, 1, 2, tzinfo=UTC))
    assign = Assign("s", story.team.plan[0], None, 2, "w", 7)
    closed = story.planner.excuse(story.state, assign, stamp, "too large")
    assert isinstance(closed, TaskClosed)
    assert (closed.outcome, closed.attempt, closed.answers, closed.id, closed.at) == ("failed", 1, 7, "x", stamp.at)
    assert "too large" in closed.reason
    ended = story.planner.excuse(story.state, CloseJob(9, "partial", "1 of 2"), stamp, "too large")
    assert isinstance(ended, JobClosed)
    assert (ended.status, ended.result) == ("failed", None)
    assert ended.reason == "1 of 2; the team's result cannot be told: too large"
    close = CloseTask("s", 1, 7, "cancelled", reason="r")
    assert story.planner.excuse(story.state, close, stamp, "") == story.planner.message(story.state, close, stamp)


def test_another_manager_says_the_same() -> None:
    """A planner that is made anew over the same log gives the same messages."""
    story = managed(
        {"step": "s", "for_each": "{{ inputs.docs }}", "do": "{{ item }}"},
        {"step": "end", "do": "{{ steps.s.results }}"},
        inputs={"docs": ["a", "b"]},
    )
    story.attempt("s:1")
    story.result("s:0")
    story.verdict("s:0", "pass")
    story.carry_out(*story.decide())
    (command,) = story.decide()
    submitted = story.log[0].message
    assert isinstance(submitted, JobSubmitted)
    assert isinstance(command, Assign)
    stamp = Stamp("x", NOW)
    first = story.planner.message(story.state, command, stamp)
    assert isinstance(first, TaskAssigned)
    assert Planner(submitted).message(story.state, command, stamp) == first


def test_a_step_without_a_verifier_gets_the_only_one() -> None:
    """Where a team has one verifier, steps need not name it."""
    team = Team.model_validate(
        {
            "interlock": 1,
            "team": "t",
            "agents": {"w": {"kind": "worker"}, "v": {"kind": "verifier"}},
            "plan": [{"step": "s", "agent": "w", "do": "x"}],
        }
    )
    assert verifier_of(team, team.plan[0]) == "v"
