"""Functions as tools: what a model may give them, what they get besides, and what becomes of what they raise."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
from pydantic import AnyUrl, BaseModel, Field
from tests.unit.agents.tools.calls import context_of_call, tool_of

from interlock.agents.toolbox import AttemptLost
from interlock.agents.tools.calling import MAX_OUTCOME
from interlock.agents.tools.errors import (
    ToolArgumentsInvalid,
    ToolDeclarationInvalid,
    ToolFailed,
    ToolRefused,
    ToolUncertain,
)
from interlock.agents.tools.secrets import Secrets
from interlock.agents.tools.tool import NOT_DONE, Key, NotDone, Secret, ToolContext, tool
from interlock.protocol.base import Json
from interlock.protocol.tools import EffectClass

SECRETS = Secrets({"TOKEN": "canary-7f3a9c51"})


@tool(effect="once", network=True, destinations=("to",))
async def send(
    to: str,
    text: str,
    key: Key,
    token: Annotated[str, Secret("TOKEN")],
    context: ToolContext,
    copies: Annotated[int, Field(ge=1, description="How many.")] = 1,
) -> dict[str, object]:
    """Send a message.

    To whom it may concern.
    """
    return {"to": to, "text": text, "key": key, "long": len(token), "job": context.job, "copies": copies}


def raising(error: BaseException, effect: EffectClass = "once") -> Callable[..., Any]:
    @tool(effect=effect)
    def fails() -> None:
        raise error

    return fails


def returning(outcome: object) -> Callable[..., Any]:
    @tool(effect="once")
    def gives() -> object:
        return outcome

    return gives


def test_spec_says_what_the_function_says() -> None:
    """Name, description, schema and declaration come from the function; what it is given besides does not show."""
    spec = tool_of(send, SECRETS).spec
    assert (spec.name, spec.effect, spec.network, spec.outside) == ("mine.send", "once", True, True)
    assert spec.description == "Send a message.\n\nTo whom it may concern."
    assert spec.destinations == ("to",)
    assert spec.primary is None
    assert not spec.probe
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "to": {"type": "string"},
            "text": {"type": "string"},
            "copies": {"type": "integer", "minimum": 1, "default": 1, "description": "How many."},
        },
        "required": ["to", "text"],
        "additionalProperties": False,
    }


async def test_call_gets_its_arguments_and_what_it_asks_for() -> None:
    """Key, secret and context are given by us; the outcome is JSON."""
    outcome = await tool_of(send, SECRETS).call({"to": "ann", "text": "hi"}, context_of_call(key="k-9"))
    assert outcome == {"to": "ann", "text": "hi", "key": "k-9", "long": 15, "job": "j-1", "copies": 1}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"to": "ann"}, "text: Field required"),
        ({"to": "ann", "text": 5}, "text: Input should be a valid string"),
        ({"to": "ann", "text": "hi", "copies": "2"}, "copies: Input should be a valid integer"),
        ({"to": "ann", "text": "hi", "copies": True}, "copies: Input should be a valid integer"),
        ({"to": "ann", "text": "hi", "copies": 0}, "copies: Input should be greater than or equal to 1"),
        ({"to": "ann", "text": "hi", "key": "forged"}, "key: Extra inputs are not permitted"),
        ({"to": "ann", "text": "hi", "token": "forged"}, "token: Extra inputs are not permitted"),
        ({"to": "ann", "text": "hi", "a0": "eve"}, "a0: Extra inputs are not permitted"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Json], problem: str) -> None:
    """Nothing is converted, so that a tool gets what rules have judged; nothing of ours can be given by a model."""
    with pytest.raises(ToolArgumentsInvalid) as refused:
        await tool_of(send, SECRETS).call(arguments, context_of_call())
    assert refused.value.problems == (problem,)
    assert refused.value.nothing_changed


def test_defaults_are_filled_in_for_the_rules() -> None:
    """Whoever judges a call sees what it will really use, and the given values as they were given."""
    given: dict[str, Json] = {"text": "hi", "to": "ann"}
    assert tool_of(send, SECRETS).complete(given) == {"to": "ann", "text": "hi", "copies": 1}


async def test_arguments_may_be_called_like_anything() -> None:
    """No argument collides with a method of a model."""

    @tool(effect="read")
    def odd(copy: str, json: str, schema: str, model_config: str = "m") -> str:
        return copy + json + schema + model_config

    assert await tool_of(odd).call({"copy": "a", "json": "b", "schema": "c"}, context_of_call()) == "abcm"


async def test_rich_types_come_out_of_json() -> None:
    """Models, dates, paths and URLs are read from JSON; paths and URLs are known as what they are."""

    class Item(BaseModel):
        name: str
        count: int

    @dataclass
    class Answer:
        at: datetime
        where: Path

    @tool(effect="read")
    def keep(items: list[Item], at: datetime, where: Path, link: AnyUrl, plain: str | None = None) -> Answer:
        assert [item.count for item in items] == [2]
        assert isinstance(link, AnyUrl)
        assert plain is None
        return Answer(at, where)

    kept = tool_of(keep)
    assert kept.spec.kinds == {"where": "path", "link": "url"}
    arguments: dict[str, Json] = {
        "items": [{"name": "x", "count": 2}],
        "at": "2026-01-02T03:04:05Z",
        "where": "/tmp/x",  # noqa: S108 -- only a text
        "link": "https://example.org/",
    }
    assert await kept.call(arguments, context_of_call()) == {"at": "2026-01-02T03:04:05Z", "where": "/tmp/x"}  # noqa: S108 -- as above


async def test_plain_functions_run_in_a_thread() -> None:
    """A function that is not async does not block the event loop, and a call of it can be abandoned."""
    begun, go_on = threading.Event(), threading.Event()

    @tool(effect="once")
    def slow() -> str:
        begun.set()
        go_on.wait(30)
        return threading.current_thread().name

    try:
        with anyio.move_on_after(30) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(tool_of(slow).call, {}, context_of_call())
                await anyio.to_thread.run_sync(begun.wait)
                group.cancel_scope.cancel()
        assert not scope.cancelled_caught
    finally:
        go_on.set()


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), StopIteration(), ExceptionGroup("", [OSError("no")])]
)
async def test_what_a_tool_raises_leaves_open_what_happened(error: BaseException) -> None:
    """Whatever comes out of a tool with an effect is uncertain; of one that only reads, it failed."""
    with pytest.raises(ToolUncertain) as uncertain:
        await tool_of(raising(error)).call({}, context_of_call())
    assert not uncertain.value.nothing_changed
    with pytest.raises(ToolFailed) as failed:
        await tool_of(raising(error, "read")).call({}, context_of_call())
    assert failed.value.nothing_changed


async def test_async_functions_in_plain_wrappers_are_awaited() -> None:
    """A decorator that is not async does not hide that the function is."""

    async def inner() -> str:
        return "inner"

    @tool(effect="read")
    def wrapped() -> Any:
        return inner()

    assert await tool_of(wrapped).call({}, context_of_call()) == "inner"


async def test_a_tool_can_say_that_nothing_was_changed() -> None:
    """``ToolFailed`` and ``ToolRefused`` stay what they are; what concerns the attempt passes through."""
    for error, expected in [
        (ToolFailed("no such ticket"), ToolFailed),
        (ToolRefused("not there"), ToolRefused),
        (AttemptLost("killed"), AttemptLost),
    ]:
        with pytest.raises(expected) as raised:
            await tool_of(raising(error)).call({}, context_of_call())
        assert str(error) in str(raised.value)


async def test_errors_hold_no_secret() -> None:
    """Neither the error of a tool nor anything that hangs on it holds a secret that was in the original."""
    for effect in ("once", "read"):
        failing = tool_of(raising(ValueError("bad token canary-7f3a9c51"), effect), SECRETS)
        with pytest.raises((ToolUncertain, ToolFailed)) as raised:
            await failing.call({}, context_of_call())
        assert str(raised.value) == "mine.fails: ValueError: bad token [secret TOKEN]"
        assert raised.value.__cause__ is None
        assert raised.value.__context__ is None


async def test_outcomes_hold_no_secret() -> None:
    """What a tool returns is scrubbed, keys too."""
    echo = tool_of(returning({"canary-7f3a9c51": ["x canary-7f3a9c51"]}), SECRETS)
    assert await echo.call({}, context_of_call()) == {"[secret TOKEN]": ["x [secret TOKEN]"]}


@pytest.mark.parametrize(
    ("outcome", "told"),
    [(float("nan"), "NaN"), ("\ud800x", "?x"), ({"a": {1}}, {"a": [1]}), (b"ab", "ab"), (None, None)],
)
async def test_outcomes_become_json(outcome: object, told: Json) -> None:
    """Whatever pydantic can write becomes JSON that every message can carry."""
    assert await tool_of(returning(outcome)).call({}, context_of_call()) == told


async def test_outcome_that_is_no_json_is_uncertain() -> None:
    """A tool that ran and returned nonsense did something, and what it was nobody knows."""
    with pytest.raises(ToolUncertain, match="it ran, and returned something of the type lock"):
        await tool_of(returning(threading.Lock())).call({}, context_of_call())
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(ToolUncertain, match="nested deeper"):
        await tool_of(returning(deep)).call({}, context_of_call())


async def test_outcomes_are_bounded() -> None:
    """Of a huge outcome the beginning is kept, and said how much there was."""
    outcome = await tool_of(returning("x" * 1_000_000)).call({}, context_of_call())
    assert isinstance(outcome, dict)
    assert outcome["characters"] == 1_000_002
    assert len(json.dumps(outcome)) < MAX_OUTCOME + 200


async def test_probe_is_asked_with_the_key() -> None:
    """A probe says what the call with a key returned, or that it did not take place; an error leaves it open."""
    done = {"k-1": "ticket 7"}

    async def find(key: str, title: str, token: Annotated[str, Secret("TOKEN")]) -> str | NotDone:
        assert (title, token) == ("leak", "canary-7f3a9c51")
        if key == "k-3":
            raise OSError("unreachable")
        return done.get(key, NOT_DONE)

    @tool(effect="once", probe=find)
    def create(title: str, urgent: bool = False) -> str:
        return f"{title}{urgent}"

    created = tool_of(create, SECRETS)
    assert created.spec.probe
    assert await created.probe({"title": "leak"}, context_of_call(key="k-1")) == "ticket 7"
    assert await created.probe({"title": "leak"}, context_of_call(key="k-2")) is NOT_DONE
    with pytest.raises(ToolUncertain, match="its probe failed: OSError: unreachable"):
        await created.probe({"title": "leak"}, context_of_call(key="k-3"))
    with pytest.raises(ToolUncertain, match="it has no probe"):
        await tool_of(returning(1)).probe({}, context_of_call())


def probe_of_something_else(key: str, other: int) -> None:
    pass


@tool(effect="read")
def untyped(x) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001 -- that is the mistake
    pass


@tool(effect="read")
def variadic(*names: str) -> None:
    pass


@tool(effect="read", destinations=("too",))
def misspelled(to: str) -> None:
    pass


@tool(effect="read", name="nodot")
def named(to: str) -> None:
    pass


@tool(effect="read")
def unreadable(lock: threading.Event) -> None:
    pass


@tool(effect="read")
def defaulted(x: object = threading.Lock()) -> None:
    pass


@tool(effect="read")
def greedy(token: Annotated[str, Secret("OTHER")]) -> None:
    pass


@tool(effect="once", probe=probe_of_something_else)
def probed(to: str) -> None:
    pass


@tool(effect="sometimes")  # type: ignore[arg-type]
def vague() -> None:
    pass


@tool(effect="read")
def generator() -> Any:
    yield 1


INVALID: list[tuple[Callable[..., Any], str]] = [
    (untyped, "the parameter 'x' needs a type"),
    (variadic, "the parameter 'names' must be an ordinary one"),
    (misspelled, "names 'too', which is no argument"),
    (named, "name: String should match"),
    (unreadable, "cannot come from JSON"),
    (defaulted, "a default is no JSON"),
    (greedy, "the secret 'OTHER', which secrets does not name"),
    (probed, "its parameter 'other' is no argument of the tool"),
    (vague, "effect: Input should be 'read'"),
    (generator, "it yields"),
    (len, "it is not marked with @tool"),
]


@pytest.mark.parametrize(("function", "problem"), INVALID, ids=lambda value: getattr(value, "__name__", ""))
def test_functions_that_are_no_tools_are_refused(function: Callable[..., Any], problem: str) -> None:
    """What cannot be called with JSON, or is declared wrongly, is an error when it is loaded, and says why."""
    with pytest.raises(ToolDeclarationInvalid, match=problem):
        tool_of(function)


def test_effect_must_be_declared() -> None:
    """There is no default for what a tool changes."""
    with pytest.raises(TypeError, match="effect"):
        tool()  # type: ignore[call-arg]


def test_a_marked_function_stays_what_it_was() -> None:
    """It can be called as before."""
    assert returning(5)() == 5
