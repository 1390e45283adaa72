"""Keys of the HTTP API: who may do what for which teams. Only hashes of them are ever stored."""

import hashlib
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from fastapi import Request, Security
from fastapi.security import HTTPBearer
from pydantic import Field, ValidationError

from interlock.protocol.base import Name, Strict
from interlock.runtime.api.problems import KeyLacksScope, KeyWanted

__all__ = [
    "ANYBODY",
    "SCOPES",
    "Caller",
    "KeyFile",
    "KeyRecord",
    "Keys",
    "KeysInvalid",
    "Scope",
    "caller_with",
    "digest_of",
    "new_key",
    "read_keys",
    "written_keys",
]

_log = logging.getLogger(__name__)

Scope = Literal["submit", "read", "answer", "kill"]
"""``submit`` jobs, ``read`` jobs and teams, ``answer`` questions, ``kill`` and resume."""

SCOPES: tuple[Scope, ...] = get_args(Scope)

_PREFIX = "ilk_"
"""Begins each key, so that people and scanners of secrets know one when they see it."""

_RANDOM_BYTES = 32


class KeysInvalid(Exception):
    """A file of keys is none."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"{path} is no file of keys: {reason}; `interlock api-key` makes one")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, and what its key is for."""

    name: str
    scopes: frozenset[Scope]
    teams: frozenset[Name] | None
    """None: all of them."""

    def may_see(self, team: str) -> bool:
        """Return whether the key is for a team."""
        return self.teams is None or team in self.teams


ANYBODY = Caller("anybody", frozenset(SCOPES), None)
"""Who asks a server without keys."""


class KeyRecord(Strict):
    """One key, as it stands in the file."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.@-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the key; the key itself is a random number of 256 bits, so nobody guesses it from this."""
    scopes: tuple[Scope, ...] = Field(min_length=1)
    teams: tuple[Name, ...] | None = None
    """None: all of them."""

    @property
    def caller(self) -> Caller:
        """Return who sends requests with it."""
        return Caller(self.name, frozenset(self.scopes), None if self.teams is None else frozenset(self.teams))


class _Records(Strict):
    keys: tuple[KeyRecord, ...] = ()


def new_key() -> str:
    """Return a key that nobody had before."""
    return f"{_PREFIX}{secrets.token_urlsafe(_RANDOM_BYTES)}"


def digest_of(key: str) -> str:
    """Return what is stored of a key."""
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()


def read_keys(path: Path) -> tuple[KeyRecord, ...]:
    """Return the keys of a file.

    :raises KeysInvalid: it cannot be read, or is none
    """
    try:
        return _Records.model_validate_json(path.read_bytes()).keys
    except OSError as error:
        raise KeysInvalid(path, error.strerror or str(error)) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise KeysInvalid(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def written_keys(records: Iterable[KeyRecord]) -> str:
    """Return the text of a file of keys."""
    return f"{_Records(keys=tuple(records)).model_dump_json(indent=2)}\n"


class Keys:
    """The keys of a server."""

    def __init__(self, records: Iterable[KeyRecord]) -> None:
        self._records = tuple(records)

    def caller(self, key: str) -> Caller | None:
        """Return who has a key, None where nobody does. It takes as long whoever it is."""
        digest, found = digest_of(key), None
        for record in self._records:
            if hmac.compare_digest(digest, record.sha256):
                found = record.caller
        return found


class KeyFile(Keys):
    """The keys of a file, read again whenever it changes; as long as it cannot be read nobody gets in."""

    def __init__(self, path: Path) -> None:
        super().__init__(())
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    def caller(self, key: str) -> Caller | None:
        """Return who has a key according to the file as it is now."""
        self._look()
        return super().caller(key)

    def _look(self) -> None:
        try:
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
            if seen != self._seen:
                self._records, self._seen = read_keys(self._path), seen
        except (OSError, KeysInvalid) as error:
            if self._records or self._seen is None:
                _log.error("no key is taken any more: %s", error)
            self._records, self._seen = (), (0, 0, 0)


_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="A key of `interlock api-key`.")


def caller_with(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    """Return a dependency that gives who sends the request, and refuses keys that are not for ``scope``."""

    async def caller(request: Request, _: Annotated[Any, Security(_bearer)] = None) -> Caller:
        found = request.scope.get("caller")
        if not isinstance(found, Caller):
            raise KeyWanted
        if scope not in found.scopes:
            raise KeyLacksScope(scope)
        return found

    return caller
