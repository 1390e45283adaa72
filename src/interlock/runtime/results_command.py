"""What `interlock results` does: prints what the tasks of a job came to, a line of JSON for each."""

import argparse
import sys
from collections.abc import Callable
from contextlib import aclosing

import anyio

from interlock.runtime.client import JobNotFound
from interlock.runtime.commands import place_of
from interlock.runtime.place import Place, open_log
from interlock.runtime.results import batches_of_results, line_of
from interlock.runtime.show import reader_may_leave

__all__ = ["COMMANDS"]


def _results(options: argparse.Namespace) -> int:
    place = place_of(options)
    if place.nats is None and not place.state.exists():
        raise JobNotFound(options.job, ())
    anyio.run(_print, place, options, backend_options={"use_uvloop": True})
    return 0


async def _print(place: Place, options: argparse.Namespace) -> None:
    async with (
        open_log(place, "client") as bus,
        aclosing(batches_of_results(bus, options.job, options.step, follow=options.follow)) as batches,
    ):
        async for batch in batches:
            if not _printed("".join(map(line_of, batch))):
                return


def _printed(text: str) -> bool:
    """Print whole lines and return whether anybody still reads them."""
    with reader_may_leave(sys.stdout):
        sys.stdout.write(text)
        sys.stdout.flush()
        return True
    return False


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"results": _results}
