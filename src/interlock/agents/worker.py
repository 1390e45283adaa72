"""What a worker does with an assignment: asks its model and says what came of it. No NATS, no ids and no clock."""

from dataclasses import dataclass, field
from typing import Literal

import anyio

from interlock.agents.answers import NotJson, embedded_json, parse_json
from interlock.agents.checks.finding import quoted, writable
from interlock.agents.checks.schema import check_schema
from interlock.agents.prompts import work_messages
from interlock.agents.strategies.form import Form, Schema, Thought
from interlock.agents.strategies.registry import strategy_of
from interlock.agents.thinking import NO_TRACING, seed_of, think
from interlock.backends.chat import ChatModel, ChatReply, ChatRequest
from interlock.backends.errors import ModelError
from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json, Usage
from interlock.protocol.messages import Grant, TaskAssigned
from interlock.protocol.team import Agent, ModelSettings

__all__ = ["WorkOutcome", "execute"]

_HOTTER = 0.2
"""How much each further attempt adds to the temperature."""
_HOTTEST = 1.0
"""Where that ends, unless the settings ask for more."""
_QUOTED = 200
_REASONING = 500
"""Characters of the model's reasoning that are kept."""


@dataclass(frozen=True, slots=True)
class WorkOutcome:
    """What came of an attempt: the fields of a ``task.result`` that are the worker's."""

    status: Literal["done", "gave_up", "needs_input"]
    output: Json = None
    """The claimed output; with ``gave_up`` what there is of it, for the next attempt to see."""
    reason: str = ""
    """Why the worker gave up."""
    usage: Usage = field(default_factory=Usage)
    reasoning: str = ""
    """The beginning of the model's reasoning; empty with the strategy ``direct``."""


async def execute(
    assignment: TaskAssigned,
    agent: Agent,
    model: ChatModel,
    settings: ModelSettings,
    tracing: Tracing = NO_TRACING,
) -> WorkOutcome:
    """Try the task once and return what came of it, within the limits of the grant.

    A model that fails, an answer that cannot be read and a time limit that runs out are outcomes, not errors.
    Cancelling it stops the model's generation and raises as usual.
    """
    if assignment.grant.calls == 0 or assignment.grant.tokens == 0:
        return WorkOutcome("gave_up", reason="the grant allows no call of a model")
    form = strategy_of(agent)(assignment.output_schema)
    request = _request(assignment, agent, settings, form)
    try:
        with anyio.move_on_after(assignment.grant.seconds):
            reply = await think(model, request, tracing, assignment.job)
            return _read(reply, form, assignment.output_schema, request.max_tokens)
    except ModelError as problem:
        return WorkOutcome("gave_up", reason=str(problem))
    return WorkOutcome("gave_up", reason=f"ran out of its {assignment.grant.seconds:g} seconds")


def _request(assignment: TaskAssigned, agent: Agent, settings: ModelSettings, form: Form) -> ChatRequest:
    return ChatRequest(
        messages=work_messages(assignment, agent, form),
        temperature=_temperature(settings.temperature, assignment.attempt),
        max_tokens=_most_tokens(settings, assignment.grant),
        schema=form.schema,
        seed=seed_of(assignment.job, assignment.task, assignment.attempt),
    )


def _temperature(base: float, attempt: int) -> float:
    """Return the temperature of ``attempt`` (from 1): it rises, so that a redo does not say the same again."""
    return max(base, min(_HOTTEST, round(base + _HOTTER * max(attempt - 1, 0), 3)))


def _most_tokens(settings: ModelSettings, grant: Grant) -> int:
    return settings.max_tokens if grant.tokens is None else min(settings.max_tokens, grant.tokens)


def _read(reply: ChatReply, form: Form, schema: Schema | None, max_tokens: int) -> WorkOutcome:
    cut = f"the model's answer was cut off at {max_tokens} tokens" if reply.finish_reason == "length" else ""
    text = writable(reply.text).strip()
    if not text:
        reason = cut or f"the model's answer was empty (finish reason {quoted(reply.finish_reason)})"
        return WorkOutcome("gave_up", reason=reason, usage=reply.usage)
    if form.schema is None:
        return WorkOutcome("gave_up" if cut else "done", output=text, reason=cut, usage=reply.usage)
    try:
        thought = _thought(text, form, schema)
    except NotJson as problem:
        kind = "the step's output" if schema is not None else "its form"
        reason = cut or f"the model's answer was not valid JSON for {kind}: {problem}"
        return WorkOutcome("gave_up", reason=f"{reason}; it was {quoted(text, _QUOTED)}", usage=reply.usage)
    if thought.output == "":
        return WorkOutcome("gave_up", reason="the model's answer was empty", usage=reply.usage)
    return WorkOutcome("done", thought.output, usage=reply.usage, reasoning=thought.reasoning[:_REASONING])


def _thought(text: str, form: Form, schema: Schema | None) -> Thought:
    """Return the answer in ``text``, validated; one with other words around it only if it is surely valid.

    :raises NotJson: there is none
    """
    try:
        return _valid(parse_json(text), form, schema, surely=False)
    except NotJson as problem:
        for value in embedded_json(text):
            try:
                return _valid(value, form, schema, surely=True)
            except NotJson:
                continue
        raise problem from None


def _valid(value: Json, form: Form, schema: Schema | None, *, surely: bool) -> Thought:
    """Return ``value`` taken apart; with ``surely`` a schema that cannot be applied counts as not valid.

    :raises NotJson: it has not the form, or its output is not valid
    """
    thought = form.split(value)
    if thought is None:
        raise NotJson("it does not have the fields that were asked for")
    if isinstance(thought.output, str):
        thought = Thought(thought.output.strip(), thought.reasoning)
    finding = check_schema(schema, thought.output) if schema is not None else None
    if finding is not None and (finding.holds is False or (surely and finding.holds is None)):
        raise NotJson(finding.evidence)
    return thought
