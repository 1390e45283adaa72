"""What goes into a job: inputs, files and JSON lines, read once when the job is submitted and frozen into it.

After that a job depends on no file any more: a manager on another machine, or after a crash, sees the same items.

Errors, all of them ``SourceError``:

* ``ArgumentInvalid``: an argument is not ``NAME=VALUE``.
* ``UnknownInput``, ``InputsMissing``, ``InputRepeated``, ``InputWrongType``: a value that does not fit the team.
* ``SourceMissing``, ``SourceUnreadable``, ``SourceNotText``: a file that cannot be used.
* ``NothingMatches``: a glob that finds no file.
* ``JsonLineInvalid``: a line that is no JSON.
* ``SourcesTooLarge``: all files together are too much for one job.
"""

import glob
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from interlock.protocol.base import Json
from interlock.protocol.criteria import AnyCriterion, CommandCriterion
from interlock.protocol.team import Files, Input, InputType, JsonLines, Step, Team
from interlock.runtime.input_types import expected, fits, fits_frozen, shown
from interlock.runtime.teamfile import LoadedTeam

__all__ = [
    "MAX_CHARACTERS",
    "ArgumentInvalid",
    "FrozenJob",
    "InputRepeated",
    "InputWrongType",
    "InputsMissing",
    "JsonLineInvalid",
    "NothingMatches",
    "SourceError",
    "SourceMissing",
    "SourceNotText",
    "SourceUnreadable",
    "SourcesTooLarge",
    "UnknownInput",
    "freeze",
    "freeze_values",
    "parse_inputs",
]

MAX_CHARACTERS = 64_000_000
"""The most text that the files of one job may hold together."""


class SourceError(ValueError):
    """Something that a job was given cannot be used."""


class ArgumentInvalid(SourceError):
    """An argument is not ``NAME=VALUE``."""

    def __init__(self, argument: str) -> None:
        super().__init__(f"{argument!r} is no input: expected NAME=VALUE, or NAME=@FILE for what a file holds")
        self.argument = argument


class UnknownInput(SourceError):
    """The team has no input ``name``; ``known`` are those that it has."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(known)
        near = get_close_matches(name, self.known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"inputs: {', '.join(self.known) or 'none'}"
        super().__init__(f"the team has no input {name!r}: {hint}")


class InputsMissing(SourceError):
    """Inputs that the team cannot do without were not given."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        missing = ", ".join(map(repr, self.names))
        super().__init__(f"missing input {missing}: give each with --input NAME=VALUE")


class InputRepeated(SourceError):
    """An input that takes one value was given several."""

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(f"input {name!r} is given more than once, and a {kind} takes one value")
        self.name = name


class InputWrongType(SourceError):
    """The value of an input is not of its type."""

    def __init__(self, name: str, expected: str, got: str) -> None:
        super().__init__(f"input {name!r}: expected {expected}, got {got}")
        self.name = name
        self.expected = expected


class SourceMissing(SourceError):
    """There is no file at ``path``."""

    def __init__(self, path: Path, wanted_by: str) -> None:
        super().__init__(f"{wanted_by}: there is no file {path}")
        self.path = path


class SourceUnreadable(SourceError):
    """The file at ``path`` cannot be read."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read: {reason}")
        self.path = path


class SourceNotText(SourceError):
    """The file at ``path`` is not UTF-8 from the byte at ``offset`` on."""

    def __init__(self, path: Path, offset: int) -> None:
        super().__init__(f"{path} is not UTF-8 text: byte {offset} does not fit")
        self.path = path
        self.offset = offset


class NothingMatches(SourceError):
    """The glob ``pattern`` finds no file below ``folder``."""

    def __init__(self, pattern: str, folder: Path, wanted_by: str) -> None:
        super().__init__(f"{wanted_by}: no file matches {pattern!r} in {folder}")
        self.pattern = pattern
        self.folder = folder


class JsonLineInvalid(SourceError):
    """Line ``line``, from 1, of the file at ``path`` is no JSON."""

    def __init__(self, path: Path, line: int, reason: str) -> None:
        super().__init__(f"{path}:{line}: this line is no JSON: {reason}")
        self.path = path
        self.line = line


class SourcesTooLarge(SourceError):
    """The files of a job hold more text than one job may carry."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"the files hold more than {MAX_CHARACTERS} characters together (counted up to {path})")
        self.path = path


