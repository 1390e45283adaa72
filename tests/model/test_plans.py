"""Every state of small worlds whose manager makes the plan, and what a search finds with a guard taken out."""

from dataclasses import replace

import pytest
from tests.model.core import Mutation, mutated
from tests.model.explore import explore
from tests.model.laws import Violation
from tests.model.world import Crew, Fact, Scenario, step

PASS_FAIL = ("pass", "fail")
NO_FORGED_TASKS = (Fact("verdict", 9, "pass"),)
LIMIT = 5_000
"""More states than any of the scenarios has that mutations are caught by."""

ONE = (step("a", attempts=1),)
OTHER = (step("c", attempts=1),)
TWO = (step("a", attempts=1), step("b", needs=("a",), attempts=1))
TWO_ANEW = (step("a", attempts=1), step("c", needs=("a",), attempts=1))

ANYTHING = Scenario(ONE, makes=("plan", "bad", "question", "answer", "refusal"), plans=2, verdicts=PASS_FAIL, kill=True)
APPROVED = Scenario(ONE, makes=("plan", "bad"), plans=2, approve=True, verdicts=PASS_FAIL, kill=True)
ALONE = Scenario(ONE, makes=("plan", "question"), plans=2, approve=True, persons=False, verdicts=PASS_FAIL)
ANEW = Scenario(
    TWO,
    second=TWO_ANEW,
    makes=("plan", "bad", "refusal"),
    plans=2,
    replans=1,
    ordered=True,
    verdicts=PASS_FAIL,
)
ANEW_KILLED = replace(ANEW, makes=("plan", "question"), plans=1, kill=True)
ANEW_RETRIED = replace(ANEW, steps=ONE, second=OTHER, makes=("plan", "question"), plans=1, retries=1)
ANEW_FORGED = replace(
    ANEW,
    makes=("plan",),
    plans=1,
    forgeries=1,
    forged=NO_FORGED_TASKS,
    forged_plan=(Fact("planned", 2, "other"), Fact("proposed", 2, "plan"), Fact("proposed", 3, "plan")),
)
GIVEN = Scenario(
    (step("a", attempts=1, replan=True), step("b", attempts=1)),
    second=(step("b", attempts=1), *OTHER),
    makes=("plan", "bad"),
    given=True,
    plans=1,
    replans=1,
    ordered=True,
    verdicts=PASS_FAIL,
)
ITEMS = Scenario(
    (step("a", for_each=True, attempts=1),),
    {"a": 2},
    second=(step("a", for_each=True, attempts=1), step("c", needs=("a",), attempts=1)),
    makes=("plan",),
    replans=1,
    parallel=1,
    ordered=True,
    verdicts=PASS_FAIL,
)
FAILING = Scenario(ONE, makes=("plan",), replans=1, second=OTHER, ordered=True, verdicts=("fail",))
FORGED = Scenario(ONE, makes=("plan", "question"), forgeries=1, verdicts=("pass",))
FORGED_APPROVED = Scenario(ONE, makes=("plan",), forgeries=1, approve=True, verdicts=("pass",))

WORLDS = {
    "whatever the model comes to, killed": (ANYTHING, 1_721),
    "a proposal, a question or a bad one, with the crew": (
        Scenario(ONE, makes=("plan", "bad", "question"), plans=2, verdicts=PASS_FAIL, crew=Crew(managers=2, workers=1)),
        1_096,
    ),
    "a person is asked, killed": (APPROVED, 277),
    "nobody answers": (ALONE, 77),
    "a new version": (ANEW, 134),
    "a new version, killed": (ANEW_KILLED, 960),
    "a new version, put back": (ANEW_RETRIED, 1_001),
    "a new version and one entry out of turn": (ANEW_FORGED, 1_878),
    "a new version of the file's plan": (GIVEN, 2_764),
    "a new version that keeps items": (ITEMS, 47),
    "one entry out of turn": (FORGED, 4_543),
    "one entry out of turn, where a person is asked": (FORGED_APPROVED, 2_263),
}


@pytest.mark.parametrize("name", WORLDS)
def test_every_state_of_planning_keeps_the_laws_and_can_end(name: str) -> None:
    """No entry of any reachable log breaks a law, the only dead ends are closed jobs, and every state leads to one."""
    scenario, states = WORLDS[name]
    found = explore(scenario)
    assert found.ends > 0
    assert found.states == states, "the search grew or shrank: say why in the commit, and write the new number here"


def _planning(old: str, new: str) -> Mutation:
    return Mutation("planning", old, new)


def _deciding(old: str, new: str) -> Mutation:
    return Mutation("deciding_plans", old, new)


