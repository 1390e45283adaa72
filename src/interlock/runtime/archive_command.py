"""What `interlock archive` does: writes finished jobs to files and takes them out of the log."""

import argparse
from collections.abc import Callable
from datetime import timedelta

import anyio

from interlock.runtime.archiving import Archived, archive, drop_chunks, drop_counters, finished
from interlock.runtime.client import JobNotFound
from interlock.runtime.commands import place_of
from interlock.runtime.place import Place, open_log
from interlock.runtime.replaying import archive_folder
from interlock.runtime.show import print_out

__all__ = ["COMMANDS"]


def _archive(options: argparse.Namespace) -> int:
    place = place_of(options)
    if place.nats is None and not place.state.exists():
        if options.jobs:
            raise JobNotFound(options.jobs[0], ())
        return 0
    anyio.run(_archive_all, place, options, backend_options={"use_uvloop": True})
    return 0


async def _archive_all(place: Place, options: argparse.Namespace) -> None:
    folder = options.out or archive_folder(place)
    async with open_log(place, "client") as bus:
        for job in options.jobs or await finished(bus, timedelta(hours=options.older)):
            print_out(_in_words(await archive(bus, job, folder, keep=options.keep)))
        if not options.keep:
            await drop_chunks(bus)
            await drop_counters(bus)


def _in_words(done: Archived) -> str:
    kept = ", and kept in the log" if done.kept else ""
    return f"{done.job}: {done.entries} entries in {done.path} ({done.size} bytes){kept}"


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"archive": _archive}
