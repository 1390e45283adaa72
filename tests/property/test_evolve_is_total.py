"""Whatever stands in a log, folding it and deciding on it never fails, and a stopped job still ends."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.property.strategies import messages_of
from tests.unit.agents.planned import plan_step, planned
from tests.unit.protocol.story import Story, step

from interlock.protocol.commands import AcceptPlan, CloseJob, Propose
from interlock.protocol.decide import deadline_of, decide
from interlock.protocol.machine import evolve
from interlock.protocol.messages import (
    JOB_TASK,
    MESSAGE_TYPES,
    Envelope,
    JobSubmitted,
    PlanAccepted,
    PlanExpanded,
    PlanProposed,
    PlanRejected,
    QuestionAnswered,
    QuestionAsked,
    TaskClosed,
)
from interlock.protocol.state import Entry, JobState

TASKS = st.sampled_from(["_", "a:0", "a:1", "a:2", "a", "b", "nowhere", "a:00", "a:-1"])
STEPS = (step("a", items=True, attempts=2), step("b", needs=("a",)))
ROUNDS = 20


@st.composite
def strays(draw: st.DrawFn) -> tuple[Envelope, bool]:
    """Draw any message about one of few tasks, and whether it answers the head of its chain."""
    message = draw(st.sampled_from([one for one in MESSAGE_TYPES if one is not JobSubmitted]).flatmap(messages_of))
    changes: dict[str, Any] = {"task": draw(TASKS)}
    few = {"attempt": st.integers(0, 3), "step": st.sampled_from(["a", "b", "nowhere"]), "items": st.integers(0, 4)}
    for name, values in few.items():
        if name in type(message).model_fields:
            changes[name] = draw(values)
    return message.model_copy(update=changes), draw(st.booleans())


PLANNING: tuple[type[Envelope], ...] = (
    PlanProposed,
    PlanAccepted,
    PlanRejected,
    PlanExpanded,
    QuestionAsked,
    QuestionAnswered,
    TaskClosed,
)
OUTCOMES: list[dict[str, Any]] = [
    {"makes": "question", "text": "Which?"},
    {"makes": "refusal", "text": "no"},
    {"unreadable": "no JSON"},
    {"steps": (plan_step("a"), plan_step("b"))},
]


@st.composite
def about_plans(draw: st.DrawFn) -> tuple[Envelope, bool]:
    """Draw a message about the plan of a job, and whether it answers the head of its chain."""
    message = draw(st.sampled_from(PLANNING).flatmap(messages_of))
    few: dict[str, st.SearchStrategy[Any]] = {
        "task": st.sampled_from(["_", "a", "b"]),
        "version": st.integers(1, 3),
        "by": st.sampled_from(["boss@t", "w@t"]),
        "question": st.sampled_from(["q-m2", "q-m4"]),
        "steps": st.sampled_from([(plan_step("a"), plan_step("b")), (plan_step("b"),)]),
    }
    changes = {name: draw(values) for name, values in few.items() if name in type(message).model_fields}
    return message.model_copy(update=changes), draw(st.booleans())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(parts=st.lists(strays() | st.none(), max_size=8))
def test_a_log_with_anything_in_it_is_folded_decided_and_ended(parts: list[tuple[Envelope, bool] | None]) -> None:
    """Between the manager's own entries stands whatever was drawn; None lets the manager go on once."""
    story = Story(STEPS, {"a": 2})
    for part in parts:
        if part is None:
            story.carry_out(*story.decide())
        else:
            message, fits = part
            answers = story.state.head_of(message.task) if fits else message.answers
            story.tell(message.model_copy(update={"answers": answers}))
    story.killed = "stop"
    for _ in range(ROUNDS):
        story.carry_out(*story.decide())
    assert story.state.closed is not None
    assert not list(story.state.open_tasks())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(message=messages_of(JobSubmitted))
def test_any_submitted_job_has_a_next_step(message: JobSubmitted) -> None:
    """A job that could be sent can be taken up: it has a deadline or none, and something to decide."""
    first = message.model_copy(update={"answers": 0, "task": JOB_TASK})
    state = evolve(JobState(), Entry(1, first))
    deadline = deadline_of(state)
    (command,) = decide(state, message.at)
    over = deadline is not None and deadline <= message.at
    assert isinstance(command, CloseJob if over else AcceptPlan if message.team.plan else Propose)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(parts=st.lists(about_plans() | st.sampled_from(OUTCOMES), max_size=8))
def test_a_job_that_is_planned_is_ended_whatever_stands_between(
    parts: list[tuple[Envelope, bool] | dict[str, Any]],
) -> None:
    """Between what the manager's model comes to stands whatever was drawn about the plan."""
    story = planned(approve=len(parts) % 2 == 1, limits={"plans": 2, "replans": 1})
    for part in parts:
        if isinstance(part, dict):
            if story.wanted is not None:
                story.propose(*part.get("steps", ()), **{name: one for name, one in part.items() if name != "steps"})
            continue
        message, fits = part
        answers = story.state.head_of(message.task) if fits else message.answers
        story.tell(message.model_copy(update={"answers": answers}))
        story.go_on()
    story.killed = "stop"
    story.go_on()
    assert story.state.closed is not None
    assert not list(story.state.open_tasks())
