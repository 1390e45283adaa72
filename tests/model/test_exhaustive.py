"""Every state of small worlds: what the chain promises holds in all of them, and without the chain it does not.

``INTERLOCK_SEARCH=large`` also runs the larger searches (minutes instead of seconds).
"""

import os

import pytest
from tests.model.explore import Finding, broken_laws, check_refusals, explore
from tests.model.laws import Violation
from tests.model.world import Crew, Fact, Scenario, step

CREW = Crew(managers=2, workers=2, verifiers=1)
"""The processes of a search that keeps each of them; without, any number of them takes part."""

ITEMS = (step("s", for_each=True),)
CHAINED = (step("a"), step("b", needs=("a",)))
ITEMS_ONCE = (step("s", for_each=True, attempts=1),)
CHAINED_ONCE = (step("a", attempts=1), step("b", needs=("a",), attempts=1))
FAN_IN = (step("a", for_each=True, attempts=2), step("b", needs=("a",), attempts=2))
FAN_IN_ONCE = (step("a", for_each=True, attempts=1), step("b", needs=("a",), attempts=1))
FAN_TO_FAN = (step("a", for_each=True, attempts=1), step("b", needs=("a",), for_each=True, attempts=1))
FAN_OUT = (step("a", attempts=2), step("b", needs=("a",), for_each=True, attempts=2))

DEFAULT = {
    "two items, three attempts, with the crew": (Scenario(ITEMS, {"s": 2}, crew=CREW), 14_250),
    "two items, three attempts, killed": (Scenario(ITEMS, {"s": 2}, kill=True), 13_104),
    "two chained steps, killed, with the crew": (Scenario(CHAINED, kill=True, crew=CREW), 6_319),
    "two items, then a step that needs them, killed": (Scenario(FAN_IN, {"a": 2}, kill=True), 12_909),
    "a step, then two items that need it, killed": (Scenario(FAN_OUT, {"b": 2}, kill=True), 8_163),
    "an empty list, then a step that needs it": (Scenario((step("a", for_each=True), CHAINED[1]), {"a": 0}), 68),
    "three items, two at once, killed": (
        Scenario((step("a", for_each=True, attempts=2),), {"a": 3}, parallel=2, kill=True, verdicts=("pass", "fail")),
        8_352,
    ),
    "two steps, one task at once, views are beginnings of the log": (
        Scenario(
            (step("a", for_each=True, attempts=1), step("b", attempts=1)),
            {"a": 2},
            parallel=1,
            ordered=True,
            verdicts=("pass", "fail"),
            kill=True,
        ),
        7_809,
    ),
    "workers that repeat themselves": (Scenario((step("s"),), outputs=("new", "same"), crew=CREW), 595),
    "attempts with effects": (Scenario((step("s", attempts=2),), effects="head", crew=CREW), 684),
    "one entry out of turn": (Scenario((step("s", attempts=2),), forgeries=1, verdicts=("pass", "fail")), 2_039),
    "one entry out of turn, views are beginnings of the log": (
        Scenario((step("s", attempts=1),), forgeries=1, verdicts=("pass", "fail"), ordered=True),
        1_882,
    ),
    "one entry out of turn, two chained steps": (
        Scenario((step("a", attempts=1), step("b", needs=("a",), attempts=2)), forgeries=1, verdicts=("pass", "fail")),
        5_171,
    ),
    "questions and effects, with the crew": (
        Scenario((step("s", attempts=2),), asks=1, effects="head", intents=1, verdicts=("pass", "fail"), crew=CREW),
        1_930,
    ),
    "two questions of each attempt, killed": (
        Scenario((step("s", attempts=2),), asks=2, verdicts=("pass", "fail"), kill=True),
        1_845,
    ),
    "two items that ask without a deadline, killed": (
        Scenario(ITEMS_ONCE, {"s": 2}, asks=1, expires=False, kill=True),
        1_881,
    ),
    "a question and one entry out of turn": (
        Scenario((step("s", attempts=1),), asks=1, forgeries=1, verdicts=("pass",)),
        4_874,
    ),
    "another task's effect, announced out of turn": (
        Scenario(CHAINED_ONCE, effects="head", forgeries=1, forged=(Fact("intended", 1, "a"),)),
        2_543,
    ),
    "reports of effects, late and twice": (
        Scenario((step("s", attempts=1),), effects="head", records=2, ordered=True, verdicts=("pass",)),
        7_877,
    ),
    "reports of effects before and after a question": (
        Scenario((step("s", attempts=1),), effects="head", asks=1, records=1, ordered=True, verdicts=("pass",)),
        2_888,
    ),
    "a plan that is rejected, two items, killed": (
        Scenario(ITEMS_ONCE, {"s": 2}, rejects=True, kill=True, verdicts=("pass", "fail")),
        612,
    ),
    "two items, one at once, one put back": (
        Scenario(ITEMS_ONCE, {"s": 2}, parallel=1, retries=1, ordered=True, verdicts=("pass", "fail")),
        229,
    ),
    "two chained steps, put back twice": (
        Scenario(CHAINED_ONCE, retries=2, ordered=True, verdicts=("pass", "fail")),
        1_234,
    ),
    "two chained steps, put back, killed": (
        Scenario(CHAINED_ONCE, retries=1, ordered=True, verdicts=("pass", "fail"), kill=True),
        10_359,
    ),
    "two items, then a step that needs them, one put back": (
        Scenario(FAN_IN_ONCE, {"a": 2}, parallel=1, retries=1, ordered=True, verdicts=("pass", "fail")),
        784,
    ),
    "two items, then an item that needs them, one put back": (
        Scenario(FAN_TO_FAN, {"a": 2, "b": 1}, parallel=1, retries=1, ordered=True, verdicts=("pass", "fail")),
        753,
    ),
    "an item, then an item that needs it, put back twice": (
        Scenario(FAN_TO_FAN, {"a": 1, "b": 1}, retries=2, ordered=True, verdicts=("pass", "fail")),
        320,
    ),
    "two items, then a step, and another step, one put back": (
        Scenario(
            (*FAN_IN_ONCE, step("c", attempts=1)),
            {"a": 1},
            parallel=1,
            retries=1,
            ordered=True,
            verdicts=("pass", "fail"),
        ),
        4_353,
    ),
    "a step that is put back, and one entry out of turn": (
        Scenario((step("s", attempts=1),), retries=1, forgeries=1, ordered=True, verdicts=("pass", "fail")),
        8_589,
    ),
    "a plan that is rejected, a step that is put back": (
        Scenario((step("s", attempts=1),), retries=1, rejects=True, ordered=True, verdicts=("pass", "fail")),
        210,
    ),
    "an item and one entry out of turn": (
        Scenario(ITEMS_ONCE, {"s": 1}, forgeries=1, verdicts=("pass",)),
        657,
    ),
}

