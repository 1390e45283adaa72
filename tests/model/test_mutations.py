"""Each guard of ``evolve`` and ``decide`` matters: with it taken out, a search finds which law breaks."""

from dataclasses import dataclass

import pytest
from tests.model.core import Mutation, mutated
from tests.model.explore import check_refusals, explore
from tests.model.laws import Violation
from tests.model.world import Scenario, step

PASS_FAIL = ("pass", "fail")
LIMIT = 4_000
"""More states than any of these scenarios has with every guard in place."""

ONE = Scenario((step("s", attempts=2),))
ITEMS = Scenario((step("s", for_each=True, attempts=1),), {"s": 2}, kill=True)
CHAINED = Scenario((step("a", attempts=1), step("b", needs=("a",), attempts=1)))
FAN_OUT = Scenario((step("a", attempts=1), step("b", needs=("a",), for_each=True, attempts=1)), {"b": 1})
CAPPED = Scenario((step("s", for_each=True, attempts=1),), {"s": 2}, parallel=1)
ORDERED = Scenario(
    (step("a", for_each=True, attempts=1), step("b", attempts=1)),
    {"a": 1},
    parallel=1,
    ordered=True,
    verdicts=PASS_FAIL,
)
REPEATING = Scenario((step("s"),), outputs=("new", "same"))
FORGED = Scenario((step("s", attempts=2),), forgeries=1, verdicts=PASS_FAIL)
FORGED_IN_ORDER = Scenario((step("s", attempts=1),), forgeries=1, verdicts=PASS_FAIL, ordered=True)


@dataclass(frozen=True)
class Case:
    """A guard taken out, where it shows, and which law it keeps."""

    mutation: Mutation
    scenario: Scenario
    law: str


def _machine(old: str, new: str, scenario: Scenario, law: str) -> Case:
    return Case(Mutation("machine", old, new), scenario, law)


def _decide(old: str, new: str, scenario: Scenario, law: str) -> Case:
    return Case(Mutation("decide", old, new), scenario, law)


