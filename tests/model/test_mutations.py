"""Each guard of ``evolve`` and ``decide`` matters: with it taken out, a search finds which law breaks."""

from dataclasses import dataclass, replace

import pytest
from tests.model.core import Mutation, mutated
from tests.model.explore import check_refusals, explore
from tests.model.laws import Violation
from tests.model.world import Fact, Scenario, step

PASS_FAIL = ("pass", "fail")
LIMIT = 5_500
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
STOLEN = replace(CHAINED, forgeries=1, effects="head", forged=(Fact("intended", 1, "a"),))
ASKING = Scenario((step("s", attempts=1),), asks=1, verdicts=PASS_FAIL)
ASKING_KILLED = Scenario((step("s", attempts=1),), asks=1, verdicts=PASS_FAIL, kill=True)
UNANSWERED = Scenario((step("s", attempts=1),), asks=1, verdicts=PASS_FAIL, persons=False)
FORGED_ASKING = Scenario((step("s", attempts=1),), asks=1, forgeries=1, verdicts=("pass",))
RECORDED = Scenario((step("s", attempts=1),), effects="head", records=1, ordered=True, verdicts=("pass",))
RECORDED_TWICE = replace(RECORDED, intents=1, records=2)
REJECTED = Scenario((step("s", attempts=1),), rejects=True)
REJECTED_AND_FORGED = Scenario((step("s", attempts=1),), rejects=True, forgeries=1, verdicts=("pass",))
FORGED_IN_ORDER = Scenario((step("s", attempts=1),), forgeries=1, verdicts=PASS_FAIL, ordered=True)

FORGED_ITEMS = Scenario((step("s", for_each=True, attempts=1),), {"s": 1}, forgeries=1, verdicts=("pass",))
RETRIED = Scenario((step("s", attempts=1),), retries=1, ordered=True, verdicts=PASS_FAIL)
RETRIED_KILLED = replace(RETRIED, kill=True)
RETRIED_TWICE = replace(RETRIED, retries=2)
RETRIED_REJECTED = replace(RETRIED, rejects=True)
RETRIED_AND_FORGED = replace(RETRIED, forgeries=1, verdicts=("fail",))
RETRIED_CHAINED = replace(RETRIED, steps=(step("a", attempts=1), step("b", needs=("a",), attempts=1)))
RETRIED_ITEMS = replace(RETRIED, steps=(step("s", for_each=True, attempts=1),), items={"s": 1})
RETRIED_ITEMS_KILLED = replace(RETRIED_ITEMS, kill=True)
RETRIED_FAN_IN = replace(
    RETRIED,
    steps=(step("a", for_each=True, attempts=1), step("b", needs=("a",), attempts=1)),
    items={"a": 2},
    parallel=1,
)
RETRIED_FAN = replace(
    RETRIED_FAN_IN,
    steps=(step("a", for_each=True, attempts=1), step("b", needs=("a",), for_each=True, attempts=1)),
    items={"a": 2, "b": 1},
)


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


def _state(old: str, new: str, scenario: Scenario, law: str) -> Case:
    return Case(Mutation("state", old, new), scenario, law)


def _effects(old: str, new: str, scenario: Scenario, law: str) -> Case:
    return Case(Mutation("evolving_effects", old, new), scenario, law)


def _planning(old: str, new: str, scenario: Scenario, law: str) -> Case:
    return Case(Mutation("planning", old, new), scenario, law)


