"""From a conversation to a job: its goal, its inputs, or the question that it answers. Pure.

Nothing is remembered between two requests. What a conversation waits with stands in the last line of the assistant's
turn, which the client sends back with the next message.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from interlock.agents.checks.schema import check_schema
from interlock.protocol.base import Json, canonical_json
from interlock.protocol.team import InputType
from interlock.runtime.api.chat_wire import ChatMessage, NotForTeams, ResponseFormat

__all__ = [
    "CONVERSATION",
    "MAX_CONTEXT",
    "MAX_GOAL",
    "Conversation",
    "Mark",
    "Turn",
    "as_input",
    "goal_of",
    "mark_of",
    "marked",
    "read_conversation",
    "read_reply",
    "schema_of",
    "unmarked",
    "without_marks",
]

CONVERSATION = "conversation"
"""The input that gets the earlier messages in a team that has it; in any other they stand below the goal."""

MAX_GOAL = 100_000
"""Characters of the message that is a goal or an answer."""

MAX_CONTEXT = 24_000
"""Characters of earlier messages that stand below a goal, which every agent of the team is told."""

_FOR_SYSTEM = MAX_CONTEXT // 3
_LEAST = 200
"""Characters of a message that are worth being shown; of one that has less room nothing is."""

_MAX_SCHEMA = 8_000
"""Characters of a schema that stand below a goal; the answer is held to a longer one, too."""

_MARK = re.compile(r"\[interlock: job ([A-Za-z0-9_:-]{1,128}) waits for the answer to ([A-Za-z0-9_:-]{1,128})\]")
_LOOKS_MARKED = re.compile(r"\[(\s*interlock\s*:)", re.IGNORECASE)
_AROUND_OPTIONS = " \t.,!\"'`*_"


@dataclass(frozen=True, slots=True)
class Mark:
    """Which question of which job an assistant's turn is."""

    job: str
    question: str

    def __str__(self) -> str:
        return f"[interlock: job {self.job} waits for the answer to {self.question}]"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation, as text."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a client sends, taken apart."""

    last: str
    """The last message of the user: the goal of a job, or the answer to a question."""
    earlier: tuple[Turn, ...] = ()
    """The other messages, oldest first, without marks; those without text are left out."""
    mark: Mark | None = None
    """What the assistant asked last."""


def read_conversation(messages: Sequence[ChatMessage]) -> Conversation:
    """Return the conversation that ``messages`` are.

    :raises NotForTeams: there is no message of a user with text in it, or it is too long, or not the last one
    """
    turns = [Turn(_role(one.role), _text(one)) for one in messages]
    spoken = [number for number, turn in enumerate(turns) if turn.role != "system"]
    if not spoken or turns[spoken[-1]].role != "user":
        raise NotForTeams("messages", "the last one has to be the user's: it says what the team is to do")
    last, at = turns[spoken[-1]], f"messages[{spoken[-1]}].content"
    if not last.text.strip():
        raise NotForTeams(at, "is empty: it says what the team is to do")
    if len(last.text) > MAX_GOAL:
        raise NotForTeams(
            at, f"has {len(last.text)} characters, at most {MAX_GOAL}: give the team the rest as an input"
        )
    asked = next((turn for turn in reversed(turns) if turn.role == "assistant"), None)
    earlier = (Turn(turn.role, unmarked(turn.text)) for turn in turns if turn is not last)
    return Conversation(last.text, tuple(one for one in earlier if one.text), mark_of(asked.text) if asked else None)


def _role(role: str) -> str:
    return "system" if role == "developer" else role


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, list):
        return "\n".join(part.text or "" for part in message.content)
    return message.content or ""


def marked(text: str, mark: Mark) -> str:
    """Return ``text`` with ``mark`` as its last line; what else looks like a mark in it is made to look different."""
    return f"{without_marks(text).rstrip()}\n\n{mark}"


def mark_of(text: str) -> Mark | None:
    """Return the mark that ``text`` ends with."""
    lines = text.rstrip().splitlines()
    found = _MARK.fullmatch(lines[-1].strip()) if lines else None
    return Mark(found[1], found[2]) if found else None