CASES = {
    # evolve: what somebody may write out of turn must not change the picture
    "whatever closes may accept": _machine(
        "if task.phase is Phase.CLOSED or not _may_close(task, message):",
        "if task.phase is Phase.CLOSED:",
        FORGED,
        "nothing is accepted without a pass",
    ),
    "uncertain may be accepted": _machine(
        'and verdict.verdict == "pass"\n        and message.stands', "and message.stands", FORGED, "without a pass"
    ),
    "another attempt may stand": _machine(
        'and verdict.verdict == "pass"\n        and message.stands == task.current.number',
        'and verdict.verdict == "pass"',
        FORGED,
        "without a pass of what stands",
    ),
    "a closed task may be closed": _machine(
        "if task.phase is Phase.CLOSED or not _may_close(task, message):",
        "if not _may_close(task, message):",
        FORGED,
        "a task counts once",
    ),
    "any attempt may follow": _machine(
        "and message.attempt == task.current.number + 1\n", "\n", FORGED, "attempts are numbered without gaps"
    ),
    "what passed may be redone": _machine(
        'and verdict.verdict != "pass"\n', "", FORGED, "nothing that passed is redone"
    ),
    "a result may name any attempt": _machine(
        "case TaskResult() if task and task.phase is Phase.ASSIGNED and message.attempt == task.current.number:",
        "case TaskResult() if task and task.phase is Phase.ASSIGNED:",
        FORGED,
        "no attempt has another attempt's result",
    ),
    "a result may come at any time": _machine(
        "case TaskResult() if task and task.phase is Phase.ASSIGNED and",
        "case TaskResult() if task and task.attempts and",
        FORGED,
        "a closed task stays closed",
    ),
    "a verdict may come at any time": _machine(
        "case TaskVerdict() if task and task.phase is Phase.RESULT and",
        "case TaskVerdict() if task and task.attempts and",
        FORGED,
        "no verdict without a result",
    ),
    "a verdict may name any attempt": _machine(
        "case TaskVerdict() if task and task.phase is Phase.RESULT and message.attempt == task.current.number:",
        "case TaskVerdict() if task and task.phase is Phase.RESULT:",
        FORGED,
        "no attempt has another attempt's verdict",
    ),
    "a job may be closed at any time": _machine(
        "state.submitted is not None and not state.open, replace(state, closed=message)",
        "state.submitted is not None, replace(state, closed=message)",
        FORGED_IN_ORDER,
        "no job is closed while a task is open",
    ),
    "a closed job may go on": _machine(
        "if state.closed is not None or message.answers != head:",
        "if message.answers != head:",
        FORGED_IN_ORDER,
        "no job is closed while a task is open",
    ),
    "a stray entry is no head of the job": _machine(
        "        return replace(state, head=entry.seq)\n    task = ",
        "        return state\n    task = ",
        FORGED,
        "stops",
    ),
    "a stray entry is no head of a task that never began": _machine(
        "return replace(state, strays=state.strays.insert(name, entry.seq))", "return state", FORGED, "stops"
    ),
    "a stray entry calls nobody": _machine(
        "waiting = state.waiting if task.phase is Phase.CLOSED else state.waiting | {name}",
        "waiting = state.waiting",
        FORGED,
        "stops",
    ),
    # evolve: what managers rely on
    "an answered verdict stays waiting": _machine(
        "replace(state, tasks=state.tasks.insert(task.id, task), waiting=state.waiting - {task.id})",
        "replace(state, tasks=state.tasks.insert(task.id, task))",
        ONE,
        "no task is closed twice",
    ),
    "steps begin in the plan's order, not in the log's": _machine(
        "queue=(*state.queue, *more)",
        "queue=tuple(sorted((*state.queue, *more), key=state.order.index))",
        ORDERED,
        "no more tasks are open than the limit",
    ),
    "steps begin before their needs are over": _machine(
        "and state.ready(name) and not", "and not", CHAINED, "no task begins before what it needs is over"
    ),
    "steps begin on nothing": _machine(
        "and state.ready(name) and not state.obstacle(name)",
        "and state.ready(name)",
        CHAINED,
        "no task begins on a need that delivered nothing",
    ),
    # decide
    "no limit of open tasks": _decide(
        "return max(0, limit - state.open)", "return limit", CAPPED, "no more tasks are open than the limit"
    ),
    "no limit of attempts": _decide(
        "if tried < allowed and not circling:", "if not circling:", ONE, "no task has more attempts"
    ),
    "going in circles": _decide(
        "if tried < allowed and not circling:", "if tried < allowed:", REPEATING, "the same result is not paid for"
    ),
    "uncertain passes": _decide(
        'and verdict.verdict == "pass"', 'and verdict.verdict != "fail"', ONE, "without a pass"
    ),
    "everything passes": _decide('and verdict.verdict == "pass"', "", ONE, "without a pass"),
    "steps are counted before their needs are over": _decide(
        "if state.steps[name].size is None and state.ready(name):",
        "if state.steps[name].size is None:",
        FAN_OUT,
        "no step is counted before",
    ),
    "blocked tasks stay": _decide(
        "and (obstacle := state.obstacle(name))", 'and (obstacle := "")', CHAINED, "no job stops before its end"
    ),
    "a stop leaves what never began": _decide(
        "    if closing or unbegun:\n        return (*closing, *unbegun)",
        "    if closing:\n        return closing",
        ITEMS,
        "no job is closed while a task is open",
    ),
    "a stop closes the job at once": _decide(
        "    if closing or unbegun:\n        return (*closing, *unbegun)\n",
        "",
        ITEMS,
        "no job is closed while a task is open",
    ),
    "a job is closed with tasks to do": _decide(
        "if not all(step.complete for step in state.steps.values()):", "if False:", ONE, "no job is closed while"
    ),
    "nobody answers a stray entry": _decide(
        "    if task.phase is not Phase.VERDICT:\n", "    if False:\n", FORGED, "no log grows for ever"
    ),
}

REFUSALS = {
    "entries that answer another head are followed": Mutation(
        "machine", "if state.closed is not None or message.answers != head:", "if state.closed is not None:"
    ),
    "entries told before move the head back": Mutation("machine", "if entry.seq <= head:", "if False:"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_search_catches_the_missing_guard(name: str) -> None:
    """Without this guard some reachable log or state breaks the law that it keeps."""
    case = CASES[name]
    with pytest.raises(Violation, match=case.law) as caught:
        explore(case.scenario, mutated(case.mutation), limit=LIMIT)
    print("\n".join(caught.value.log))  # noqa: T201


@pytest.mark.parametrize("name", REFUSALS)
def test_replaying_catches_the_missing_comparison(name: str) -> None:
    """Without this comparison an entry out of place changes a state."""
    scenario = Scenario((step("s", attempts=1),), verdicts=PASS_FAIL)
    with pytest.raises(Violation):
        check_refusals(scenario, mutated(REFUSALS[name]))


def test_the_same_scenarios_hold_with_every_guard_in_place() -> None:
    """What the mutations are caught by finds nothing in the code as it is."""
    for scenario in {id(case.scenario): case.scenario for case in CASES.values()}.values():
        assert explore(scenario, limit=LIMIT).ends > 0
