"""What a worker does with an assignment: asks its model and says what came of it. No NATS, no ids and no clock."""

from dataclasses import dataclass, field, replace
from typing import Literal

import anyio

from interlock.agents.answers import NotJson, embedded_json, parse_json
from interlock.agents.checks.finding import quoted, writable
from interlock.agents.checks.schema import check_schema
from interlock.agents.prompts import work_messages
from interlock.agents.react import GoesInCircles, ReAct
from interlock.agents.strategies.form import Form, Schema, Thought
from interlock.agents.strategies.registry import strategy_of
from interlock.agents.thinking import NO_TRACING, GrantUsedUp, Thinking
from interlock.agents.toolbox import NO_TOOLS, Toolbox
from interlock.agents.transcript import Transcript, read_transcript
from interlock.backends.chat import ChatModel, ChatReply
from interlock.backends.errors import ModelError
from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json, Usage
from interlock.protocol.messages import ActionTaken, TaskAssigned
from interlock.protocol.team import Agent, ModelSettings

__all__ = ["RAN_OUT", "WorkOutcome", "execute"]

RAN_OUT = "ran out of its "
"""How the reason begins of an attempt that gave up because its time was over."""

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
    """Of all calls of the model, those before a suspension included."""
    reasoning: str = ""
    """The beginning of the model's reasoning; empty with the strategy ``direct``."""
    actions: tuple[ActionTaken, ...] = ()
    """What was done with tools, also where the worker gave up."""


async def execute(
    assignment: TaskAssigned,
    agent: Agent,
    model: ChatModel,
    settings: ModelSettings,
    tracing: Tracing = NO_TRACING,
    toolbox: Toolbox = NO_TOOLS,
    transcript: Json = None,
) -> WorkOutcome:
    """Try the task once and return what came of it, within the limits of the grant.

    A model that fails, an answer that cannot be read, going in circles and a limit that is reached are outcomes, not
    errors. Cancelling it stops the model's generation and raises as usual.

    :param transcript: that of an :class:`~interlock.agents.toolbox.AttemptSuspended`, to go on with the call that
        had to wait
    :raises AttemptSuspended: a person has to be asked before the attempt can go on
    :raises AttemptLost: the toolbox says that the attempt is not ours any more
    :raises TranscriptUnreadable: ``transcript`` is none
    """
    before = None if transcript is None else read_transcript(transcript)
    form = strategy_of(agent)(assignment.output_schema)
    thinking = Thinking(assignment, model, settings, tracing)
    if before is not None:
        thinking.go_on_from(before.usage, before.last, before.seconds)
    outcome = WorkOutcome("gave_up", reason=f"{RAN_OUT}{assignment.grant.seconds:g} seconds")
    if not thinking.seconds_left:
        return replace(outcome, usage=thinking.usage, actions=toolbox.actions)
    try:
        with anyio.move_on_after(thinking.seconds_left):
            reply = await _last_answer(assignment, agent, form, thinking, toolbox, before)
            outcome = _read(reply, form, assignment.output_schema, thinking.max_tokens)
    except (ModelError, GrantUsedUp, GoesInCircles) as problem:
        outcome = WorkOutcome("gave_up", reason=str(problem))
    return replace(outcome, usage=thinking.usage, actions=toolbox.actions)


async def _last_answer(
    assignment: TaskAssigned,
    agent: Agent,
    form: Form,
    thinking: Thinking,
    toolbox: Toolbox,
    before: Transcript | None,
) -> ChatReply:
    if before is not None:
        return await ReAct(thinking, toolbox, form, before.messages).run()
    messages = work_messages(assignment, agent, form, tools=bool(toolbox.offers))
    if not toolbox.offers:
        return await thinking.ask(messages, schema=form.schema)
    return await ReAct(thinking, toolbox, form, messages).run()


def _read(reply: ChatReply, form: Form, schema: Schema | None, max_tokens: int) -> WorkOutcome:
    cut = f"the model's answer was cut off at {max_tokens} tokens" if reply.finish_reason == "length" else ""
    text = writable(reply.text).strip()
    if not text:
        reason = cut or f"the model's answer was empty (finish reason {quoted(reply.finish_reason)})"
        return WorkOutcome("gave_up", reason=reason)
    if form.schema is None:
        return WorkOutcome("gave_up" if cut else "done", output=text, reason=cut)
    try:
        thought = _thought(text, form, schema)
    except NotJson as problem:
        kind = "the step's output" if schema is not None else "its form"
        reason = cut or f"the model's answer was not valid JSON for {kind}: {problem}"
        return WorkOutcome("gave_up", reason=f"{reason}; it was {quoted(text, _QUOTED)}")
    if thought.output == "":
        return WorkOutcome("gave_up", reason="the model's answer was empty")
    return WorkOutcome("done", thought.output, reasoning=thought.reasoning[:_REASONING])


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
