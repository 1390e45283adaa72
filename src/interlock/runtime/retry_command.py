"""What `interlock dead-letters` and `interlock retry` do."""

import argparse
import json
from collections.abc import Callable

import anyio

from interlock.protocol.base import Json
from interlock.protocol.messages import JobRetried
from interlock.runtime.bus import Bus
from interlock.runtime.client import JobNotFound
from interlock.runtime.commands import place_of
from interlock.runtime.place import Place, open_log
from interlock.runtime.presence import Presence
from interlock.runtime.retrying import DeadLetter, dead_letters, put_back
from interlock.runtime.show import print_out

__all__ = ["COMMANDS"]


def _dead_letters(options: argparse.Namespace) -> int:
    """Print the tasks that failed for good.

    :raises JobNotFound: there is no such job
    """
    place = place_of(options)
    if place.nats is None and not place.state.exists():
        if options.job:
            raise JobNotFound(options.job, ())
        letters: list[DeadLetter] = []
    else:
        letters = anyio.run(_found, place, options.job)
    if options.json:
        print_out(json.dumps([letter.model_dump(mode="json") for letter in letters], indent=2, ensure_ascii=False))
    elif letters:
        print_out("\n".join(map(_line, letters)))
    return 0


def _line(letter: DeadLetter) -> str:
    named = f" ({letter.label})" if letter.label else ""
    when = f"{letter.when:%Y-%m-%d %H:%M:%S}" if letter.when else ""
    reason = " ".join(letter.reason.split())
    return f"{letter.job} {letter.task}{named}  {when}  attempts: {letter.attempts}  {reason}"


async def _found(place: Place, job: str | None) -> list[DeadLetter]:
    async with open_log(place, "dead letters") as bus:
        return await dead_letters(bus, job)


def _retry(options: argparse.Namespace) -> int:
    """Put tasks back and print which.

    :raises JobNotFound: there is no such job
    :raises JobArchived: its tasks are not in the log any more
    :raises NothingFailed: nothing of it failed
    :raises RetryRefused: what is named cannot be put back
    """
    place = place_of(options)
    if place.nats is None and not place.state.exists():
        raise JobNotFound(options.job, ())
    message, is_up = anyio.run(_put_back, place, options)
    if options.json:
        told: dict[str, Json] = {"job_id": message.job, "tasks": list(message.tasks), "is_up": is_up}
        print_out(json.dumps(told))
    else:
        print_out(_told(message, is_up=is_up))
    return 0


def _told(message: JobRetried, *, is_up: bool) -> str:
    count = len(message.tasks)
    words = f"put back {message.tasks[0] if count == 1 else f'{count} tasks'} of job {message.job}"
    if is_up:
        return f"{words}: it goes on now, `interlock watch {message.job}` watches it"
    return f"{words}: no manager is up now, it goes on once `interlock up` or `interlock run --id {message.job}` runs"


async def _put_back(place: Place, options: argparse.Namespace) -> tuple[JobRetried, bool]:
    async with open_log(place, "retry") as bus:
        message = await put_back(bus, options.job, options.tasks, options.reason)
        return message, await _is_up(bus)


async def _is_up(bus: Bus) -> bool:
    nodes = await Presence(bus).nodes()
    return any(served.kind == "manager" for node in nodes if not node.draining for served in node.serves)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"dead-letters": _dead_letters, "retry": _retry}
