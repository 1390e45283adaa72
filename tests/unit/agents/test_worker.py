import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from interlock.agents.worker import execute
from interlock.backends.chat import ChatReply, ChatRequest
from interlock.backends.errors import ModelTimedOut
from interlock.protocol.base import Usage
from interlock.protocol.messages import Grant, TaskAssigned
from interlock.protocol.team import Agent, ModelSettings

Assign = Callable[..., TaskAssigned]
SETTINGS = ModelSettings(temperature=0.2, max_tokens=100)
DIRECT = Agent(kind="worker")
COT = Agent(kind="worker", strategy="cot")
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


async def test_text_is_claimed_stripped(assigned: Assign, fake_model: Any) -> None:
    """A text answer is the output, without space around it, and its cost is counted."""
    outcome = await execute(assigned(), DIRECT, fake_model(" Hello.\n"), SETTINGS)
    assert (outcome.status, outcome.output, outcome.reason) == ("done", "Hello.", "")
    assert outcome.usage == Usage(calls=1, prompt_tokens=20, completion_tokens=5)


async def test_the_request_keeps_to_settings_and_grant(assigned: Assign, fake_model: Any) -> None:
    """Temperature and tokens are the settings', and a grant of fewer tokens wins."""
    model = fake_model('{"n": 1}')
    await execute(assigned(output_schema=SCHEMA, grant=Grant(seconds=9, tokens=7)), DIRECT, model, SETTINGS)
    await execute(assigned(grant=Grant(seconds=9, tokens=700)), DIRECT, model, SETTINGS)
    first, second = model.asked
    assert (first.temperature, first.max_tokens, first.schema) == (0.2, 7, SCHEMA)
    assert (second.max_tokens, second.schema) == (100, None)


@pytest.mark.parametrize("grant", [{"seconds": 9, "calls": 0}, {"seconds": 9, "tokens": 0}])
async def test_without_a_grant_no_model_is_asked(assigned: Assign, fake_model: Any, grant: dict[str, Any]) -> None:
    """A grant of no calls or no tokens is kept."""
    model = fake_model("hello")
    outcome = await execute(assigned(grant=grant), DIRECT, model, SETTINGS)
    assert (outcome.status, outcome.usage, model.asked) == ("gave_up", Usage(), [])


@pytest.mark.parametrize(
    "text",
    [
        '{"n": 3}',
        ' \n{"n": 3}\n',
        '```json\n{"n": 3}\n```',
        'Sure! Here it is:\n```\n{"n": 3}\n```\nAnything else?',
        'First {"m": 1}, no: {"n": 3}. Done.',
        '<think>{"n": "x"}</think>\n{"n": 3}',
    ],
)
async def test_structured_output_is_found_where_it_is_valid(assigned: Assign, fake_model: Any, text: str) -> None:
    """Fences and prose around a valid object are forgiven."""
    outcome = await execute(assigned(output_schema=SCHEMA), DIRECT, fake_model(text), SETTINGS)
    assert (outcome.status, outcome.output) == ("done", {"n": 3})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I cannot do that", "expected value"),
        ('{"n": "three"}', "$.n: 'three' is not of type 'integer'"),
        ('Here: {"n": "three"}', "expected value"),
        ('{"n": 3', "EOF"),
        ('{"n": 3, "more": 1}', "more"),
        ("[]", "is not of type 'object'"),
    ],
)
async def test_what_is_no_valid_json_is_no_claim(assigned: Assign, fake_model: Any, text: str, reason: str) -> None:
    """An answer that does not parse or is not valid is given up, quoted, and its cost still counts."""
    outcome = await execute(assigned(output_schema=SCHEMA), DIRECT, fake_model(text), SETTINGS)
    assert (outcome.status, outcome.output) == ("gave_up", None)
    assert outcome.reason.startswith("the model's answer was not valid JSON for the step's output: ")
    assert reason in outcome.reason
    assert outcome.usage.calls == 1


async def test_a_schema_that_cannot_be_applied_forgives_nothing(assigned: Assign, fake_model: Any) -> None:
    """With a schema that decides nothing only an answer that is JSON and nothing else is claimed."""
    assignment = assigned(output_schema={"$ref": "#/missing"})
    assert (await execute(assignment, DIRECT, fake_model("[1]"), SETTINGS)).output == [1]
    assert (await execute(assignment, DIRECT, fake_model("so [1]"), SETTINGS)).status == "gave_up"


async def test_a_long_answer_is_quoted_in_part(assigned: Assign, fake_model: Any) -> None:
    """A reason never carries a whole bad answer."""
    outcome = await execute(assigned(output_schema=SCHEMA), DIRECT, fake_model("bad " * 10_000), SETTINGS)
    assert len(outcome.reason) < 600


@pytest.mark.parametrize("text", ["", " \n "])
async def test_nothing_is_no_answer(assigned: Assign, fake_model: Any, text: str) -> None:
    """An empty answer is given up, with why the model stopped."""
    outcome = await execute(assigned(), DIRECT, fake_model(text, "content_filter"), SETTINGS)
    assert outcome.status == "gave_up"
    assert outcome.reason == 'the model\'s answer was empty (finish reason "content_filter")'


