"""What goes into a job: inputs, files and JSON lines, checked when it is frozen and stored when it is submitted.

After that a job depends on no file any more: a manager on another machine, or after a crash, sees the same items. Short
lists stand in the job itself; long ones are read as they are stored, and nobody ever holds one of them as a whole.

What is wrong with any of it is told by the errors of ``source_errors``.
"""

import glob
import os
import sys
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from interlock.protocol.base import Json
from interlock.protocol.criteria import AnyCriterion, CommandCriterion
from interlock.protocol.items import StoredItems
from interlock.protocol.team import Agent, Files, Input, InputType, JsonLines, Step, Team
from interlock.runtime.bus import Bus
from interlock.runtime.input_types import expected, fits, fits_frozen, shown
from interlock.runtime.item_sources import (
    STANDARD_INPUT,
    FilesSource,
    GivenSource,
    ItemSource,
    LinesSource,
    from_files,
    from_lines,
    from_standard_input,
    from_values,
    read_text,
)
from interlock.runtime.itemstore import ItemInvalid, ItemStore, ItemTooLarge
from interlock.runtime.jsonlines import from_line
from interlock.runtime.source_errors import (
    ArgumentInvalid,
    InputRepeated,
    InputsMissing,
    InputWrongType,
    ItemUnusable,
    NothingMatches,
    SourceMissing,
    SourceNotText,
    SourcesTooLarge,
    StandardInputTaken,
    TooManyWithin,
    UnknownInput,
)
from interlock.runtime.teamfile import LoadedTeam

__all__ = ["MAX_CHARACTERS", "FrozenJob", "Given", "StoredJob", "freeze", "freeze_values", "parse_inputs", "store"]

MAX_CHARACTERS = 64_000_000
"""The most text that the files may hold together that stand in a job itself: those of inputs that are no lists."""

Given = Json | Iterable[Json] | AsyncIterable[Json]
"""What a program gives for an input: a value, or the items of a list as it makes them."""

_Value = Json | ItemSource

_STANDARD_INPUT = "@-"


@dataclass(frozen=True)
class FrozenJob:
    """What a job is made of, all of it checked."""

    team: Team
    """The team with the items of ``files`` and ``jsonl`` written out where they are few, and the files of commands by
    absolute paths."""
    inputs: dict[str, Json]
    """Every input of the team but those in ``lists``; one that is not required and was not given is None."""
    items: Mapping[str, ItemSource] = field(default_factory=dict[str, ItemSource])
    """By step: the items of a ``for_each`` over files or JSON lines that are too many to be written out."""
    lists: Mapping[str, ItemSource] = field(default_factory=dict[str, ItemSource])
    """By input: lists that are too long to be held."""


@dataclass(frozen=True)
class StoredJob:
    """What goes into ``JobSubmitted``: a frozen job, and where its long lists are."""

    team: Team
    inputs: dict[str, Json]
    items: dict[str, StoredItems]
    stored: dict[str, StoredItems]


def parse_inputs(arguments: Iterable[str]) -> dict[str, list[str]]:
    """Return the values of ``NAME=VALUE`` arguments, in order, by name.

    :raises ArgumentInvalid: an argument has no name or no ``=``.
    """
    given: dict[str, list[str]] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not (name.strip() and equals):
            raise ArgumentInvalid(argument)
        given.setdefault(name.strip(), []).append(value)
    return given


def freeze(loaded: LoadedTeam, given: Mapping[str, Sequence[str]], cwd: Path) -> FrozenJob:
    """Return the job that a person describes on a command line.

    Values are read as their input's type says; ``@FILE`` is what the file holds, ``@-`` what comes over standard input,
    ``@@`` a literal ``@``. An input of type ``files`` takes several values. Paths are relative to ``cwd``, those of the
    team file to its own folder. Every file is read from its beginning to its end.

    :raises SourceError: one of its kinds, see the module.
    """
    reader = _Reader(cwd)
    declared = loaded.team.inputs
    values = {name: _from_texts(name, declared.get(name), texts, reader) for name, texts in given.items()}
    return _frozen(loaded, values, reader)