@dataclass(frozen=True)
class FrozenJob:
    """What a job is made of, free of any file."""

    team: Team
    """The team with the items of ``files`` and ``jsonl`` written out, and the files of commands by absolute paths."""
    inputs: dict[str, Json]
    """Every input of the team; one that is not required and was not given is None."""


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

    Values are read as their input's type says; ``@FILE`` is what the file holds, ``@@`` a literal ``@``. An input of
    type ``files`` takes several values. Paths are relative to ``cwd``, those of the team file to its own folder.

    :raises SourceError: one of its kinds, see the module.
    """
    reader = _Reader(cwd)
    declared = loaded.team.inputs
    values = {name: _from_texts(name, declared.get(name), texts, reader) for name, texts in given.items()}
    return _frozen(loaded, values, reader)


def freeze_values(loaded: LoadedTeam, given: Mapping[str, Json], cwd: Path) -> FrozenJob:
    """Return the job for values that came from another program, such as the body of an HTTP request.

    No file is read for them: ``files`` takes a list of ``{path, name, text}``, ``jsonl`` a list.

    :raises SourceError: one of its kinds, see the module.
    """
    for name, value in given.items():
        spec = loaded.team.inputs.get(name)
        if spec is not None and not fits_frozen(spec.type, value):
            raise InputWrongType(name, expected(spec.type, frozen=True), shown(value))
    return _frozen(loaded, dict(given), _Reader(cwd))


def _frozen(loaded: LoadedTeam, values: dict[str, Json], reader: "_Reader") -> FrozenJob:
    home = loaded.path.parent
    inputs = _complete(loaded, values, reader, home)
    steps = tuple(_frozen_step(step, reader, home) for step in loaded.team.plan)
    return FrozenJob(loaded.team.model_copy(update={"plan": steps}), inputs)


def _complete(loaded: LoadedTeam, values: dict[str, Json], reader: "_Reader", home: Path) -> dict[str, Json]:
    """Return the values with defaults, in the order of the team's inputs."""
    declared = loaded.team.inputs
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


def _default(name: str, spec: Input, reader: "_Reader", home: Path) -> Json:
    match spec.type, spec.default:
        case "files", str() | list() as globs:
            return reader.files([globs] if isinstance(globs, str) else [str(one) for one in globs], home, name)
        case "jsonl", str(path):
            return reader.json_lines(path, home, f"input {name!r}")
        case _, value:
            return value


def _frozen_step(step: Step, reader: "_Reader", home: Path) -> Step:
    wanted_by = f"step {step.step!r}"
    criteria = tuple(_placed(criterion, home, wanted_by) for criterion in step.verify.criteria)
    step = step.model_copy(update={"verify": step.verify.model_copy(update={"criteria": criteria})})
    match step.for_each:
        case Files(files=globs):
            items = reader.files([globs] if isinstance(globs, str) else globs, home, wanted_by)
        case JsonLines(jsonl=path):
            items = reader.json_lines(path, home, wanted_by)
        case _:
            return step
    outside = True if step.outside is None else step.outside
    return step.model_copy(update={"for_each": tuple(items), "outside": outside})


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


def _from_texts(name: str, spec: Input | None, texts: Sequence[str], reader: "_Reader") -> Json:
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
        return reader.json_lines(texts[0].removeprefix("@"), reader.cwd, wanted_by)
    return _typed(name, spec.type, reader.literal(texts[0], wanted_by))


def _typed(name: str, kind: InputType, text: str) -> Json:
    if kind == "string":
        return text
    try:
        value = _strict_json(text.strip())
    except ValueError:
        value = None
    if value is None or not fits(kind, value):
        raise InputWrongType(name, expected(kind), shown(text))
    return value


class _Reader:
    """Reads files, and counts how much."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self._characters = 0

    def literal(self, text: str, wanted_by: str) -> str:
        """Return ``text``, or what a file holds if it is ``@FILE``."""
        if not text.startswith("@"):
            return text
        if text.startswith("@@"):
            return text[1:]
        return self._text(self.cwd / text[1:], wanted_by)

    def files(self, globs: Iterable[str], folder: Path, wanted_by: str) -> list[Json]:
        """Return ``{path, name, text}`` of each file that a glob finds, each once, sorted by path."""
        found: dict[Path, str] = {}
        for pattern in globs:
            for path in self._matches(pattern, folder, wanted_by):
                found.setdefault(path.resolve(), self._shown_path(path))
        items = sorted((shown, path) for path, shown in found.items())
        return [{"path": shown, "name": path.name, "text": self._text(path, wanted_by)} for shown, path in items]

    def json_lines(self, path: str, folder: Path, wanted_by: str) -> list[Json]:
        """Return the value of each line of a file that is not blank."""
        file = folder / path
        values: list[Json] = []
        for number, line in enumerate(self._text(file, wanted_by).split("\n"), start=1):
            if line.strip():
                try:
                    values.append(_strict_json(line))
                except ValueError as error:
                    raise JsonLineInvalid(file, number, str(error)) from error
        return values

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

    def _text(self, path: Path, wanted_by: str) -> str:
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            raise SourceMissing(path, wanted_by) from None
        except UnicodeDecodeError as error:
            raise SourceNotText(path, error.start) from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise SourceUnreadable(path, reason) from error
        self._characters += len(text)
        if self._characters > MAX_CHARACTERS:
            raise SourcesTooLarge(path)
        return text


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for a file, or with a NUL in it, is none
        return False


def _strict_json(text: str) -> Json:
    """Return the JSON value of ``text``.

    :raises ValueError: it is no JSON, has NaN or Infinity in it, a lone surrogate, or is nested too deeply.
    """
    try:
        value: Json = json.loads(text, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("it has a lone surrogate in it") from error
    return value


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is no JSON")
