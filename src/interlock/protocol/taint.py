"""Taint: what an attempt has seen of text from outside, and where the values of its calls come from. Pure.

What an attempt has read is kept as it was returned, so that the source of a value is found by looking for the value and
never by believing what a model says of it. ``docs/taint.md`` says what each source means and why.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from interlock.protocol.base import Json, Strict, canonical_json
from interlock.protocol.permissions import Source
from interlock.protocol.tools import Pin, ToolSpec
from interlock.protocol.wording import has_foreign_link, is_made_of, is_name, stands_in

__all__ = ["MOST_LABELS", "MOST_READ", "SOURCES", "Provenance", "Reading", "begun", "joined", "worst"]

SOURCES: tuple[Source, ...] = (
    "pinned",
    "instructed",
    "delegated",
    "named",
    "worded",
    "field",
    "found",
    "data",
    "link",
)
"""From the most to the least that people had to do with a value."""

MOST_LABELS = 32
"""The most labels of one text; more are cut, never to none."""

MOST_READ = 1_000_000
"""How many characters of what was read are kept; what is dropped only makes sources worse."""

_AND_MORE = "and more"
_OWN_WORDS: frozenset[Source] = frozenset({"pinned", "instructed", "delegated"})
_ONLY_FOUND: frozenset[Source] = frozenset({"found", "data", "link"})
_TWO_NAMES = 2


class Reading(Strict):
    """What one call returned."""

    tool: str
    value: Json
    own: bool
    """Whether it comes from a tool that reaches nobody but the service that holds the team's own data."""
    selected: bool
    """Whether people's own words chose what was read: the call had arguments, and each was pinned, instructed or
    delegated."""


class _Made(Protocol):
    """A call that was made: ``interlock.protocol.permissions.Call``."""

    @property
    def spec(self) -> ToolSpec: ...
    @property
    def arguments(self) -> Mapping[str, Json]: ...
    @property
    def sources(self) -> Mapping[str, Source]: ...


class Provenance(Strict):
    """What one attempt knows and from where. It travels as JSON, so that a suspended attempt goes on elsewhere."""

    words: str = ""
    """What people told the attempt to do, without any text from outside."""
    labels: tuple[str, ...] = ()
    """Where the text from outside comes from that the attempt has seen."""
    readings: tuple[Reading, ...] = ()
    """Oldest first."""
    written: tuple[str, ...] = ()
    """What the attempt itself wrote somewhere of what was only found: read again it is no better than before."""

    @property
    def tainted(self) -> bool:
        """Whether there is text from outside in the attempt's context."""
        return bool(self.labels)

    def after(self, call: _Made, outcome: Json) -> "Provenance":
        """Return what is known once ``call`` has returned ``outcome``, or failed with that text."""
        given = [name for name, value in call.arguments.items() if not _is_filled_in(call.spec, name, value)]
        reading = Reading(
            tool=call.spec.name,
            value=outcome,
            own=not call.spec.network,
            selected=bool(given) and all(call.sources.get(name) in _OWN_WORDS for name in given),
        )
        written = (*self.written, *(_written(call) if call.spec.effect != "read" else ()))
        return self.model_copy(
            update={
                "labels": joined(self.labels, (f"tool {call.spec.name}",) if call.spec.outside else ()),
                "readings": _kept((*self.readings, reading), MOST_READ - sum(map(len, written))),
                "written": tuple(dict.fromkeys(written)),
            }
        )

    def sources_of(
        self, arguments: Mapping[str, Json], pins: Mapping[str, Pin], spec: ToolSpec | None = None
    ) -> dict[str, Source]:
        """Return where the value of each argument comes from; of a list or object, the worst of its parts.

        :param pins: what the plan fixes; a tainted pin proves nothing
        :param spec: the tool. The arguments that say where its effect goes are compared as a whole with what was read;
            the others must also bring no link along that people did not write. A tool that does not say which they
            are may take any for one.
        """
        trace = _Trace(self)
        goes = (spec.destinations if spec else ()) or arguments
        return {
            name: "pinned"
            if name in pins and not pins[name].tainted and canonical_json(pins[name].value) == canonical_json(value)
            else trace.source(value, destination=name in goes)
            for name, value in arguments.items()
        }


def begun(goal: str, instruction: str, taint: Sequence[str]) -> Provenance:
    """Return what an attempt knows when it begins.

    The job's goal is a person's word. The instruction counts only where no text from outside went into it, since
    nobody can tell afterwards which part of it was whose.
    """
    return Provenance(words=goal if taint else f"{goal}\n{instruction}", labels=tuple(taint))


def joined(*labels: Iterable[str]) -> tuple[str, ...]:
    """Return all labels, each once, in order; too many are cut, never to none."""
    every = tuple(dict.fromkeys(label for several in labels for label in several))
    return every if len(every) <= MOST_LABELS else (*every[: MOST_LABELS - 1], _AND_MORE)


