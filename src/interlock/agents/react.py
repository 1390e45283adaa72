"""The ReAct loop: a model calls tools and sees what came of it, until it can answer.

Tools are offered first, without a schema; the answer that a schema binds is asked for last, without tools: an engine
that is bound to a schema makes no calls. All that the loop knows stands in its messages, so that an attempt that has to
wait for a person goes on from them as if nothing had been.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256

from interlock.agents.answers import NotJson, parse_json
from interlock.agents.checks.finding import listed, quoted, writable
from interlock.agents.prompts import observed
from interlock.agents.strategies.form import Form
from interlock.agents.thinking import Thinking
from interlock.agents.toolbox import AttemptSuspended, Suspended, Toolbox
from interlock.agents.transcript import Transcript
from interlock.backends.chat import ChatMessage, ChatReply, ToolCall
from interlock.protocol.base import Json, canonical_json

__all__ = ["MAX_ROUNDS", "GoesInCircles", "ReAct"]

MAX_ROUNDS = 12
"""How many answers with tool calls a model may give before it has to conclude."""
_CALLS_IN_A_TURN = 16
"""How many calls of one answer are made."""
_CIRCLE = 3
"""How often in a row the same call may come to the same."""
_CUT_OFF = " [cut off]"
_ID_CHARACTERS = 9
"""Some models take ids of exactly this length only."""

_DONE = "I need no more tools."
_NOW = "Now give the result of the task."
_NO_MORE = "You can use no more tools. Give the result of the task from what you have."


class GoesInCircles(Exception):
    """The same call came to the same several times in a row."""

    def __init__(self, call: ToolCall) -> None:
        super().__init__(
            f"went in circles: {_CIRCLE} times in a row {call.name} with {quoted(call.arguments)} came to the same"
        )
        self.call = call


class ReAct:
    """One attempt's conversation with a model that has tools."""

    def __init__(
        self,
        thinking: Thinking,
        toolbox: Toolbox,
        form: Form,
        messages: Sequence[ChatMessage],
        max_rounds: int = MAX_ROUNDS,
    ) -> None:
        """Prepare the conversation.

        :param messages: what it begins with, or goes on from: calls that nothing answers yet are made first
        """
        self._thinking, self._toolbox, self._form, self._max_rounds = thinking, toolbox, form, max_rounds
        self._messages = list(messages)
        self._names = frozenset(offer.name for offer in toolbox.offers)

    async def run(self) -> ChatReply:
        """Return the model's last answer, which has the form's schema where the form has one.

        :raises GoesInCircles: the model repeats itself
        :raises AttemptSuspended: a person has to be asked first
        :raises AttemptLost: the toolbox says that the attempt is not ours any more
        :raises GrantUsedUp: the grant allows no further call of the model
        :raises ModelError: the model gave no answer
        """
        await self._act()
        while self._rounds() < self._max_rounds and not self._thinking.one_call_left:
            reply = await self._thinking.ask(tuple(self._messages), tools=self._toolbox.offers)
            if not reply.tool_calls:
                return await self._conclude(reply)
            self._messages.append(self._turn(reply))
            await self._act()
        return await self._answer(_NO_MORE)

    def _rounds(self) -> int:
        return sum(bool(message.tool_calls) for message in self._messages)

    async def _conclude(self, reply: ChatReply) -> ChatReply:
        """Return the answer of a model that needs no more tools: ``reply`` itself, where text is all that is wanted."""
        text = writable(reply.text).strip()
        if text and self._form.schema is None:
            return reply
        self._messages.append(ChatMessage("assistant", text or _DONE))
        return await self._answer(_NOW)

    async def _answer(self, words: str) -> ChatReply:
        """Ask for the answer, without tools."""
        asking = f"{words} {self._form.hint}".rstrip()
        last = self._messages[-1]
        if last.role == "user":  # many models take no two messages of the user in a row
            self._messages[-1] = replace(last, content=f"{last.content}\n\n{asking}")
        else:
            if last.role == "tool":
                self._messages.append(ChatMessage("assistant", _DONE))
            self._messages.append(ChatMessage("user", asking))
        return await self._thinking.ask(tuple(self._messages), schema=self._form.schema)

    def _turn(self, reply: ChatReply) -> ChatMessage:
        """Return the assistant's turn with ids that no other call of this attempt has."""
        calls, taken = list(reply.tool_calls), {call.id for message in self._messages for call in message.tool_calls}
        if reply.finish_reason == "length":  # never make a call that may be half of what was meant
            calls[-1] = replace(calls[-1], arguments=calls[-1].arguments + _CUT_OFF)
        for number, call in enumerate(calls):
            if not call.id or call.id in taken:
                seed = f"{len(self._messages)} {number} {call.id}".encode("utf-8", "replace")
                calls[number] = replace(call, id=sha256(seed).hexdigest()[:_ID_CHARACTERS])
            taken.add(calls[number].id)
        return ChatMessage("assistant", writable(reply.text).strip(), tuple(map(_writable, calls)))

    async def _act(self) -> None:
        """Make the calls that nothing answers yet, in their order."""
        for number, call in list(self._pending()):
            content = await self._outcome(number, call)
            self._messages.append(ChatMessage("tool", content, tool_call_id=call.id))
            if self._circles():
                raise GoesInCircles(call)

    def _pending(self) -> Iterator[tuple[int, ToolCall]]:
        """Yield the calls of the last turn that no message answers, each with its position in the turn."""
        turn = next((message for message in reversed(self._messages) if message.role == "assistant"), None)
        answered = {message.tool_call_id for message in self._messages if message.role == "tool"}
        for number, call in enumerate(turn.tool_calls if turn else ()):
            if call.id not in answered:
                yield number, call

    async def _outcome(self, number: int, call: ToolCall) -> str:
        """Make a call and return what the model is told of it: our own words, or quoted what the tool returned."""
        if number >= _CALLS_IN_A_TURN:
            return f"This call was not made: at most {_CALLS_IN_A_TURN} are made at once. Make it again if you need it."
        if call.name not in self._names:
            return f"There is no tool {quoted(call.name)}. There are: {listed(sorted(self._names), 40)}."
        try:
            arguments = _arguments(call)
        except NotJson as problem:
            return (
                f"This call was not made: its arguments are not one whole JSON object ({problem}). "
                "Make it again with whole and valid arguments."
            )
        try:
            observation = await self._toolbox.call(replace(call, arguments=canonical_json(arguments)))
        except Suspended as pause:
            raise AttemptSuspended(pause.question, self._transcript()) from None
        return observed(observation.text, failed=observation.failed)

    def _transcript(self) -> Json:
        thinking = self._thinking
        transcript = Transcript(
            messages=tuple(self._messages), usage=thinking.usage, last=thinking.last, seconds=thinking.seconds
        )
        value: Json = transcript.model_dump(mode="json")
        return value

    def _circles(self) -> bool:
        """Return whether the last calls were all the same and came to the same."""
        calls = {call.id: call for message in self._messages for call in message.tool_calls}
        last = [message for message in self._messages if message.role == "tool"][-_CIRCLE:]
        outcomes = {(*_meant(calls[message.tool_call_id]), message.content) for message in last}
        return len(last) == _CIRCLE and len(outcomes) == 1


def _arguments(call: ToolCall) -> dict[str, Json]:
    """Return the arguments of a call; none at all are an empty object.

    :raises NotJson: they are no JSON object
    """
    if not call.arguments.strip():
        return {}
    value = parse_json(call.arguments)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise NotJson("expected {...}")
    return value


def _meant(call: ToolCall) -> tuple[str, str]:
    """Return what a call asks for, in one way of writing."""
    try:
        return call.name, canonical_json(_arguments(call))
    except NotJson:
        return call.name, call.arguments


def _writable(call: ToolCall) -> ToolCall:
    return ToolCall(writable(call.id), writable(call.name), writable(call.arguments))
