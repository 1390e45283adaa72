"""One agent process: what ``python -m interlock.runtime.process NAME`` runs, told by its standard input.

The first line there is its configuration; each further one renews its lease, or tells it what ``told`` knows. It
writes one line to its standard output when it is ready and one when its work is over and its connections are closed,
between them what it has in hand, and logs to its standard error. What only one kind of process needs is imported by
that kind alone, so that a manager does not wait for a model's client.
"""

import asyncio
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

import anyio

from interlock.observability.logging import configure_logging
from interlock.observability.tracing import Tracing
from interlock.runtime._family import adopt_orphans
from interlock.runtime._garbage import collect_seldom
from interlock.runtime._lease import first_line, obey
from interlock.runtime.bus import Bus
from interlock.runtime.config import LAST_WORD, ProcessConfig
from interlock.runtime.failures import first_error
from interlock.runtime.told import Told

__all__ = ["main"]

_log = logging.getLogger(__name__)

_FLUSH = 0.2
"""Seconds that the last spans have to leave: less than the supervisor waits after the last word."""


def main() -> int:
    """Run the process that standard input describes until it is told to end; return its exit status.

    What goes wrong is logged as one line, the last that the process says.
    """
    configure_logging(sys.argv[1] if len(sys.argv) > 1 else "agent")
    try:
        adopt_orphans()  # so that the supervisor finds all that this process ever started below it
        line, told = first_line(sys.stdin.fileno())
        config = ProcessConfig.model_validate_json(line)
        words = _Words()
        obey(told, words.put)
        configure_logging(config.name)
        collect_seldom()
        tracing = Tracing.from_environment(f"interlock-{config.kind}", {"service.instance.id": config.name})
        try:
            anyio.run(_serve_until_told, config, tracing, words, backend_options={"use_uvloop": True})
        finally:
            _say(LAST_WORD)
            tracing.shutdown(_FLUSH)
    except Exception as error:  # noqa: BLE001 -- the last stop: it is told, and the supervisor starts the next one
        cause = first_error(error)
        _log.debug("what went wrong", exc_info=error)
        _log.error("%s: %s", type(cause).__name__, cause)
        return 1
    return 0


class _Words:
    """What the thread hears that listens, kept until the event loop is there for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._hear: Callable[[str], None] | None = None

    def put(self, words: str) -> None:
        """Pass words on; to be called from any thread."""
        with self._lock:
            if self._hear is None:
                self._waiting.append(words)
            else:
                self._hear(words)

    def listen(self, hear: Callable[[str], None]) -> None:
        """Have ``hear`` called, in the running event loop, with all words of before and from now on."""
        loop = asyncio.get_running_loop()

        def pass_on(words: str) -> None:
            with suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(hear, words)

        with self._lock:
            self._hear, waiting = pass_on, self._waiting
        for words in waiting:
            hear(words)


async def _serve_until_told(config: ProcessConfig, tracing: Tracing, words: _Words) -> None:
    told = Told(_say)
    words.listen(told.hear)
    async with anyio.create_task_group() as group:
        group.start_soon(_end_on_signal, group.cancel_scope)
        group.start_soon(told.report)
        async with Bus.connect(config.broker.address(), config.ns, config.name) as bus:
            await _serve(config, bus, tracing, partial(_say, "ready"), told)
        group.cancel_scope.cancel()


def _say(word: str) -> None:
    with suppress(BrokenPipeError):  # who does not listen any more need not know
        sys.stdout.write(f"{word}\n")
        sys.stdout.flush()


async def _serve(config: ProcessConfig, bus: Bus, tracing: Tracing, ready: Callable[[], None], told: Told) -> None:
    match config.kind:
        case "manager":
            await _manage(config, bus, tracing, ready, told)
        case "worker":
            from interlock.runtime.worker_role import serve_worker  # noqa: PLC0415 -- only workers and judges ask models

            await serve_worker(config, bus, tracing, ready, told)
        case "verifier":
            from interlock.runtime.verifier_role import serve_verifier  # noqa: PLC0415 -- only verifiers run checks

            await serve_verifier(config, bus, tracing, ready, told)
        case "api":
            from interlock.runtime.api.server import serve_api  # noqa: PLC0415 -- nobody else answers requests

            await serve_api(config, bus, tracing, ready)
        case "team":
            from interlock.runtime.team_role import serve_team  # noqa: PLC0415 -- only teams begin jobs

            await serve_team(config, bus, tracing, ready, told)


async def _manage(config: ProcessConfig, bus: Bus, tracing: Tracing, ready: Callable[[], None], told: Told) -> None:
    """Manage one job, or all of the partitions that are this manager's; told to drain it has nothing to finish."""
    from interlock.runtime.coordinator import Coordinator  # noqa: PLC0415 -- only managers fill templates
    from interlock.runtime.manager_model import proposers_of  # noqa: PLC0415 -- only managers plan
    from interlock.runtime.partitions import Partitions  # noqa: PLC0415 -- only managers have any
    from interlock.runtime.presence import Presence  # noqa: PLC0415 -- only managers ask who is there

    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_when_drained, told, group.cancel_scope)
        if config.job is not None:
            await Coordinator(bus, tracing, proposers=proposers_of(bus, tracing)).run(
                config.job, ready, tree=config.tree
            )
            await anyio.sleep_forever()  # its supervisor ends it, and would start again who ends by himself
        else:
            partitions = Partitions(bus, f"{config.name}-{secrets.token_hex(4)}")
            proposers, rooms = proposers_of(bus, tracing), Presence(bus).rooms
            await Coordinator(bus, tracing, rooms=rooms, proposers=proposers).run_leased(partitions.run, ready)
        group.cancel_scope.cancel()


async def _cancel_when_drained(told: Told, scope: anyio.CancelScope) -> None:
    await told.draining.wait()
    scope.cancel()


async def _end_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            _log.info("ending on %s", signal.Signals(number).name)
            scope.cancel()


def _leave(status: int) -> NoReturn:
    """End the process without the interpreter's long goodbye to every module."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    _leave(main())
