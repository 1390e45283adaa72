import itertools
import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from interlock.agents import verifier
from interlock.agents.checks.registry import evaluate
from interlock.agents.verifier import judge_result, verdict_from
from interlock.backends.chat import ChatReply, ChatRequest
from interlock.backends.errors import ModelTimedOut
from interlock.protocol.base import Usage
from interlock.protocol.messages import CriterionVerdict, Grant, TaskAssigned, TaskResult
from interlock.protocol.team import Agent, ModelSettings

Assign = Callable[..., TaskAssigned]
Claim = Callable[..., TaskResult]
AGENT = Agent(kind="verifier")
SETTINGS = ModelSettings(temperature=0.9)
WORDS = {"check": "words", "max": 3}
POLITE = {"judge": "It is polite", "name": "polite"}
SHORT = {"judge": "It is short", "name": "short"}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def opinion(holds: Any, evidence: Any = "seen", change: Any = "") -> dict[str, Any]:
    return {"evidence": evidence, "holds": holds, "change": change}


def judgement(*holds: Any) -> str:
    return json.dumps({f"c{number}": opinion(one) for number, one in enumerate(holds, 1)})


def found(criteria: tuple[CriterionVerdict, ...]) -> list[tuple[str, bool | None]]:
    return [(one.criterion, one.holds) for one in criteria]


@pytest.mark.parametrize("length", range(4))
def test_only_all_true_passes(length: int) -> None:
    """Of all combinations only those with at least one criterion, and all of them true, pass; any false one fails."""
    for holds in itertools.product([True, False, None], repeat=length):
        criteria = [CriterionVerdict(criterion="c", holds=one, evidence="e") for one in holds]
        expected = "fail" if False in holds else "uncertain" if None in holds or not holds else "pass"
        assert verdict_from(criteria) == expected


async def test_a_good_result_passes(assigned: Assign, claimed: Claim) -> None:
    """A text that keeps to every criterion passes, and its form is the first criterion."""
    said = await judge_result(assigned(criteria=[WORDS]), claimed(output="hello there"), AGENT, None, SETTINGS)
    assert said.verdict == "pass"
    assert found(said.criteria) == [("output", True), ("words", True)]
    assert said.usage == Usage()


async def test_one_broken_criterion_fails(assigned: Assign, claimed: Claim) -> None:
    """One criterion that does not hold fails the result; the others are told all the same, in their order."""
    criteria = [{"check": "regex", "pattern": "^h"}, WORDS, {"check": "contains", "all": ["one"]}]
    said = await judge_result(assigned(criteria=criteria), claimed(output="h one two three"), AGENT, None, SETTINGS)
    assert said.verdict == "fail"
    assert found(said.criteria) == [("output", True), ("regex", True), ("words", False), ("contains", True)]


@pytest.mark.parametrize("status", ["gave_up", "needs_input"])
async def test_only_done_is_a_claim(assigned: Assign, claimed: Claim, status: str) -> None:
    """A worker that did not finish fails, with its reason, whatever output it left."""
    result = claimed(status=status, reason="out of time", output="hello")
    said = await judge_result(assigned(criteria=[WORDS]), result, AGENT, None, SETTINGS)
    assert (said.verdict, found(said.criteria)) == ("fail", [("result", False)])
    assert said.criteria[0].evidence == f"the worker's status is {status}: out of time"


@pytest.mark.parametrize("other", [{"attempt": 2}, {"task": "t2"}, {"job": "j2"}])
async def test_another_attempts_result_is_never_passed(assigned: Assign, claimed: Claim, other: dict[str, Any]) -> None:
    """A result that is not of the assigned attempt is not judged."""
    said = await judge_result(assigned(), claimed(output="hello", **other), AGENT, None, SETTINGS)
    assert (said.verdict, found(said.criteria)) == ("uncertain", [("result", None)])


@pytest.mark.parametrize("output", ["", " \n", None, 3, {"n": 1}])
async def test_text_must_be_text(assigned: Assign, claimed: Claim, output: Any) -> None:
    """Where the output is text, anything else and nothing at all fails, and nothing further is looked at."""
    said = await judge_result(assigned(criteria=[WORDS]), claimed(output=output), AGENT, None, SETTINGS)
    assert (said.verdict, found(said.criteria)) == ("fail", [("output", False)])


