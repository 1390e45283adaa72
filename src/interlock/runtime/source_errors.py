"""Why a job cannot be made of what it was given: one flat class per condition, all of them ``SourceError``.

* ``ArgumentInvalid``: an argument is not ``NAME=VALUE``.
* ``UnknownInput``, ``InputsMissing``, ``InputRepeated``, ``InputWrongType``: a value that does not fit the team.
* ``SourceMissing``, ``SourceUnreadable``, ``SourceNotText``, ``SourceChanged``: a file that cannot be used.
* ``NothingMatches``: a glob that finds no file.
* ``JsonLineInvalid``: a line that is no JSON.
* ``LineTooLong``, ``FileTooLarge``: an item that is too large.
* ``SourcesTooLarge``: all that is to stand in the job itself is too much.
* ``StandardInputTaken``: standard input is wanted twice.
* ``TooManyWithin``: a team within a team has a list of items that is too long to stand in the job.
* ``ItemUnusable``: an item that a program gave cannot be one.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

__all__ = [
    "ArgumentInvalid",
    "FileTooLarge",
    "InputRepeated",
    "InputWrongType",
    "InputsMissing",
    "ItemUnusable",
    "JsonLineInvalid",
    "LineTooLong",
    "NothingMatches",
    "SourceChanged",
    "SourceError",
    "SourceMissing",
    "SourceNotText",
    "SourceUnreadable",
    "SourcesTooLarge",
    "StandardInputTaken",
    "TooManyWithin",
    "UnknownInput",
]


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
    """The files that are to stand in the job itself hold more text than it may carry."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(f"the files hold more than {limit} characters together (counted up to {path})")
        self.path = path


class LineTooLong(SourceError):
    """Line ``line``, from 1, of the file at ``path`` has more bytes than one item may have."""

    def __init__(self, path: Path, line: int, limit: int) -> None:
        super().__init__(f"{path}:{line}: this line has more than {limit} bytes, the most that one item may have")
        self.path = path
        self.line = line


class FileTooLarge(SourceError):
    """The file at ``path`` has more bytes than one item may have."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(f"{path} has more than {limit} bytes, the most that one item may have")
        self.path = path


class SourceChanged(SourceError):
    """The file at ``path`` is another one than it was when it was checked, a moment ago."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} has changed since it was checked: leave it as it is until the job is submitted")
        self.path = path


class StandardInputTaken(SourceError):
    """Two inputs are to be read from standard input, which can be read once."""

    def __init__(self, wanted_by: str) -> None:
        super().__init__(f"{wanted_by}: standard input was read for another input, and it can be read only once")


class ItemUnusable(SourceError):
    """An item that a program gave is no JSON value, not of its input's type, or too large."""

    def __init__(self, wanted_by: str, reason: str) -> None:
        super().__init__(f"{wanted_by}: {reason}")
        self.reason = reason


class TooManyWithin(SourceError):
    """A team within a team has a list of items that is too long to stand in the job of the team around it."""

    def __init__(self, team: str, wanted_by: str) -> None:
        self.team = team
        super().__init__(
            f"{wanted_by} of team {team} has too many items to travel within the job of another team: "
            "give it a part of them at a time, by 'inputs' of the step that it does"
        )
