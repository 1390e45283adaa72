"""Kills its own worker process at a named point. On the path of the processes of one test, and nowhere else.

``BOX_CRASH`` is the point. Each tool's first worker to come there dies; a mark in the working folder keeps the next
ones alive.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

_POINT = os.environ.get("BOX_CRASH", "")


def _die_once(about: str) -> None:
    try:
        os.close(os.open(Path.cwd() / f"crashed.{about}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _around(
    method: Callable[..., Awaitable[Any]], about: Callable[..., str], *, before: str, after: str
) -> Callable[..., Awaitable[Any]]:
    async def call(*arguments: Any, **named: Any) -> Any:
        if before == _POINT:
            _die_once(about(*arguments))
        result = await method(*arguments, **named)
        if after == _POINT:
            _die_once(about(*arguments))
        return result

    return call


def _install() -> None:
    from interlock.runtime.deliveries import Delivery  # noqa: PLC0415 -- only in the processes that are to crash
    from interlock.runtime.effects import EffectsLedger  # noqa: PLC0415 -- as above

    def tool_of(ledger: Any, key: str, *_: Any) -> str:
        return str(ledger._records[key].tool)

    ledger: Any = EffectsLedger
    delivery: Any = Delivery
    ledger.intend = _around(
        ledger.intend, lambda _ledger, spec, *_: str(spec.name), before="before intent", after="after intent"
    )
    ledger.done = _around(ledger.done, tool_of, before="after effect", after="after outcome")
    delivery.ack = _around(delivery.ack, lambda one: str(one.message.step), before="before ack", after="after ack")


if _POINT and "interlock.runtime.process" in sys.orig_argv and sys.orig_argv[-1].startswith("w-"):
    _install()
