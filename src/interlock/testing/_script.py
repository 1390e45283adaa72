"""What a scripted model does: replies, rules and the call that they are chosen by. Pure: no HTTP in here."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from interlock.protocol.base import Json

Text: TypeAlias = str | dict[str, Json]
"""The text of an answer; an object becomes JSON text."""


@dataclass(frozen=True, slots=True)
class Call:
    """One chat request that reached the scripted server."""

    messages: tuple[dict[str, Json], ...]
    """As they came: each with ``role`` and ``content``, and with tools ``tool_calls`` or ``tool_call_id``."""
    model: str
    schema: dict[str, Json] | None
    """JSON Schema that the answer must follow; None: free text."""
    number: int
    """Which chat request this is since the server started, from 1."""
    repeat: int
    """How often exactly these messages have come, this time included, from 1."""
    body: dict[str, Json] = field(repr=False)
    """The whole request."""
    tools: tuple[str, ...] = ()
    """The names of the tools that are offered, as teams write them (``files.read``)."""

    @property
    def observations(self) -> tuple[str, ...]:
        """What came of the tool calls so far: the contents of the messages with the role ``tool``, oldest first."""
        return tuple(str(message.get("content") or "") for message in self.messages if message.get("role") == "tool")

    @property
    def prompt(self) -> str:
        """The content of the last message."""
        return str(self.messages[-1].get("content") or "") if self.messages else ""

    @property
    def conversation(self) -> str:
        """The contents of all messages, one below the other."""
        return "\n".join(str(message.get("content") or "") for message in self.messages)


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer."""

    content: Text = ""
    delay: float = 0.0
    """Seconds before the answer."""
    finish_reason: str = "stop"
    prompt_tokens: int | None = None
    """None: the number of words in the request."""
    completion_tokens: int | None = None
    """None: the number of words in the answer."""

    @property
    def text(self) -> str:
        """The content as text."""
        return self.content if isinstance(self.content, str) else json.dumps(self.content, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class CallTool:
    """One tool call, as a reply or as a part of :class:`CallTools`."""

    name: str
    """As teams write it: ``files.read``. Nothing is checked: it may be a tool that is not offered."""
    arguments: dict[str, Json] | str = field(default_factory=dict)
    """Text goes out as it is, so it may be no JSON."""
    id: str | None = None
    """None: one that depends on the conversation only, so the same again for the same messages."""

    @property
    def text(self) -> str:
        """The arguments as text."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments, ensure_ascii=False)


@dataclass(frozen=True, slots=True, init=False)
class CallTools:
    """An answer with tool calls, such as ``CallTools(CallTool("files.read", {"path": "a"}), CallTool("files.list"))``.

    They go out as the API's tool calls. Where tools are described in words, as to the engine ``local``, a model's call
    is the answer ``{"tool": "files.read", "arguments": {...}}``, and ``{"final": true}`` means that it needs no more.
    """

    calls: tuple[CallTool, ...]
    text: str
    """What the model says beside them."""
    delay: float
    """Seconds before the answer."""
    finish_reason: str

    def __init__(self, *calls: CallTool, text: str = "", delay: float = 0.0, finish_reason: str = "tool_calls") -> None:
        for name, value in (("calls", calls), ("text", text), ("delay", delay), ("finish_reason", finish_reason)):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Fail:
    """An HTTP error in the API's shape."""

    status: int = 500
    retry_after: float | str | None = None
    """The Retry-After header: seconds or an HTTP date; None: no header."""
    message: str = "the script says so"
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Malformed:
    """Status 200 and a body that may be anything."""

    body: str | bytes = "<html>this is no model</html>"
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class HangUp:
    """The server closes the connection."""

    midway: bool = True
    """Whether half of an answer is sent before; otherwise not a byte is."""


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer until the client goes."""


Reply: TypeAlias = Answer | CallTool | CallTools | Fail | Malformed | HangUp | Hang
"""What the server does with one call."""

Replies: TypeAlias = Reply | Text
"""A reply, or the content of an :class:`Answer`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do with the calls that a pattern matches."""

    pattern: re.Pattern[str]
    """Searched in the content of the last message: what was asked, or what came of a tool call."""
    replies: tuple[Reply, ...]
    """For the first, second, ... call with the same messages; the last one stands for all further calls."""


Script: TypeAlias = Callable[[Call], Replies] | Sequence[Rule] | Replies
"""A function of the call, a list of rules (the first that matches decides), or one reply to everything."""


def when(pattern: str, *replies: Replies) -> Rule:
    """Return the rule for calls whose last message ``pattern`` is found in (a regular expression, ``.`` matches all).

    Several replies are given in turn to calls with the same messages; the last one stands for all further calls.

    :raises ValueError: there is no reply
    """
    if not replies:
        raise ValueError(f"the rule for {pattern!r} has no reply: give at least one")
    return Rule(re.compile(pattern, re.DOTALL), tuple(_as_reply(reply) for reply in replies))


def otherwise(*replies: Replies) -> Rule:
    """Return the rule for every call that no rule before it matches.

    :raises ValueError: there is no reply
    """
    return when("", *replies)


def compiled(script: Script) -> Callable[[Call], Reply]:
    """Return the script as a function; a call that no rule matches gets a 400 that says so."""
    if callable(script):
        return lambda call: _as_reply(script(call))
    if isinstance(script, Sequence) and not isinstance(script, str):
        rules = tuple(script)
        return lambda call: _by_rule(rules, call)
    reply = _as_reply(script)
    return lambda _call: reply


def _by_rule(rules: tuple[Rule, ...], call: Call) -> Reply:
    for rule in rules:
        if rule.pattern.search(call.prompt):
            return rule.replies[min(call.repeat, len(rule.replies)) - 1]
    patterns = ", ".join(repr(rule.pattern.pattern) for rule in rules)
    return Fail(400, message=f"no rule of the script ({patterns}) matches the last message {call.prompt[:200]!r}")


def _as_reply(reply: Replies) -> Reply:
    return Answer(reply) if isinstance(reply, (str, dict)) else reply