def freeze_values(loaded: LoadedTeam, given: Mapping[str, Given], cwd: Path) -> FrozenJob:
    """Return the job for values that came from another program, such as the body of an HTTP request.

    No file is read for them: ``files`` takes a list of ``{path, name, text}``, ``jsonl`` a list. Inputs that are lists
    also take iterables, asynchronous ones too, which are asked for their items when the job is stored.

    :raises SourceError: one of its kinds, see the module.
    """
    declared = loaded.team.inputs
    values = {name: _from_program(name, declared.get(name), value) for name, value in given.items()}
    return _frozen(loaded, values, _Reader(cwd))


async def store(frozen: FrozenJob, bus: Bus) -> StoredJob:
    """Put the long lists of a job into the object store, and return what the job is then made of.

    There is no job yet after that, and doing it again is cheap.

    :raises SourceChanged: a file is another one than when it was frozen
    :raises ItemUnusable: an item of an iterable is no JSON value, not of its input's type, or too large
    :raises SourceError: a file cannot be read any more
    :raises BusError: the broker is away or full
    """
    items = ItemStore(bus)
    by_step = {name: await _put(items, source, f"step {name!r}") for name, source in frozen.items.items()}
    by_input = {name: await _put(items, source, f"input {name!r}") for name, source in frozen.lists.items()}
    short = {name: list(found) for name, found in by_input.items() if not isinstance(found, StoredItems)}
    return StoredJob(
        frozen.team.model_copy(update={"plan": tuple(_with_short(step, by_step) for step in frozen.team.plan)}),
        {**frozen.inputs, **short},
        {name: found for name, found in by_step.items() if isinstance(found, StoredItems)},
        {name: found for name, found in by_input.items() if isinstance(found, StoredItems)},
    )


def _with_short(step: Step, found: Mapping[str, tuple[Json, ...] | StoredItems]) -> Step:
    short = found.get(step.step)
    return step.model_copy(update={"for_each": short}) if isinstance(short, tuple) else step


async def _put(items: ItemStore, source: ItemSource, wanted_by: str) -> tuple[Json, ...] | StoredItems:
    """Store a list, unless it turns out to be a short one."""
    try:
        return await items.put_unless_short(source.read())
    except (ItemInvalid, ItemTooLarge) as error:
        raise ItemUnusable(wanted_by, str(error)) from error


def _frozen(loaded: LoadedTeam, values: Mapping[str, _Value], reader: "_Reader") -> FrozenJob:
    home = loaded.path.parent
    inputs = _complete(loaded, values, reader, home)
    lists = {name: value for name, value in inputs.items() if isinstance(value, ItemSource)}
    steps = [_frozen_step(step, reader, home) for step in loaded.team.plan]
    return FrozenJob(
        loaded.team.model_copy(update={"plan": tuple(step for step, _ in steps), "agents": _agents(loaded, reader)}),
        {name: value for name, value in inputs.items() if not isinstance(value, ItemSource)},
        {step.step: items for step, items in steps if items is not None},
        lists,
    )


def _agents(loaded: LoadedTeam, reader: "_Reader") -> dict[str, Agent]:
    """Return the agents, those that are teams without files."""
    inner = {name: _frozen_within(one, reader) for name, one in loaded.inner.items()}
    agents = loaded.team.agents.items()
    return {name: agent.model_copy(update={"team": inner[name]}) if name in inner else agent for name, agent in agents}


