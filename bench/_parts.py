"""What one item costs in CPU time by the kind of work: what each operation takes, done many times over."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from interlock.backends.chat import ChatMessage, ChatModel, ChatRequest
from interlock.backends.engines import Endpoint, open_chat
from interlock.observability.tracing import ModelCall, Tracing
from interlock.protocol.codec import decode, encode
from interlock.protocol.messages import Grant, TaskAssigned
from interlock.runtime.broker import embedded_broker
from interlock.runtime.bus import Bus

_T = TypeVar("_T")

_TIMES = 400
_AT_ONCE = 16
_NS = "parts"


async def work_of_an_item(url: str, folder: Path) -> dict[str, float]:
    """Return the CPU milliseconds that an item takes all processes together, the broker and the model left out.

    An item is two calls of a model, two deliveries, four messages that are written (two of them in batches), each of
    which the manager and the client read, and one that the verifier fetches.
    """
    chat = open_chat(Endpoint(url=url, name="m"))
    try:
        call = await _each(range(_TIMES), lambda _: _ask(chat))
    finally:
        await chat.aclose()
    message, body = _message(0), encode(_message(0))
    validation = 4 * _plain(lambda: encode(message)) + 11 * _plain(lambda: decode(body))
    found = {"model_client": 2 * call, "validation": validation}
    found["bus"] = max(0.0, await _bus(folder) - found["validation"])
    found["spans"] = 4 * _plain(_spans)
    return {name: round(seconds * 1000, 2) for name, seconds in found.items()}


async def _ask(chat: ChatModel) -> None:
    messages = (
        ChatMessage("system", "You do one task and answer with its result only."),
        ChatMessage("user", "Answer."),
    )
    await chat.chat(ChatRequest(messages=messages, temperature=0, max_tokens=500))


async def _bus(folder: Path) -> float:
    """Return the seconds of an item's ways over the bus, with what is validated on them."""
    async with embedded_broker(folder) as address, Bus.connect(address, _NS, "parts") as bus:
        alone = await _each([_message(number) for number in range(_TIMES)], bus.append)
        many: list[tuple[TaskAssigned, dict[str, str]]] = [
            (_message(number), {}) for number in range(_TIMES, 2 * _TIMES)
        ]
        began = time.process_time()
        await bus.append_all(many)
        batched = (time.process_time() - began) / _TIMES
        fetched = await _each(range(1, _TIMES + 1), bus.get)
        followed, delivered = await _follow(bus), await _deliver(bus)
    return 2 * alone + 2 * batched + fetched + 8 * followed + 2 * delivered


async def _follow(bus: Bus) -> float:
    began, seen = time.process_time(), 0
    async with bus.follow() as batches:
        async for batch in batches:
            seen += len(batch.received)
            if batch.pending == 0 and seen:
                break
    return (time.process_time() - began) / seen


async def _deliver(bus: Bus) -> float:
    began, seen = time.process_time(), 0
    async with bus.pull("assigned", "reader@bench", _AT_ONCE) as deliveries:
        async for delivery in deliveries:
            await delivery.ack()
            seen += 1
            if seen == _TIMES:
                break
    return (time.process_time() - began) / seen


async def _each(things: Iterable[_T], work: Callable[[_T], Awaitable[object]]) -> float:
    """Return the CPU seconds that ``work`` takes for one of ``things``, some of them at once."""
    left = list(things)
    total = len(left)

    async def some() -> None:
        while left:
            await work(left.pop())

    began = time.process_time()
    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))
    return (time.process_time() - began) / total


def _plain(work: Callable[[], object]) -> float:
    """Return the CPU seconds of ``work``, which waits for nothing."""
    began = time.process_time()
    for _ in range(_TIMES):
        work()
    return (time.process_time() - began) / _TIMES


def _spans() -> None:
    """Open and close the spans of one message, when nothing records them."""
    tracing = Tracing()
    with tracing.chat(ModelCall(model="m")), tracing.publish("task.result", "subject"):
        pass


def _message(number: int) -> TaskAssigned:
    return TaskAssigned(
        id=uuid.uuid4().hex,
        ns=_NS,
        job="j",
        task=f"answer-{number}",
        attempt=1,
        answers=0,
        at=datetime.now(UTC),
        step="answer",
        role="reader@bench",
        verifier="checker@bench",
        instruction=f"Answer item {number}.",
        grant=Grant(seconds=600),
    )
