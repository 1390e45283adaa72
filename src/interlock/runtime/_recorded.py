"""Models and tools that answer from the record of a job, and tell where they are asked for something else."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from interlock.agents.checks.finding import quoted
from interlock.agents.recording import exchange_of, request_parts
from interlock.agents.toolbox import Observation, Suspended
from interlock.backends.chat import ChatReply, ChatRequest, ToolCall, ToolOffer
from interlock.backends.errors import OUT_OF_BUDGET, BudgetSpent, ModelError
from interlock.protocol.base import Json, Usage, canonical_json
from interlock.protocol.messages import ActionTaken, Exchange

_FAILED = ("refused", "failed", "in_doubt")
"""How the outcome of an action begins that did not do what it should."""

_SHOWN = 160


@dataclass(frozen=True, slots=True)
class Departure:
    """Where a rerun is not as the record is."""

    entry: int
    """Stream sequence of the recorded entry; 0: in the report."""
    place: str
    """Which task and attempt, and who asked what; or which field of the report."""
    what: str

    def as_json(self) -> dict[str, Json]:
        """Return it as ``--json`` prints it."""
        return asdict(self)

    def __str__(self) -> str:
        return f"entry {self.entry}, {self.place}: {self.what}" if self.entry else f"{self.place}: {self.what}"


class RecordedFailure(ModelError):
    """The model gave no answer then, or the record has none now."""


class RecordedModel:
    """A model that answers what it answered before, call by call."""

    provider = "recorded"
    name = "recorded"
    url = "recorded:"

    def __init__(self, exchanges: Sequence[Exchange], begin: int, tell: Callable[[str, str], None]) -> None:
        """Answer from ``exchanges``, of which ``begin`` were before this leg of the attempt.

        :param tell: is given the place and what is different there
        """
        self._exchanges, self._next, self._tell = exchanges, begin, tell

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Return the recorded answer, whatever is asked.

        :raises RecordedFailure: that is what was recorded, or nothing was
        """
        number, self._next = self._next, self._next + 1
        place = f"call {number + 1} of the model"
        if number >= len(self._exchanges):
            self._tell(place, f"the record has only {len(self._exchanges)}; it ends with {_end_of(request)}")
            raise RecordedFailure("the record has no answer to this call")
        recorded = self._exchanges[number]
        asked = exchange_of(request, None)
        if asked.request != recorded.request:
            self._tell(place, _other_parts(request, asked, recorded))
        return _reply(recorded.reply)

    def end(self) -> None:
        """Tell which answers nobody asked for."""
        if self._next < len(self._exchanges):
            self._tell("calls of the model", f"{self._next} were made, and {len(self._exchanges)} are recorded")

    async def aclose(self) -> None:
        """Nothing is open."""


def _other_parts(request: ChatRequest, asked: Exchange, recorded: Exchange) -> str:
    """Say which parts of a request are not as they were, as far as their digests tell, and how they are now."""
    parts = list(request_parts(request).items())
    other = [
        (name, value)
        for number, (name, value) in enumerate(parts)
        if number >= len(recorded.parts) or asked.parts[number] != recorded.parts[number]
    ]
    told = [f"{name} is another, now {_shown(value)}" for name, value in other]
    if len(recorded.parts) > len(parts):
        told.append(f"it has {len(recorded.parts) - len(parts)} messages less")
    return "; ".join(told) or "it is another request"


def _shown(part: Json) -> str:
    """Return how a part of a request begins; of a message its text."""
    match part:
        case [str(), str(content), *_]:
            return quoted(content, _SHOWN)
        case _:
            return quoted(canonical_json(part), _SHOWN)


def _end_of(request: ChatRequest) -> str:
    return quoted(request.messages[-1].content, _SHOWN) if request.messages else "nothing"


def _reply(recorded: Json) -> ChatReply:
    """Return a recorded answer.

    :raises RecordedFailure: it is that there was none
    :raises BudgetSpent: it is that there was none because of a budget
    """
    reply: dict[str, Any] = dict(recorded) if isinstance(recorded, dict) else {}
    if isinstance(error := reply.get("error"), dict):
        message = str(error.get("message", ""))
        if error.get("type") == BudgetSpent.__name__:
            raise BudgetSpent(message.removeprefix(OUT_OF_BUDGET), "step" if error.get("of") == "step" else "job")
        raise RecordedFailure(message)
    calls, prompt, completion = reply.get("usage", (1, 0, 0))
    return ChatReply(
        text=reply.get("content", ""),
        finish_reason=reply.get("finish_reason", ""),
        model=reply.get("model", ""),
        usage=Usage(calls=calls, prompt_tokens=prompt, completion_tokens=completion),
        response_id="",
        tool_calls=tuple(ToolCall(**call) for call in reply.get("tool_calls", ())),
    )


class RecordedToolbox:
    """Tools that do nothing, and tell what came of the calls then."""

    def __init__(
        self,
        offers: Sequence[ToolOffer],
        actions: Sequence[ActionTaken],
        seen: Sequence[str],
        tell: Callable[[str, str], None],
        *,
        begin: int = 0,
        asks: object = None,
    ) -> None:
        """Answer from ``actions`` and what the model saw of them, of which ``begin`` were before.

        :param tell: is given the place and what is different there
        :param asks: the question that the attempt waited with after the last of them; None: it did not wait
        """
        self.offers = tuple(offers)
        self._actions, self._seen, self._tell, self._asks = actions, seen, tell, asks
        self._made = list(actions[:begin])

    @property
    def actions(self) -> tuple[ActionTaken, ...]:
        """What was done so far, as it was recorded."""
        return tuple(self._made)

    async def call(self, call: ToolCall) -> Observation:
        """Return what the model was told of this call then.

        :raises Suspended: a person was asked then
        """
        number = len(self._made)
        place = f"tool call {number + 1}"
        if number >= len(self._actions):
            if self._asks is not None:
                raise Suspended(self._asks)
            self._tell(place, f"the record has only {number}; it calls {call.name} with {quoted(call.arguments)}")
            outcome = "failed: the record has no answer to this call"
            self._made.append(ActionTaken(tool=call.name, arguments=None, outcome=outcome))
            return Observation(outcome, failed=True)
        action = self._actions[number]
        if call.name != action.tool:
            self._tell(place, f"it calls {call.name} and not {action.tool}")
        self._made.append(action)
        return Observation(self._seen[number], failed=action.outcome.startswith(_FAILED))

    def end(self) -> None:
        """Tell which recorded calls nobody made."""
        if len(self._made) < len(self._actions):
            self._tell("tool calls", f"{len(self._made)} were made, and {len(self._actions)} are recorded")


def differences(was: Json, now: Json, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and how two JSON values differ there."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*was, *now)):
            yield from _within(was, now, key, f"{path}.{key}" if path else key)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for number, (before, after) in enumerate(zip(was, now, strict=True)):
            yield from differences(before, after, f"{path}[{number}]")
    elif canonical_json(was) != canonical_json(now):
        yield path, f"was {quoted(canonical_json(was), _SHOWN)}, is {quoted(canonical_json(now), _SHOWN)}"


def _within(was: Mapping[str, Json], now: Mapping[str, Json], key: str, path: str) -> Iterator[tuple[str, str]]:
    if key not in now:
        yield path, f"was {quoted(canonical_json(was[key]), _SHOWN)}, is left out"
    elif key not in was:
        yield path, f"is new: {quoted(canonical_json(now[key]), _SHOWN)}"
    else:
        yield from differences(was[key], now[key], path)