def _frozen_within(loaded: LoadedTeam, reader: "_Reader") -> Team:
    """Return a team within a team as it stands in the job: with all that its files hold."""
    home, team = loaded.path.parent, loaded.team
    steps = [_frozen_step(step, reader, home) for step in team.plan]
    defaults = {name: _default(name, spec, reader, home) for name, spec in team.inputs.items()}
    for wanted_by, items in (*((f"step {step.step!r}", items) for step, items in steps), *defaults.items()):
        if isinstance(items, ItemSource):
            raise TooManyWithin(team.team, wanted_by)
    inputs = {name: spec.model_copy(update={"default": defaults[name]}) for name, spec in team.inputs.items()}
    plan = tuple(step for step, _ in steps)
    return team.model_copy(update={"plan": plan, "inputs": inputs, "agents": _agents(loaded, reader)})


def _from_program(name: str, spec: Input | None, value: Given) -> _Value:
    kind = spec.type if spec else None
    if not isinstance(value, str | dict | list) and isinstance(value, Iterable | AsyncIterable):
        if kind is not None and kind not in {"files", "jsonl", "array"}:
            raise InputWrongType(name, expected(kind, frozen=True), "items")
        return GivenSource(name, kind, value)
    return _from_value(name, kind, cast("Json", value))


def _from_value(name: str, kind: InputType | None, value: Json) -> _Value:
    if kind is None:
        return value
    if not fits_frozen(kind, value):
        raise InputWrongType(name, expected(kind, frozen=True), shown(value))
    return from_values(name, kind, value) if isinstance(value, list) and kind != "array" else value


def _complete(loaded: LoadedTeam, values: Mapping[str, _Value], reader: "_Reader", home: Path) -> Mapping[str, _Value]:
    """Return the values with defaults, in the order of the team's inputs."""
    declared = loaded.team.inputs
    if not declared and not loaded.team.plan:
        return values  # a plan that is yet to be made can name any of them
    if not declared:
        for name in values:
            if name not in loaded.inputs_used:
                raise UnknownInput(name, sorted(loaded.inputs_used))
        missing = sorted(loaded.inputs_used - values.keys())
        if missing:
            raise InputsMissing(missing)
        return values
    for name in values:
        if name not in declared:
            raise UnknownInput(name, declared)
    missing = [name for name, spec in declared.items() if name not in values and spec.required and spec.default is None]
    if missing:
        raise InputsMissing(missing)
    return {
        name: values[name] if name in values else _default(name, spec, reader, home) for name, spec in declared.items()
    }


def _default(name: str, spec: Input, reader: "_Reader", home: Path) -> _Value:
    match spec.type, spec.default:
        case "files", str() | list() as globs:
            return reader.files([globs] if isinstance(globs, str) else [str(one) for one in globs], home, name)
        case "jsonl", str(path):
            return from_lines(home / path, f"input {name!r}")
        case _, value:
            return value


def _frozen_step(step: Step, reader: "_Reader", home: Path) -> tuple[Step, ItemSource | None]:
    """Return a step without files, and where its items are to be read if they are many."""
    wanted_by = f"step {step.step!r}"
    criteria = tuple(_placed(criterion, home, wanted_by) for criterion in step.verify.criteria)
    step = step.model_copy(update={"verify": step.verify.model_copy(update={"criteria": criteria})})
    items: list[Json] | ItemSource
    match step.for_each:
        case Files(files=globs):
            items = reader.files([globs] if isinstance(globs, str) else globs, home, wanted_by)
        case JsonLines(jsonl=path):
            items = from_lines(home / path, wanted_by)
        case _:
            return step, None
    step = step.model_copy(update={"outside": True if step.outside is None else step.outside})
    return (step.model_copy(update={"for_each": tuple(items)}), None) if isinstance(items, list) else (step, items)


def _placed(criterion: AnyCriterion, home: Path, wanted_by: str) -> AnyCriterion:
    """Return a command with its ``./FILE`` and ``../FILE`` made absolute: who runs it stands in another folder."""
    if not isinstance(criterion, CommandCriterion):
        return criterion
    command = tuple(
        str(_beside(home, word, wanted_by)) if word.startswith(("./", "../")) else word for word in criterion.command
    )
    return criterion.model_copy(update={"command": command})


