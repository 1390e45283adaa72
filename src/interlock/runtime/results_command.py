"""What `interlock results` does: prints what the tasks of a job came to, a line of JSON for each."""

import argparse
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import anyio

from interlock.runtime.commands import place_of
from interlock.runtime.place import Place
from interlock.runtime.replaying import Source, open_source
from interlock.runtime.results import ItemResult, batches_of_results, line_of, results_in
from interlock.runtime.show import still_read

__all__ = ["COMMANDS"]


def _results(options: argparse.Namespace) -> int:
    anyio.run(_print, place_of(options), options, backend_options={"use_uvloop": True})
    return 0


async def _print(place: Place, options: argparse.Namespace) -> None:
    async with open_source(place, options.job) as source, aclosing(_batches(source, options)) as batches:
        async for batch in batches:
            if not still_read("".join(map(line_of, batch))):
                return


async def _batches(source: Source, options: argparse.Namespace) -> AsyncGenerator[list[ItemResult], None]:
    if source.bus is not None:
        found = batches_of_results(source.bus, source.job, options.step, follow=options.follow)
        async with aclosing(found) as batches:
            async for batch in batches:
                yield batch
    elif source.archive is not None:
        once, again = source.archive.entries(), source.archive.entries()
        for result in results_in(once, again, source.job, options.step):
            yield [result]


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"results": _results}