LARGE = {
    "two items at once, one put back, two attempts": Scenario(
        (step("s", for_each=True, attempts=1),), {"s": 2}, retries=1, ordered=True, verdicts=("pass", "fail")
    ),
    "two items, three attempts, killed, with the crew": Scenario(ITEMS, {"s": 2}, kill=True, crew=CREW),
    "two items of three attempts, then a step of three": Scenario(
        (step("a", for_each=True), CHAINED[1]), {"a": 2}, kill=True
    ),
    "two entries out of turn": Scenario(
        (step("a", attempts=1), step("b", needs=("a",), attempts=1)), forgeries=2, verdicts=("pass", "fail")
    ),
    "two items of two attempts that ask, killed": Scenario(
        (step("s", for_each=True, attempts=2),), {"s": 2}, asks=1, kill=True, verdicts=("pass", "fail")
    ),
    "questions, effects and an entry out of turn": Scenario(
        (step("s", attempts=1),), asks=1, effects="head", forgeries=1, verdicts=("pass", "fail")
    ),
    "every step of every process, one attempt, killed": Scenario(
        (step("s", attempts=1),), reduced=False, kill=True, crew=CREW
    ),
    "every step of every process, two attempts": Scenario(
        (step("s", attempts=2),), reduced=False, verdicts=("pass", "fail"), crew=CREW
    ),
}