def _beside(home: Path, word: str, wanted_by: str) -> Path:
    path = home.absolute() / word
    if "{{" not in word and not path.exists():  # later it would look as if the command refused the worker's answer
        raise SourceMissing(path, wanted_by)
    return path


def _from_texts(name: str, spec: Input | None, texts: Sequence[str], reader: "_Reader") -> _Value:
    """Return the value that ``texts`` give an input; ``spec`` is None where the team declares none."""
    wanted_by = f"input {name!r}"
    if spec is None:
        read = [reader.literal(text, wanted_by) for text in texts]
        return read[0] if len(read) == 1 else list[Json](read)
    if spec.type == "files":
        return reader.files([text.removeprefix("@") for text in texts], reader.cwd, wanted_by)
    if len(texts) != 1:
        raise InputRepeated(name, spec.type)
    if spec.type == "jsonl":
        return reader.json_lines(texts[0], wanted_by)
    return _typed(name, spec.type, reader.literal(texts[0], wanted_by))


def _typed(name: str, kind: InputType, text: str) -> Json:
    if kind == "string":
        return text
    try:
        value = from_line(text.strip().encode())
    except ValueError:
        value = None
    if value is None or not fits(kind, value):
        raise InputWrongType(name, expected(kind), shown(text))
    return value


class _Reader:
    """Reads files and standard input, and counts how much of them is to stand in the job itself."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self._characters = 0
        self._took_standard_input = False

    def literal(self, text: str, wanted_by: str) -> str:
        """Return ``text``, or what a file holds if it is ``@FILE``, or standard input if it is ``@-``."""
        if not text.startswith("@"):
            return text
        if text.startswith("@@"):
            return text[1:]
        if text == _STANDARD_INPUT:
            self._take_standard_input(wanted_by)
            return self._counted(STANDARD_INPUT, _standard_text())
        path = self.cwd / text[1:]
        return self._counted(path, read_text(path, wanted_by))

    def files(self, globs: Iterable[str], folder: Path, wanted_by: str) -> list[Json] | FilesSource:
        """Return ``{path, name, text}`` of each file that a glob finds, each once, sorted by path."""
        found: dict[Path, str] = {}
        for pattern in globs:
            for path in self._matches(pattern, folder, wanted_by):
                found.setdefault(path.resolve(), self._shown_path(path))
        return from_files(sorted((shown, path) for path, shown in found.items()), wanted_by)

    def json_lines(self, text: str, wanted_by: str) -> list[Json] | LinesSource:
        """Return the values of the lines of a file, or of those that come over standard input if it is ``@-``."""
        if text != _STANDARD_INPUT:
            return from_lines(self.cwd / text.removeprefix("@"), wanted_by)
        self._take_standard_input(wanted_by)
        return from_standard_input()

    def _take_standard_input(self, wanted_by: str) -> None:
        if self._took_standard_input:
            raise StandardInputTaken(wanted_by)
        self._took_standard_input = True

    def _counted(self, path: Path, text: str) -> str:
        self._characters += len(text)
        if self._characters > MAX_CHARACTERS:
            raise SourcesTooLarge(path, MAX_CHARACTERS)
        return text

    def _matches(self, pattern: str, folder: Path, wanted_by: str) -> list[Path]:
        plain = folder / pattern
        if _is_file(plain):
            return [plain]
        if not glob.has_magic(pattern):
            raise SourceMissing(plain, wanted_by)
        # Path.glob() refuses absolute patterns and finds hidden files.
        names = glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207
        files = [path for path in (folder / name for name in names) if _is_file(path)]
        if not files:
            raise NothingMatches(pattern, folder, wanted_by)
        return files

    def _shown_path(self, path: Path) -> str:
        """Return a path relative to the working directory if it lies in it, or else absolute."""
        whole, here = (Path(os.path.abspath(one)) for one in (path, self.cwd))  # noqa: PTH100  (resolve() follows links)
        return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


def _standard_text() -> str:
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceNotText(STANDARD_INPUT, error.start) from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for a file, or with a NUL in it, is none
        return False