def _retries(old: str, new: str, scenario: Scenario, law: str) -> Case:
    return Case(Mutation("retries", old, new), scenario, law)


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
        "return attempt is not None and message.attempt == attempt.number and message.by == attempt.role",
        "return attempt is not None and message.by == attempt.role",
        FORGED,
        "no result is taken of an attempt that is not current",
    ),
    "a result may come at any time": _machine(
        "attempt = task.current if task.phase is Phase.ASSIGNED else None",
        "attempt = task.current if task.attempts else None",
        FORGED,
        "no result is taken out of turn",
    ),
    "a verdict may come at any time": _machine(
        "attempt = task.current if task.phase is Phase.RESULT else None",
        "attempt = task.current if task.attempts else None",
        FORGED,
        "no verdict is taken out of turn",
    ),
    "a verdict may name any attempt": _machine(
        "return attempt is not None and message.attempt == attempt.number and message.by == attempt.verifier",
        "return attempt is not None and message.by == attempt.verifier",
        FORGED,
        "no verdict is taken of an attempt that is not current",
    ),
    "a result may come from any role": _machine(
        "case TaskResult() if task and _by_worker(task, message):",
        "case TaskResult() if task and _by_worker(task, message.model_copy(update={'by': task.current.role})):",
        FORGED,
        "no result is taken from another role",
    ),
    "an effect may be announced by any role": _machine(
        "case EffectIntended() if task and _by_worker(task, message) and",
        "case EffectIntended() if task and _by_worker(task, message.model_copy(update={'by': task.current.role})) and",
        FORGED,
        "no intended is taken from another role",
    ),
    "an effect may be announced at any time": _machine(
        "case EffectIntended() if task and _by_worker(task, message) and",
        "case EffectIntended() if task and task.attempts and",
        FORGED,
        "no intended is taken",
    ),
    "a question may come from any role": _machine(
        "case QuestionAsked() if task and _by_worker(task, message):",
        "case QuestionAsked() if task and _by_worker(task, message.model_copy(update={'by': task.current.role})):",
        FORGED,
        "no asked is taken from another role",
    ),
    "a question may be asked at any time": _machine(
        "case QuestionAsked() if task and _by_worker(task, message):",
        "case QuestionAsked() if task and task.attempts:",
        FORGED,
        "no asked is taken",
    ),
    "a verdict may come from any role": _machine(
        "message.attempt == attempt.number and message.by == attempt.verifier",
        "message.attempt == attempt.number",
        FORGED,
        "no verdict is taken from another role",
    ),
    "a task may take another's effect": _machine(
        "case EffectIntended() if task and _by_worker(task, message) and is_of_this_task(state, message):",
        "case EffectIntended() if task and _by_worker(task, message):",
        STOLEN,
        "no task takes another task's effect",
    ),
    # evolve, what a person is asked
    "an answer may come at any time": _machine(
        "case QuestionAnswered() if task and task.phase is Phase.ASKED and task.question:",
        "case QuestionAnswered() if task and task.question:",
        FORGED_ASKING,
        "no answer is taken out of turn",
    ),
    "an answer may be for another question": _machine(
        "if message.question != question.asked.question:",
        "if False:",
        FORGED_ASKING,
        "no answer is taken for another question",
    ),
    "an attempt may go on before the answer": _machine(
        "return task.phase is Phase.ANSWERED and _same_attempt(task, message)",
        "return _same_attempt(task, message)",
        FORGED_ASKING,
        "an answer is used once, and before anything else",
    ),
    "another attempt may go on from an answer": _machine(
        "        message.attempt == task.current.number\n        and (message.role",
        "        (message.role",
        FORGED_ASKING,
        "no answer is used by another attempt",
    ),
    "another worker may go on from an answer": _machine(
        "        and (message.role, message.verifier) == (task.current.role, task.current.verifier)\n",
        "",
        FORGED_ASKING,
        "an attempt goes on with its worker",
    ),
    "an attempt may go on from anything": _machine(
        "        and message.resumes == task.question.answered\n",
        "",
        FORGED_ASKING,
        "an attempt goes on from its answer",
    ),
    "a waiting task may be redone": _machine(
        "    if message.resumes:\n        return task.phase",
        "    if message.resumes or task.phase is Phase.ASKED:\n        return task.phase is Phase.ASKED or task.phase",
        FORGED_ASKING,
        "a task that waits for a person is not assigned before the answer",
    ),
    "a stray entry ends the wait for a person": _machine(
        "idle = task.phase in {Phase.CLOSED, Phase.RETRIED, Phase.ASKED}",
        "idle = task.phase in {Phase.CLOSED, Phase.RETRIED}",
        FORGED_ASKING,
        "who waits for a person waits for nobody else",
    ),
    "a question is nobody's": _machine(
        "        asking=state.asking | {task.id},\n", "", ASKING, "no job stops before its end"
    ),
    "an answer calls nobody": _machine(
        "        asking=state.asking - {task.id},\n        waiting=state.waiting | {task.id},\n",
        "        asking=state.asking - {task.id},\n",
        ASKING,
        "no job stops before its end",
    ),
    "an answered question stays open": _machine(
        "        asking=state.asking - {task.id},\n        waiting=state.waiting | {task.id},\n",
        "        waiting=state.waiting | {task.id},\n",
        ASKING,
        "a question is answered once",
    ),
    "a closed task goes on waiting for a person": _machine(
        "        waiting=state.waiting - {task.id},\n        asking=state.asking - {task.id},\n",
        "        waiting=state.waiting - {task.id},\n",
        ASKING_KILLED,
        "an answer follows its question",
    ),
    "a resumed attempt stays waiting": _machine(
        "return replace(state, tasks=state.tasks.insert(task.id, task), waiting=state.waiting - {task.id})",
        "return replace(state, tasks=state.tasks.insert(task.id, task))",
        ASKING,
        "no task fails without a verdict",
    ),
    # evolve, changes outside
    "what is done may be forgotten for a new intent": _effects(
        "    if known is not None and known.status is EffectStatus.DONE:\n        return state\n",
        "",
        RECORDED,
        "a done effect stays done",
    ),
    "what is done may be forgotten for a report": _effects(
        "if effect is None or effect.status is EffectStatus.DONE or not",
        "if effect is None or not",
        RECORDED_TWICE,
        "a done effect stays done",
    ),
    "anybody may tell what came of an effect": _effects(
        "if message.by not in _reporters(state, message.task):",
        "if False:",
        RECORDED,
        "a done effect stays done, and no other is",
    ),
    "a late report may speak for a later intent": _effects(
        "case EffectDone() if message.failed and message.answers <= effect.follows:",
        "case EffectDone() if False:",
        RECORDED,
        "an effect under way is not taken for failed",
    ),
    # evolve, plans that are rejected
    "a plan may be rejected twice": _planning(
        "in_force = state.rejected is None and message.version",
        "in_force = message.version",
        REJECTED_AND_FORGED,
        "a plan is rejected once",
    ),
    "a job may be closed at any time": _machine(
        "case JobClosed() if state.submitted is not None and not state.open:",
        "case JobClosed() if state.submitted is not None:",
        FORGED_IN_ORDER,
        "no job is closed while a task is open",
    ),
    "a closed job may go on": _machine(
        "over = state.closed is not None and not isinstance(message, JobRetried)",
        "over = False",
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
        "waiting = state.waiting if idle else state.waiting | {name}", "waiting = state.waiting", FORGED, "stops"
    ),
    # evolve: what managers rely on
    "an answered verdict stays waiting": _machine(
        "        waiting=state.waiting - {task.id},\n        asking=state.asking - {task.id},\n",
        "        asking=state.asking - {task.id},\n",
        ONE,
        "no task is closed twice",
    ),
    "steps begin in the plan's order, not in the log's": _state(
        "queue=(*self.queue, *more)",
        "queue=tuple(sorted((*self.queue, *more), key=self.order.index))",
        ORDERED,
        "no more tasks are open than the limit",
    ),
    "steps begin before their needs are over": _state(
        "and self.ready(name) and not", "and not", CHAINED, "no task begins before what it needs is over"
    ),
    "steps begin on nothing": _state(
        "and self.ready(name) and not self.obstacle(name)",
        "and self.ready(name)",
        CHAINED,
        "no task begins on a need that delivered nothing",
    ),
    # evolve: what was settled, and what is put back
    "a settled item may begin again": _machine(
        "    if state.step_of_settled(message.task):\n", "    if False:\n", FORGED_ITEMS, "follows the log as any other"
    ),
    "items settled in order are forgotten altogether": _state(
        "return index < step.next_index or index in step.settled",
        "return index in step.settled",
        FORGED_ITEMS,
        "follows the log as any other",
    ),
    "items settled out of order are forgotten altogether": _state(
        "return index < step.next_index or index in step.settled",
        "return index < step.next_index",
        ITEMS,
        "settled items",
    ),
    "a closed job stays closed": _machine(
        "over = state.closed is not None and not isinstance(message, JobRetried)",
        "over = state.closed is not None",
        RETRIED,
        "what failed can be put back",
    ),
    "a job is taken up and stays closed": _retries(
        "closed=None, proposed=None, question=None, tries=0",
        "proposed=None, question=None, tries=0",
        RETRIED,
        "taken up again is open",
    ),
    "a stray entry fails what was put back": _machine(
        "idle = task.phase in {Phase.CLOSED, Phase.RETRIED, Phase.ASKED}",
        "idle = task.phase in {Phase.CLOSED, Phase.ASKED}",
        RETRIED_AND_FORGED,
        "no stray entry fails what was put back",
    ),
    "what was put back may begin with any attempt": _machine(
        "return message.attempt == len(task.attempts) + 1 and (task.step",
        "return (task.step",
        RETRIED_AND_FORGED,
        "attempts are numbered without gaps",
    ),
    "what was put back is closed as if it were open": _machine(
        "begun = task.phase is not Phase.RETRIED",
        "begun = True",
        RETRIED_KILLED,
        "the machine follows what the broker took",
    ),
    "what was put back is not counted as open": _machine(
        "        open=step.open + begins,\n", "        open=step.open + (not again),\n", RETRIED, "follows what"
    ),
    "an item that began again stays in the queue": _machine(
        "queue = _queue_without(state, task) if begins else queue", "pass", RETRIED_ITEMS, "more attempts"
    ),
    "an item that was cancelled again stays in the queue": _machine(
        "queue = state.queue if begun else _queue_without(state, task)",
        "queue = state.queue",
        RETRIED_ITEMS_KILLED,
        "after it was closed",
    ),
    "a rejected plan is taken up": _retries(
        "    if state.rejected is not None:\n", "    if False:\n", RETRIED_REJECTED, "a plan that stands"
    ),
    "a killed job is taken up": _retries(
        'state.closed.status == "killed"', 'state.closed.status == ""', RETRIED_KILLED, "a killed job is not taken up"
    ),
    "what was put back is put back again": _retries(
        "    if known.phase is Phase.RETRIED:\n        return f",
        "    if known.phase is Phase.RETRIED:\n        return '' and f",
        RETRIED_TWICE,
        "only what failed is put back",
    ),
    "a need is put back under what is at work": _retries(
        "if state.ready(name) and not step.complete:", "if False:", RETRIED_FAN_IN, "while what needs it is at work"
    ),
    "accepted items are made again": _retries(
        "if step.spec.for_each is not None and step.accepted:", "if False:", RETRIED_FAN, "items are not made again"
    ),
    "what was made of it stays": _retries(
        "        if step.complete:\n", "        if False:\n", RETRIED_CHAINED, "while a task is open"
    ),
    "an item that was put back is not queued": _retries(
        "        queue=(*state.queue, task.id),\n", "", RETRIED_ITEMS, "no job stops before its end"
    ),
    "a step that was put back keeps its place": _retries(
        "        queue=tuple(one for one in state.queue if one != name),\n",
        "",
        RETRIED_FAN_IN,
        "no task begins before what it needs is over",
    ),
    "a step that was put back does not begin": _retries(
        "next_index=0, accepted=0", "accepted=0", RETRIED, "no job stops before its end"
    ),
    "what was put back keeps its outcome": _retries(
        "        outcome=None,\n", "", RETRIED_AND_FORGED, "a closed task stays closed"
    ),
    "an item that was counted again forgets its chain": _retries(
        "            strays=state.strays.insert(known.id, known.head),\n", "", RETRIED_FAN, "stops"
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
    "a rejected plan is carried out": _decide(
        "    if state.rejected is not None:\n", "    if False:\n", REJECTED, "a plan that was rejected is not accepted"
    ),
    "nobody answers for a person": _decide(
        "        *_overdue(state, now),\n", "", UNANSWERED, "no job stops before its end"
    ),
    "an answer is a stray entry": _decide(
        "    if task.phase is Phase.ANSWERED:\n", "    if False:\n", ASKING, "no task fails without a verdict"
    ),
    "an attempt goes on without its answer": _decide(
        "        resumes=task.question.answered if task.question else 0,\n", "", ASKING, "no attempt is assigned twice"
    ),
    "a stop leaves what was put back": _decide(
        "if known.phase is Phase.RETRIED and only in {None, known.step}:",
        "if False:",
        RETRIED_KILLED,
        "while a task is open",
    ),
    "blocked tasks that were put back stay": _decide(
        "and state.may_begin(state.steps[name], None)\n",
        "and name not in state.tasks\n",
        RETRIED_CHAINED,
        "no job stops before its end",
    ),
    "nobody answers a stray entry": _decide(
        "    if task.phase is not Phase.VERDICT:\n", "    if False:\n", FORGED, "no log grows for ever"
    ),
}

REFUSALS = {
    "entries that answer another head are followed": Mutation(
        "machine", "if over or message.answers != head:", "if over:"
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