async def test_the_schema_is_checked_first(assigned: Assign, claimed: Claim, fake_model: Any) -> None:
    """A worker's claim that its output is valid is checked; where it is not, neither check nor model is asked."""
    model = fake_model(judgement(True))
    assignment = assigned(output_schema=SCHEMA, criteria=[POLITE, {"check": "words", "field": "n", "max": 1}])
    said = await judge_result(assignment, claimed(output={"n": "x"}), AGENT, model, SETTINGS)
    assert (said.verdict, found(said.criteria)) == ("fail", [("output", False)])
    assert "$.n" in said.criteria[0].evidence
    assert model.asked == []


async def test_a_schema_that_decides_nothing_never_passes(assigned: Assign, claimed: Claim) -> None:
    """With a schema that cannot be applied the rest is still checked, and the result is uncertain at best."""
    assignment = assigned(output_schema={"$ref": "http://127.0.0.1:9/x"}, criteria=[WORDS])
    said = await judge_result(assignment, claimed(output="hello"), AGENT, None, SETTINGS)
    assert (said.verdict, found(said.criteria)) == ("uncertain", [("output", None), ("words", True)])


async def test_a_check_that_crashes_is_undecided(
    assigned: Assign, claimed: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in a check is its evidence; it is no pass, and the other criteria are still evaluated."""

    async def crash(criterion: Any, output: Any) -> CriterionVerdict:
        if criterion.check == "words":
            raise ZeroDivisionError("by nothing")
        return await evaluate(criterion, output)

    monkeypatch.setattr(verifier, "evaluate", crash)
    criteria = [WORDS, {"check": "regex", "pattern": "h"}]
    said = await judge_result(assigned(criteria=criteria), claimed(output="hello"), AGENT, None, SETTINGS)
    assert said.verdict == "uncertain"
    assert found(said.criteria) == [("output", True), ("words", None), ("regex", True)]
    assert said.criteria[1].evidence == 'could not be checked: ZeroDivisionError: "by nothing"'


async def test_a_schema_without_end_is_undecided(assigned: Assign, claimed: Claim) -> None:
    """A schema that refers to itself forever crashes the check and decides nothing."""
    assignment = assigned(output_schema={"$ref": "#"})
    said = await judge_result(assignment, claimed(output={}), AGENT, None, SETTINGS)
    assert (said.verdict, found(said.criteria)) == ("uncertain", [("output", None)])
    assert "RecursionError" in said.criteria[0].evidence


async def test_a_check_that_hangs_is_undecided(assigned: Assign, claimed: Claim) -> None:
    """A judgement takes no longer than an attempt may; what was decided before still counts."""
    criteria = [WORDS, {"command": ["sleep", "60"]}, POLITE]
    assignment = assigned(criteria=criteria, grant=Grant(seconds=0.3))
    with anyio.fail_after(10):
        said = await judge_result(assignment, claimed(output="hello"), AGENT, Hanging(), SETTINGS)
    assert said.verdict == "uncertain"
    assert found(said.criteria) == [("output", True), ("words", True), ("command sleep", None), ("polite", None)]
    assert said.criteria[2].evidence == "could not be checked within 0.3 seconds"


async def test_cancelling_is_no_verdict(assigned: Assign, claimed: Claim) -> None:
    """A cancelled judgement ends without one."""
    model, ended = Hanging(), []

    async def attempt() -> None:
        ended.append(await judge_result(assigned(criteria=[POLITE]), claimed(output="x"), AGENT, model, SETTINGS))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(attempt)
            await model.asked.wait()
            tasks.cancel_scope.cancel()
    assert ended == []


class Hanging:
    """A model that never answers."""

    provider = "openai"
    name = None
    url = ""

    def __init__(self) -> None:
        self.asked = anyio.Event()

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Wait until cancelled."""
        self.asked.set()
        await anyio.sleep_forever()
        raise AssertionError(request)

    async def aclose(self) -> None:
        """Nothing is open."""


async def test_all_sentences_are_judged_in_one_cold_call(assigned: Assign, claimed: Claim, fake_model: Any) -> None:
    """One call with temperature 0 judges every sentence; verdicts stand in the order of the criteria."""
    model = fake_model(judgement(True, False))
    said = await judge_result(
        assigned(criteria=[POLITE, WORDS, SHORT]), claimed(output="hello"), AGENT, model, SETTINGS
    )
    assert said.verdict == "fail"
    assert found(said.criteria) == [("output", True), ("polite", True), ("words", True), ("short", False)]
    assert said.criteria[3].change == "Make this true: It is short"
    assert said.usage.calls == 1
    (request,) = model.asked
    assert request.temperature == 0
    assert list(request.schema["properties"]) == ["c1", "c2"]
    assert list(request.schema["properties"]["c1"]["properties"]) == ["evidence", "holds", "change"]
    assert "c1: It is polite\nc2: It is short" in request.messages[1].content


async def test_a_judge_that_agrees_passes(assigned: Assign, claimed: Claim, fake_model: Any) -> None:
    """A judge's whole and well-formed yes is a pass, also in a code fence."""
    for text in (judgement(True), f"```json\n{judgement(True)}\n```"):
        said = await judge_result(
            assigned(criteria=[POLITE]), claimed(output="hello"), AGENT, fake_model(text), SETTINGS
        )
        assert (said.verdict, said.criteria[1].evidence, said.criteria[1].change) == ("pass", "seen", "")


async def test_a_judge_without_a_model_is_undecided(assigned: Assign, claimed: Claim) -> None:
    """No model, no pass."""
    said = await judge_result(assigned(criteria=[POLITE]), claimed(output="hello"), AGENT, None, SETTINGS)
    assert (said.verdict, said.criteria[1].evidence) == ("uncertain", "the verifier has no model to judge with")


async def test_a_judge_that_fails_is_undecided(assigned: Assign, claimed: Claim, fake_model: Any) -> None:
    """A model's error decides nothing and is the evidence."""
    error = ModelTimedOut("http://model.test/v1", "fake", 5)
    said = await judge_result(assigned(criteria=[POLITE]), claimed(output="hello"), AGENT, fake_model(error), SETTINGS)
    assert said.verdict == "uncertain"
    assert said.criteria[1].evidence == f"the judge did not answer: {error}"


NONSENSE = [
    "",
    "Looks good to me!",
    "true",
    "[]",
    "{}",
    '{"holds": true}',
    judgement(True)[:-1],
    json.dumps({"c1": True, "c2": True}),
    json.dumps({"c1": opinion("true"), "c2": opinion("yes")}),
    json.dumps({"c1": opinion(1), "c2": opinion(None)}),
    json.dumps({"c1": opinion(True, evidence=3), "c2": {"holds": True}}),
    json.dumps({"c1": {**opinion(True), "score": 10}, "c2": {**opinion(True), "score": 10}}),
    json.dumps({"c1": opinion(True), "c2": opinion(True), "c3": opinion(True)}),
    json.dumps({"polite": opinion(True), "short": opinion(True)}),
    f"They hold: {judgement(True)}",
]


@pytest.mark.parametrize("text", NONSENSE)
async def test_nonsense_is_undecided(assigned: Assign, claimed: Claim, fake_model: Any, text: str) -> None:
    """Whatever is no whole judgement of exactly the sentences that were asked about decides none of them."""
    said = await judge_result(
        assigned(criteria=[POLITE, SHORT]), claimed(output="hello"), AGENT, fake_model(text), SETTINGS
    )
    assert said.verdict == "uncertain"
    assert found(said.criteria) == [("output", True), ("polite", None), ("short", None)]
    assert said.usage.calls == 1


async def test_what_a_judge_leaves_out_is_undecided(assigned: Assign, claimed: Claim, fake_model: Any) -> None:
    """One missing or broken opinion leaves its own sentence undecided, and the result with it."""
    for second in ({}, {"c2": opinion("no")}):
        model = fake_model(json.dumps({"c1": opinion(True), **second}))
        said = await judge_result(assigned(criteria=[POLITE, SHORT]), claimed(output="hello"), AGENT, model, SETTINGS)
        assert (said.verdict, found(said.criteria)[1:]) == ("uncertain", [("polite", True), ("short", None)])


async def test_a_judges_words_are_bounded(assigned: Assign, claimed: Claim, fake_model: Any) -> None:
    """A talkative judge does not fill the log."""
    model = fake_model(json.dumps({"c1": opinion(False, "e" * 9999, "c" * 9999)}))
    said = await judge_result(assigned(criteria=[POLITE]), claimed(output="hello"), AGENT, model, SETTINGS)
    assert (len(said.criteria[1].evidence), len(said.criteria[1].change)) == (600, 600)