def worst(sources: Iterable[Source]) -> Source:
    """Return the source that people had the least to do with; of none, ``instructed``: nothing carries nothing."""
    ranks = [SOURCES.index(source) for source in sources]
    return SOURCES[max(ranks)] if ranks else "instructed"


class _Trace:
    """Looks for values in what people said and in what was read."""

    def __init__(self, provenance: Provenance) -> None:
        own = [reading for reading in provenance.readings if reading.own]
        self._words = provenance.words
        self._written = provenance.written
        self._delegated: list[str] = []
        self._named: set[str] = set()
        for reading in own:
            self._take_named(reading)
        self._fields = {leaf for reading in own for leaf in _leaves_of(reading.value)}
        self._selected = [text for reading in own if reading.selected for text in _texts(reading.value)]

    def source(self, value: Json, *, destination: bool) -> Source:
        match value:
            case list():
                return worst(self.source(one, destination=destination) for one in value)
            case dict():
                parts = (part for pair in value.items() for part in pair)
                return worst(self.source(one, destination=destination) for one in parts)
            case None | "":
                return "instructed"
            case bool():
                return "worded"
            case int() | float():
                return self._of_number(value)
            case str():
                return self._of_text(value, destination=destination)

    def _of_number(self, value: float) -> Source:
        forms = {str(value), f"{value:.2f}", f"{value:g}"}
        if any(stands_in(form, self._words) for form in forms):
            return "instructed"
        if self._was_written(str(value)):
            return "data"
        if any(stands_in(form, text) for form in forms for text in self._delegated):
            return "delegated"
        if str(value) in self._named:
            return "named"
        return "field" if str(value) in self._fields else "data"

    def _of_text(self, value: str, *, destination: bool) -> Source:
        if stands_in(value, self._words):
            return "instructed"
        own = not self._was_written(value)
        if own and any(stands_in(value, text) for text in self._delegated):
            return "delegated"
        if not destination and has_foreign_link(value, self._words):
            return "link"
        if own and value in self._named:
            return "named"
        if not destination and is_made_of(value, self._words):
            return "worded"
        if not own:
            return "data"
        if value in self._fields:
            return "field"
        return "found" if any(stands_in(value, text) for text in self._selected) else "data"

    def _was_written(self, value: str) -> bool:
        return any(value == text or stands_in(value, text) for text in self._written)

    def _take_named(self, reading: Reading) -> None:
        """Take in the one record of ``reading`` that people's words mean, if there is exactly one."""
        if not reading.selected:
            return
        records = [(self._names(record), record) for record in _records(reading.value)]
        most = max((count for count, _ in records), default=0)
        meant = [record for count, record in records if count == most]
        if most and len({canonical_json(record) for record in meant}) == 1:
            self._named.update(_leaves(meant[0]))
            if most >= _TWO_NAMES:
                self._delegated += _texts(meant[0])

    def _names(self, record: dict[str, Json]) -> int:
        """Return how many fields of ``record`` are names that stand in people's words."""
        names = {leaf for leaf in _leaves(record) if is_name(leaf)}
        return sum(any(stands_in(name, text) for text in (self._words, *self._delegated)) for name in names)


def _is_filled_in(spec: ToolSpec, name: str, value: Json) -> bool:
    """Return whether nobody chose the value of an argument: it is empty, or what the tool takes of itself."""
    properties = spec.parameters.get("properties")
    schema = properties.get(name) if isinstance(properties, dict) else None
    return value in (None, "", [], {}) or (
        isinstance(schema, dict) and "default" in schema and schema["default"] == value
    )


def _written(call: _Made) -> Iterator[str]:
    """Yield what a call passed on of what was only found."""
    for name, value in call.arguments.items():
        if call.sources.get(name, "data") in _ONLY_FOUND:
            yield from _texts(value)


def _kept(readings: tuple[Reading, ...], room: int) -> tuple[Reading, ...]:
    """Return the newest of ``readings``, as many as have together no more than ``room`` characters."""
    kept: list[Reading] = []
    for reading in reversed(readings):
        room -= len(canonical_json(reading.value))
        if room < 0:
            break
        kept.append(reading)
    return tuple(reversed(kept))


def _records(value: Json) -> Iterator[dict[str, Json]]:
    """Yield the objects that a structured result consists of."""
    match value:
        case list():
            yield from (one for one in value if isinstance(one, dict))
        case dict() if value and all(isinstance(one, dict) for one in value.values()):
            yield from ({key: one} for key, one in value.items())
        case dict():
            yield value
        case _:
            return


def _leaves_of(value: Json) -> Iterator[str]:
    """Yield the whole fields of a result; one that is a text and nothing else has none."""
    if isinstance(value, (dict, list)):
        yield from _leaves(value)


def _leaves(value: Json, *, keys: bool = False) -> Iterator[str]:
    """Yield the values that stand at the ends of ``value``, and the keys of the objects within it."""
    if isinstance(value, dict):
        yield from value if keys else ()
        for one in value.values():
            yield from _leaves(one, keys=True)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _texts(value: Json) -> list[str]:
    return [value] if isinstance(value, str) else list(_leaves(value))
