"""One agent process: what ``python -m interlock.runtime.process`` runs, told by its standard input.

It writes one line to its standard output when it is ready, and logs to its standard error.
"""

import logging
import signal
import sys

import anyio

from interlock.observability.logging import configure_logging
from interlock.observability.tracing import Tracing
from interlock.runtime.bus import Bus
from interlock.runtime.config import ProcessConfig
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.roles import serve_verifier, serve_worker

__all__ = ["main"]

_log = logging.getLogger(__name__)

_FLUSH = 0.4
"""Seconds that the last spans have to leave: less than the supervisor's grace."""


def main() -> None:
    """Run the process that standard input describes until it is told to end."""
    config = ProcessConfig.model_validate_json(sys.stdin.buffer.read())
    configure_logging(config.name)
    tracing = Tracing.from_environment(f"interlock-{config.kind}", {"service.instance.id": config.name})
    try:
        anyio.run(_serve_until_told, config, tracing, backend_options={"use_uvloop": True})
    finally:
        tracing.shutdown(_FLUSH)


async def _serve_until_told(config: ProcessConfig, tracing: Tracing) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_end_on_signal, group.cancel_scope)
        async with Bus.connect(config.broker.address(), config.ns, config.name) as bus:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await _serve(config, bus, tracing)
        group.cancel_scope.cancel()


async def _serve(config: ProcessConfig, bus: Bus, tracing: Tracing) -> None:
    match config.kind:
        case "manager":
            await Coordinator(bus, tracing).run(config.job)
        case "worker":
            await serve_worker(config, bus, tracing)
        case "verifier":
            await serve_verifier(config, bus, tracing)


async def _end_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            _log.info("ending on %s", signal.Signals(number).name)
            scope.cancel()


if __name__ == "__main__":
    main()