def unmarked(text: str) -> str:
    """Return ``text`` without the mark that it ends with."""
    if mark_of(text) is None:
        return text.strip()
    return text.rstrip()[: text.rstrip().rindex("[")].strip()


def without_marks(text: str) -> str:
    """Return ``text`` so that no line of it is a mark: an agent that writes one must not be taken for this API."""
    return _LOOKS_MARKED.sub(r"(\1", text)


def read_reply(text: str, options: Sequence[str]) -> tuple[str, str]:
    """Return the answer that a user's message is, and what is noted with it.

    Of a question with options the first line must be one of them, whatever its case and what is around it; the other
    lines are the note. Otherwise the message is returned as it is, which such a question does not take.
    """
    first, _, rest = text.strip().partition("\n")
    said = first.strip(_AROUND_OPTIONS).casefold()
    fitting = [option for option in options if option.strip(_AROUND_OPTIONS).casefold() == said]
    return (fitting[0], rest.strip()) if len(fitting) == 1 else (text.strip(), "")


def schema_of(wanted: ResponseFormat | None) -> dict[str, Json] | None:
    """Return the JSON Schema that an answer is held to; None where it is held to none.

    :raises NotForTeams: there is to be one, but it is none
    """
    if wanted is None or wanted.type != "json_schema":
        return None
    schema = (wanted.json_schema or {}).get("schema")
    at = "response_format.json_schema.schema"
    if not isinstance(schema, dict):
        raise NotForTeams(at, "is missing: it has to be a JSON Schema")
    found = check_schema(schema, {})
    if found.holds is None:
        raise NotForTeams(at, found.evidence)
    return schema


def goal_of(conversation: Conversation, wanted: ResponseFormat | None, *, with_earlier: bool) -> str:
    """Return the goal of the job: what the user said last, what form the answer is to have, and what was said before.

    :raises NotForTeams: the wanted schema is none
    """
    parts = [conversation.last.strip(), _form(wanted)]
    if with_earlier and conversation.earlier:
        parts.append(f"Said before in this conversation, as context:\n{_in_words(conversation.earlier)}")
    return "\n\n".join(filter(None, parts))


def _form(wanted: ResponseFormat | None) -> str:
    schema = schema_of(wanted)
    if schema is not None and len(told := canonical_json(schema)) <= _MAX_SCHEMA:
        return f"The answer is wanted as JSON that is valid against this schema: {told}"
    return "The answer is wanted as a JSON object." if wanted is not None and wanted.type != "text" else ""


def as_input(conversation: Conversation, kind: InputType | None) -> Json:
    """Return the earlier messages as the value of an input; None where one of its type cannot hold them."""
    turns: list[Json] = [{"role": turn.role, "content": turn.text} for turn in conversation.earlier]
    match kind:
        case "string":
            return _in_words(conversation.earlier)
        case None | "array" | "jsonl":
            return turns
        case "object":
            return {"messages": turns}
        case _:
            return None


def _in_words(turns: Iterable[Turn]) -> str:
    """Return messages as text that is bounded: the system's first, then the newest, oldest first."""
    system = [turn for turn in turns if turn.role == "system"]
    spoken = [turn for turn in turns if turn.role != "system"]
    lines, left, _ = _fitting(system, _FOR_SYSTEM)
    newest, _, skipped = _fitting(spoken[::-1], MAX_CONTEXT - _FOR_SYSTEM + left)
    if skipped:
        lines.append(f"({skipped} earlier message{'' if skipped == 1 else 's'} left out)")
    return "\n".join([*lines, *newest[::-1]])


def _fitting(turns: Sequence[Turn], room: int) -> tuple[list[str], int, int]:
    """Return the first of ``turns`` in words, as far as there is room; what room is left; and how many did not fit."""
    lines: list[str] = []
    for number, turn in enumerate(turns):
        line = f"{turn.role}: {turn.text}".replace("\n", "\n  ")
        if len(line) > room:
            if room < _LEAST:
                return lines, 0, len(turns) - number
            line = f"{line[:room]} [...]"
        lines.append(line)
        room = max(0, room - len(line))
    return lines, room, 0
