"""What several modules have to know of failures: which pass by themselves, and which one stands for a group."""

from pathlib import Path
from typing import TypeVar

from interlock.runtime.bus_errors import AppendInDoubt, BrokerUnreachable, LeaderMissing, LogFull, ReplyMissing

__all__ = ["BROKER_AWAY", "FileUnwritable", "Mistake", "first_error"]

_Error = TypeVar("_Error", bound=BaseException)

BROKER_AWAY = (BrokerUnreachable, AppendInDoubt, ReplyMissing, LeaderMissing, LogFull)
"""What a request or an append raises while the broker, or most of its cluster, is away or has no room: the same may be
tried again."""


class Mistake(Exception):
    """A person asked for what cannot be: told in a line, and the command ends with exit status 2."""


class FileUnwritable(Mistake):
    """A file that was to be written cannot be."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"{path} cannot be written: {reason}")


def first_error(error: _Error | BaseExceptionGroup[_Error]) -> _Error:
    """Return ``error``, or the first of a group's errors, however deep it stands."""
    return first_error(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
