"""Kills its own process at named points. On the path of the processes of a storm, and nowhere else.

``STORM_POINTS`` is a JSON list of points: ``name``, ``process`` (what its name begins with), ``call`` (``append``,
``send`` (a message of a batch), ``ack`` or ``read``), ``when`` (``before`` or ``after``), ``kind`` of the message
(empty: any), ``attempt`` (the least), and ``nth``: how often a process comes there before it dies. Each point kills
once: a mark in the folder ``STORM_MARKS`` keeps the next process alive.

Workers also write each message that they are handed to ``STORM_HANDED`` as it comes in: time, pid, sequence; 0 stands
for the moment in which they begin to serve.
"""

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

_MODULE = "interlock.runtime.process"


def _mine() -> list[dict[str, Any]]:
    name = sys.orig_argv[-1] if _MODULE in sys.orig_argv else ""
    points = json.loads(os.environ.get("STORM_POINTS", "[]"))
    return [point for point in points if name.startswith(point["process"])]


_POINTS = _mine()
_passed: Counter[str] = Counter()


def _pass(call: str, when: str, kind: str, attempt: int) -> None:
    for point in _POINTS:
        if (point["call"], point["when"]) != (call, when) or attempt < point.get("attempt", 0):
            continue
        if point["kind"] in {"", kind}:
            _passed[point["name"]] += 1
            if _passed[point["name"]] >= point["nth"]:
                _die_once(point["name"])


def _die_once(name: str) -> None:
    mark = Path(os.environ["STORM_MARKS"]) / name.replace(" ", "-")
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


_About = Callable[..., list[tuple[str, int]]]
"""From the arguments of a call to the kind and the attempt of each message that it is about."""


def _around(method: Callable[..., Awaitable[Any]], name: str, about: _About) -> Callable[..., Any]:
    async def call(*arguments: Any, **named: Any) -> Any:
        messages = about(*arguments)
        for kind, attempt in messages:
            _pass(name, "before", kind, attempt)
        result = await method(*arguments, **named)
        for kind, attempt in messages:
            _pass(name, "after", kind, attempt)
        return result

    return call


def _of(*messages: Any) -> list[tuple[str, int]]:
    return [(message.kind, message.attempt) for message in messages]


def _install() -> None:
    from interlock.runtime._follow import Follow  # noqa: PLC0415 -- only in the processes that are to die
    from interlock.runtime._wire import Wire  # noqa: PLC0415 -- as above
    from interlock.runtime.bus import Bus  # noqa: PLC0415 -- as above
    from interlock.runtime.deliveries import Delivery  # noqa: PLC0415 -- as above

    bus: Any = Bus
    delivery: Any = Delivery
    follow: Any = Follow
    wire: Any = Wire
    bus.append = _around(bus.append, "append", lambda _bus, message, *_: _of(message))
    bus.append_all = _around(bus.append_all, "append", lambda _bus, many, *_: _of(*(message for message, _ in many)))
    delivery.ack = _around(delivery.ack, "ack", lambda one: _of(one.message))
    follow.__anext__ = _around(follow.__anext__, "read", lambda _follow: [("", 0)])
    wire.publish = _around(wire.publish, "send", lambda _wire, subject, *_: [(f"task.{subject.split('.')[-2]}", 0)])


def _note(handed: str) -> None:
    from interlock.runtime.deliveries import Deliveries  # noqa: PLC0415 -- only in workers

    deliveries: Any = Deliveries
    following, receiving = deliveries.__anext__, deliveries._receive
    descriptor = os.open(handed, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    serving = False

    async def following_and_telling(mine: Any) -> Any:
        nonlocal serving
        if not serving:
            serving = True
            os.write(descriptor, f"{time.time()} {os.getpid()} 0\n".encode())
        return await following(mine)

    def receiving_and_telling(mine: Any, pulled: Any) -> Any:
        os.write(descriptor, f"{time.time()} {os.getpid()} {pulled.raw.seq}\n".encode())
        return receiving(mine, pulled)

    deliveries.__anext__, deliveries._receive = following_and_telling, receiving_and_telling


if _POINTS:
    _install()
if _MODULE in sys.orig_argv and sys.orig_argv[-1].startswith("reader") and "STORM_HANDED" in os.environ:
    _note(os.environ["STORM_HANDED"])