MUTATIONS = {
    # evolve
    "a second proposal": (
        _planning("if state.proposed is not None or state.rejected", "if state.rejected"),
        FORGED,
        "while something is pending",
    ),
    "proposals without end": (
        _planning(" or state.tries >= limits.plans:", ":"),
        FORGED,
        "no more is proposed than the tries",
    ),
    "any version is proposed": (
        _planning("    if message.version != state.version + 1:\n", "    if False:\n"),
        FORGED,
        "versions follow each other",
    ),
    "a version is proposed where none may be": (
        _planning("return state.version <= limits.replans and _is_over(state)", "return _is_over(state)"),
        replace(ANEW_FORGED, replans=0),
        "no more versions than the limit",
    ),
    "a version is proposed while tasks are open": (
        _planning(
            "return state.version <= limits.replans and _is_over(state)", "return state.version <= limits.replans"
        ),
        ANEW_FORGED,
        "waits for what is open",
    ),
    "anybody asks for the manager": (
        _planning(" or message.by != manager_role(submitted.team):", ":"),
        FORGED,
        "only the manager asks",
    ),
    "a person is asked again": (
        _planning("if state.question is not None or proposal.unreadable", "if proposal.unreadable"),
        FORGED_APPROVED,
        "a person is asked once",
    ),
    "a person is asked about what nobody asks": (
        _planning(
            'return message.about == "input" and proposal.makes == "question"', 'return message.about == "input"'
        ),
        FORGED_APPROVED,
        "asked what is pending",
    ),
    "an answer to another question": (
        _planning("    if message.question != question.asked.question:\n", "    if False:\n"),
        FORGED,
        "no answer is taken for another question",
    ),
    "a plan is rejected while a person is asked": (
        _planning("    if state.question is not None and state.question.answer is None:\n        return None\n", ""),
        FORGED,
        "a person is heard before",
    ),
    "a plan that is not there is rejected": (
        _planning(" and message.version == (state.version or 1)", ""),
        FORGED,
        "only a plan that is there",
    ),
    "any plan is accepted": (
        _planning(
            "if state.proposed is None or not _is_what_was_proposed(plan, state.proposed):",
            "if state.proposed is None:",
        ),
        FORGED,
        "nothing is followed that was not proposed",
    ),
    "a plan is accepted without the yes": (
        _planning("if submitted.approve_plan and not is_approved(state):", "if False:"),
        FORGED_APPROVED,
        "nothing is followed without the yes",
    ),
    "an accepted plan stays proposed": (
        _planning("        proposed=None,\n        question=None,\n        tries=0,\n", ""),
        FAILING,
        "nothing is followed that was not proposed",
    ),
    "tries are never given back": (
        _planning("        question=None,\n        tries=0,\n", "        question=None,\n"),
        ANEW,
        "before the tries are over",
    ),
    "a new version begins what was done anew": (
        _planning("state.steps.get(step.step) or _fresh", "_fresh"),
        ANEW,
        "no job stops before its end",
    ),
    # decide
    "nobody waits for the person": (
        _deciding("    if question is not None and question.answer is None:\n", "    if False:\n"),
        APPROVED,
        "a person is asked once",
    ),
    "nobody answers for the person": (
        _deciding("if asked is not None and asked.expires is not None and asked.expires <= now:", "if False:"),
        ALONE,
        "no job stops before its end",
    ),
    "nobody counts the tries": (
        _deciding("if state.tries >= state.submitted.team.limits.plans:", "if False:"),
        ANYTHING,
        "no more is proposed than the tries",
    ),
    "a no is no end": (
        _deciding("        if is_declined(state):\n", "        if False:\n"),
        APPROVED,
        "a person is asked once",
    ),
    "a refusal is judged": (
        _deciding('        if proposal.makes == "refusal":\n', "        if False:\n"),
        ANYTHING,
        "nothing is followed that was not proposed",
    ),
    "nobody counts the versions": (
        _deciding("if not failed or state.version > team.limits.replans:", "if not failed:"),
        replace(ANEW, replans=0),
        "no more versions than the limit",
    ),
    "no new version": (
        _deciding("if not failed or state.version > team.limits.replans:", "if True:"),
        ANEW,
        "before the tries are over",
    ),
    "what the person wrote is made anew": (
        _deciding(
            'return not team.plan or any(step.spec.on_failure == "replan" for step in failed)', "return bool(failed)"
        ),
        replace(GIVEN, steps=(step("a", attempts=1), step("b", attempts=1))),
        "a plan is made anew where it failed",
    ),
    "an answer is judged": (
        Mutation("decide", "if (answer := direct_answer(state)) is not None:", "if (answer := None) is not None:"),
        ANYTHING,
        "an answer is given and not judged",
    ),
    # putting back
    "what was proposed outlives what is put back": (
        Mutation("retries", "closed=None, proposed=None, question=None, tries=0", "closed=None"),
        ANEW_RETRIED,
        "an answer follows its question",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_search_catches_the_missing_guard_of_planning(name: str) -> None:
    """Without this guard some reachable log or state breaks a law."""
    mutation, scenario, law = MUTATIONS[name]
    with pytest.raises(Violation, match=law):
        explore(scenario, mutated(mutation), limit=LIMIT)