large = pytest.mark.skipif(os.environ.get("INTERLOCK_SEARCH") != "large", reason="INTERLOCK_SEARCH=large runs it")


def _report(name: str, found: Finding) -> None:
    print(f"{name}: {found.states} states, {found.logs} logs, {found.ends} ends, {found.seconds:.1f} s")  # noqa: T201


@pytest.mark.parametrize("name", DEFAULT)
def test_every_state_keeps_the_laws_and_can_end(name: str) -> None:
    """No entry of any reachable log breaks a law, the only dead ends are closed jobs, and every state leads to one."""
    scenario, states = DEFAULT[name]
    found = explore(scenario)
    _report(name, found)
    assert found.ends > 0
    assert found.states == states, "the search grew or shrank: say why in the commit, and write the new number here"


@large
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", LARGE)
def test_every_state_of_larger_worlds_keeps_the_laws(name: str) -> None:
    """The same holds where the search takes minutes."""
    _report(name, explore(LARGE[name], limit=50_000_000))


@pytest.mark.parametrize(("managers", "workers"), [(1, 2), (2, 1)])
def test_the_reduced_search_finds_every_log_of_the_plain_one(managers: int, workers: int) -> None:
    """Leaving out what can have no effect loses no log, nor does giving up on who is who."""
    crew = Crew(managers, workers, verifiers=1)
    steps, verdicts = (step("s", attempts=2),), ("pass", "fail")
    plain = explore(Scenario(steps, verdicts=verdicts, reduced=False, crew=crew), keep=True)
    reduced = explore(Scenario(steps, verdicts=verdicts, crew=crew), keep=True)
    anybody = explore(Scenario(steps, verdicts=verdicts), keep=True)
    assert plain.states > 100 * reduced.states
    assert plain.heads == reduced.heads == anybody.heads


WITHOUT_CAS = {
    "nothing is said twice in the job's chain",
    "no attempt is assigned twice",
    "no attempt has two standing verdicts",
    "no result enters after its task moved on",
    "no task is closed twice",
    "nothing enters after the job is closed",
}


@pytest.mark.parametrize("kill", [False, True])
def test_without_the_compare_and_set_the_laws_break(kill: bool) -> None:
    """A broker that takes every entry lets tasks be closed twice, attempts be judged twice and late results in."""
    broken = broken_laws(Scenario((step("s", attempts=2),), cas=False, kill=kill))
    for law, way in broken.items():
        print(f"{law}:\n    " + "\n    ".join(way))  # noqa: T201
    assert set(broken) >= WITHOUT_CAS
    assert not kill or "no job is closed while a task is open" in broken


ASKING_WITHOUT_CAS = {
    "a question is answered once",
    "an answer is used once",
    "nothing is done while a task waits for a person",
    "two workers with one assignment do not both begin an effect",
}


def test_without_the_compare_and_set_people_are_not_heard() -> None:
    """A broker that takes every entry lets answers be used twice, effects begin twice and waiting attempts go on."""
    scenario = Scenario((step("s", attempts=1),), asks=1, effects="head", intents=1, verdicts=("pass",), cas=False)
    assert set(broken_laws(scenario)) >= ASKING_WITHOUT_CAS


def test_the_crew_breaks_the_laws_without_the_compare_and_set() -> None:
    """Two managers, two workers and one verifier are enough for it."""
    with pytest.raises(Violation):
        explore(Scenario((step("s", attempts=2),), cas=False, crew=CREW))


def test_a_worker_that_answers_its_assignment_after_an_effect_can_block_its_task() -> None:
    """An attempt that is taken up again has to answer the chain's head, or a job may never end."""
    with pytest.raises(Violation, match="no job stops before its end"):
        explore(Scenario((step("s", attempts=1),), effects="assignment", crew=CREW))


def test_the_machine_refuses_what_was_told_before_and_what_answers_another_head() -> None:
    """After every log, an entry seen before changes nothing, and an entry with another ``answers`` moves nothing."""
    assert check_refusals(Scenario((step("s", attempts=2),), kill=True)) > 2_000
    assert check_refusals(Scenario((step("s", attempts=1),), asks=1, effects="head")) > 2_000