async def test_an_answer_that_was_cut_off_is_no_claim(assigned: Assign, fake_model: Any) -> None:
    """A text that ended at the limit is given up but kept for the next attempt; JSON that is whole is a claim."""
    outcome = await execute(assigned(), DIRECT, fake_model("half a sent", "length"), SETTINGS)
    assert (outcome.status, outcome.output) == ("gave_up", "half a sent")
    assert outcome.reason == "the model's answer was cut off at 100 tokens"
    cut = await execute(assigned(output_schema=SCHEMA), DIRECT, fake_model('{"n": 1', "length"), SETTINGS)
    assert cut.status == "gave_up"
    assert cut.reason.startswith("the model's answer was cut off at 100 tokens")
    whole = await execute(assigned(output_schema=SCHEMA), DIRECT, fake_model('{"n": 1}', "length"), SETTINGS)
    assert whole.status == "done"


async def test_half_characters_do_not_get_out(assigned: Assign, fake_model: Any) -> None:
    """What a message could not carry is replaced."""
    outcome = await execute(assigned(), DIRECT, fake_model("bad \ud800 good"), SETTINGS)
    assert outcome.output == "bad ? good"


async def test_reasoning_is_kept_apart(assigned: Assign, fake_model: Any) -> None:
    """With ``cot`` the output is the step's alone; the reasoning's beginning is kept."""
    answer = json.dumps({"reasoning": "because " * 1000, "n": 3})
    outcome = await execute(assigned(output_schema=SCHEMA), COT, fake_model(answer), SETTINGS)
    assert (outcome.status, outcome.output) == ("done", {"n": 3})
    assert outcome.reasoning.startswith("because because")
    assert len(outcome.reasoning) == 500


async def test_reasoning_before_text(assigned: Assign, fake_model: Any) -> None:
    """With ``cot`` a text output is the answer's part, and an answer without one is given up."""
    model = fake_model('{"reasoning": "r", "answer": " Hello. "}')
    outcome = await execute(assigned(), COT, model, SETTINGS)
    assert (outcome.status, outcome.output, outcome.reasoning) == ("done", "Hello.", "r")
    assert model.asked[0].schema is not None
    for text in ('{"reasoning": "r"}', "Hello.", '{"reasoning": "r", "answer": " "}'):
        assert (await execute(assigned(), COT, fake_model(text), SETTINGS)).status == "gave_up"


async def test_a_model_that_fails_is_an_outcome(assigned: Assign, fake_model: Any) -> None:
    """The model's error becomes the reason."""
    error = ModelTimedOut("http://model.test/v1", "fake", 5)
    outcome = await execute(assigned(), DIRECT, fake_model(error), SETTINGS)
    assert (outcome.status, outcome.reason) == ("gave_up", str(error))


class Hanging:
    """A model that never answers."""

    provider = "openai"
    name = None
    url = ""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.cancelled = False

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Wait until cancelled."""
        self.asked.set()
        try:
            await anyio.sleep_forever()
        except BaseException:
            self.cancelled = True
            raise
        raise AssertionError(request)

    async def aclose(self) -> None:
        """Nothing is open."""


async def test_time_runs_out(assigned: Assign) -> None:
    """An attempt ends with its seconds, and so does the call."""
    model = Hanging()
    with anyio.fail_after(5):
        outcome = await execute(assigned(grant=Grant(seconds=0.05)), DIRECT, model, SETTINGS)
    assert (outcome.status, outcome.reason) == ("gave_up", "ran out of its 0.05 seconds")
    assert model.cancelled


async def test_cancelling_is_no_outcome(assigned: Assign) -> None:
    """A cancelled attempt ends without an outcome."""
    model, ended = Hanging(), []

    async def attempt() -> None:
        ended.append(await execute(assigned(), DIRECT, model, SETTINGS))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(attempt)
            await model.asked.wait()
            tasks.cancel_scope.cancel()
    assert model.cancelled
    assert ended == []


async def test_each_attempt_samples_differently(assigned: Assign, fake_model: Any) -> None:
    """Attempts differ in seed and temperature, which rises to 1 at most; the same attempt is the same again."""
    model = fake_model("x")
    for attempt in (1, 2, 3, 4, 5, 9, 1):
        await execute(assigned(attempt=attempt), DIRECT, model, SETTINGS)
    await execute(assigned(task="t2"), DIRECT, model, SETTINGS)
    await execute(assigned(job="j2"), DIRECT, model, SETTINGS)
    assert [request.temperature for request in model.asked[:6]] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    seeds = [request.seed for request in model.asked]
    assert seeds[6] == seeds[0]
    assert len(set(seeds)) == 8
    assert all(0 <= seed < 2**31 for seed in seeds)


async def test_a_hot_setting_is_kept(assigned: Assign, fake_model: Any) -> None:
    """Settings above the highest temperature of a redo are not lowered."""
    model = fake_model("x")
    await execute(assigned(attempt=5), DIRECT, model, ModelSettings(temperature=1.5))
    assert model.asked[0].temperature == 1.5
