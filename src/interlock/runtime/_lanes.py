"""Lanes: queues for one job alone whose names are known beforehand, so that agents' credentials can be for them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import anyio

from interlock.protocol.messages import JOB_TASK
from interlock.protocol.subjects import chain_subjects
from interlock.runtime._jetstream import NO_CONSUMER, api, last_on
from interlock.runtime._names import LANES, QUEUE_JOB, log_stream
from interlock.runtime._wire import Wire
from interlock.runtime.bus_errors import BrokerComplaint, BusError, LanesTaken
from interlock.runtime.deliveries import PullOptions

_NAME_TAKEN = frozenset({10013, 10148})
_LEAVE_SECONDS = 1.0


@asynccontextmanager
async def open_lane(
    wire: Wire, ns: str, job: str | None, queues: Callable[[int], Sequence[PullOptions]]
) -> AsyncIterator[int]:
    """Make ``queues`` of the first lane that is free, or of lane 0 without ``job``; see ``Bus.queues``."""
    if job is None:
        for one in queues(0):
            await _make(wire, one, "")
        yield 0
        return
    lane = await _take_lane(wire, ns, queues)
    try:
        yield lane
    finally:
        with anyio.move_on_after(_LEAVE_SECONDS, shield=True), suppress(BusError):  # then the broker drops them, later
            await _delete(wire, queues(lane))


async def _take_lane(wire: Wire, ns: str, queues: Callable[[int], Sequence[PullOptions]]) -> int:
    for lane in range(1, LANES + 1):
        if await _take(wire, ns, queues(lane)):
            return lane
    raise LanesTaken(LANES)


async def _take(wire: Wire, ns: str, queues: Sequence[PullOptions]) -> bool:
    """Make all of ``queues`` or none of them; those of a job that is over are in nobody's way."""
    made: list[PullOptions] = []
    for one in queues:
        if not await _make(wire, one, "create"):
            if not await _is_left_over(wire, ns, one):
                await _delete(wire, made)
                return False
            await _delete(wire, [one])
            if not await _make(wire, one, "create"):
                await _delete(wire, made)
                return False
        made.append(one)
    return True


async def _make(wire: Wire, queue: PullOptions, action: str) -> bool:
    """Make a queue and return True; False where there is one with other settings and ``action`` is ``create``."""
    request = {"stream_name": queue.stream, "config": queue.config, "action": action}
    try:
        await api(wire, f"CONSUMER.CREATE.{queue.stream}.{queue.consumer}", request)
    except BrokerComplaint as error:
        if error.code not in _NAME_TAKEN:
            raise
        return False
    return True


async def _is_left_over(wire: Wire, ns: str, queue: PullOptions) -> bool:
    """Whether the job that a queue was made for is over, or the queue is gone by now."""
    try:
        info = await api(wire, f"CONSUMER.INFO.{queue.stream}.{queue.consumer}")
    except BrokerComplaint as error:
        if error.code != NO_CONSUMER:
            raise
        return True
    job = info["config"].get("metadata", {}).get(QUEUE_JOB, "")
    closed = f"{chain_subjects(ns, job, JOB_TASK).removesuffix('>')}closed"
    return await last_on(wire, log_stream(ns), closed) is not None


async def _delete(wire: Wire, queues: Sequence[PullOptions]) -> None:
    for one in queues:
        try:
            await api(wire, f"CONSUMER.DELETE.{one.stream}.{one.consumer}")
        except BrokerComplaint as error:
            if error.code != NO_CONSUMER:
                raise
