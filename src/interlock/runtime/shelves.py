"""Brings to planners what their messages are made of: items from the object store, outputs from the log.

For a job whose lists stand in it, and whose tasks are all in its state or delivered little, nothing is asked of the
broker.
"""

import json
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio

from interlock.agents.manager import Planner
from interlock.agents.scopes import NotAList
from interlock.agents.shelf import (
    NOTHING_BROUGHT,
    NotBrought,
    Outputs,
    Places,
    Shelf,
    Stream,
    Wanted,
    standing,
)
from interlock.agents.templates import TemplateError
from interlock.protocol.base import Json
from interlock.protocol.commands import Assign, ExpandStep, Written
from interlock.protocol.items import StoredItems
from interlock.protocol.state import JobState
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BodyCorrupt, BodyMissing
from interlock.runtime.itemstore import ChunkUnreadable, ItemInvalid, ItemStore, ItemTooLarge
from interlock.runtime.jsonlines import to_line
from interlock.runtime.results import outputs

__all__ = ["Shelves"]

_KEPT = 4
"""The outputs of so many steps are kept, for the many tasks that are made of the same ones."""

_HELD_BYTES = 256 * 1024
"""As much of settled outputs is held; with one more byte all of them are let go, and the log has them."""

_ENTRY_BYTES = 128
"""What a held output takes besides its JSON: an object, its place and its position."""

_Key = tuple[str, tuple[int, ...]]
"""A step, and which of its ends."""

_LOST = (BodyMissing, BodyCorrupt, ChunkUnreadable)


class Shelves:
    """What is brought to the planner of one job."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._items = ItemStore(bus)
        self._kept: OrderedDict[_Key, Outputs] = OrderedDict()
        self._reading = anyio.Lock()
        self._held: dict[str, dict[int, Json]] = {}
        """By step: the outputs of settled tasks, by the positions of their items."""
        self._room = _HELD_BYTES

    def settles(self, state: JobState, task: str) -> None:
        """Take note of a task that is about to be settled, so that the log of a small job need not be read again."""
        known = state.tasks.get(task)
        if self._room < 0 or known is None or known.index is None or known.outcome != "accepted":
            return
        self._room -= len(json.dumps(known.output)) + _ENTRY_BYTES
        if self._room < 0:
            self._held.clear()
        else:
            self._held.setdefault(known.step, {})[known.index] = known.output

    async def fill(self, planner: Planner, state: JobState, command: Written) -> Shelf:
        """Return what the message of ``command`` is made of; what is lost for good is missing there.

        :raises BusError: the broker is away or full; another time it may be otherwise
        """
        wanted = planner.wants(state, command)
        shelf = await self._brought(state, command, wanted)
        if not isinstance(command, ExpandStep):
            return shelf
        if wanted.stream is not None:
            return await self._streamed(planner, state, wanted.stream, shelf)
        items = planner.worked_out(state, command, shelf)
        if items is None:
            return shelf
        try:
            return Shelf(expanded=await self._items.put_unless_short(items))
        except ItemTooLarge as error:
            return Shelf(missing=str(error))

    async def _brought(self, state: JobState, command: Written, wanted: Wanted) -> Shelf:
        if not (wanted.chunks or wanted.outputs or wanted.inputs):
            return NOTHING_BROUGHT
        keep = isinstance(command, Assign) and command.index is not None
        try:
            found = {name: await self._outputs(state, name, wanted.bound, keep=keep) for name in wanted.outputs}
            chunks = {chunk: await self._items.chunk(chunk) for chunk in wanted.chunks}
            inputs = {name: await self._whole(stored) for name, stored in wanted.inputs.items()}
        except _LOST as error:
            return Shelf(missing=str(error))
        return Shelf(
            chunks,
            {name: outputs for name, outputs in found.items() if outputs is not None},
            inputs,
            frozenset(name for name, outputs in found.items() if outputs is None),
        )

    async def _whole(self, stored: StoredItems) -> list[Json]:
        return [item async for item in self._items.items(stored)]

    async def _outputs(self, state: JobState, step: str, bound: int | None, *, keep: bool) -> Outputs | None:
        """Return what a step delivered; None if it is more than ``bound`` bytes."""
        key = (step, standing(state.steps[step]))
        async with self._reading:  # many tasks ask for the same outputs at once
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            entries, size = list[tuple[int, Json]](), 0
            async with aclosing(self._delivered(state, step)) as delivered:
                async for entry in delivered:
                    size += len(to_line(entry[1])) if bound is not None else 0
                    if bound is not None and size > bound:
                        return None
                    entries.append(entry)
            read = Outputs(entries)
            if keep:
                self._kept[key] = read
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            return read

    async def _delivered(self, state: JobState, step: str) -> AsyncGenerator[tuple[int, Json], None]:
        held = self._held.get(step, {})
        if len(held) == state.steps[step].accepted:
            for entry in sorted(held.items(), key=lambda entry: entry[0]):
                yield entry
            return
        async with aclosing(outputs(self._bus, _job_of(state), step)) as delivered:
            async for entry in delivered:
                yield entry

    async def _streamed(self, planner: Planner, state: JobState, stream: Stream, shelf: Shelf) -> Shelf:
        """Store a list that comes out of the log as it comes."""
        try:
            async with aclosing(self._entries(planner, state, stream, shelf)) as items:
                return Shelf(expanded=await self._items.put_unless_short(items))
        except (*_LOST, TemplateError, NotAList, NotBrought, ItemInvalid, ItemTooLarge) as error:
            return Shelf(missing=str(error))

    async def _entries(
        self, planner: Planner, state: JobState, stream: Stream, shelf: Shelf
    ) -> AsyncGenerator[Json, None]:
        places = Places(stream.items) if stream.items is not None else None
        whole = stream.member == "results"
        listed = planner.items(state, stream.step, shelf) if whole and places is None else ()
        async with aclosing(self._delivered(state, stream.step)) as delivered:
            async for index, output in delivered:
                if not whole:
                    yield output
                else:
                    item = listed[index] if places is None else await self._item(places, index)
                    yield {"index": index, "item": item, "output": output}

    async def _item(self, places: Places, index: int) -> Json:
        place = places.find(index)
        if place is None:
            raise NotBrought(f"item {index}", "the list has no such item")
        return (await self._items.chunk(place[0]))[place[1]]


def _job_of(state: JobState) -> str:
    return state.submitted.job if state.submitted else ""
