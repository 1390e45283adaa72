"""Keys of the HTTP API: who may do what for which teams."""

import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from fastapi import Request, Security
from fastapi.security import HTTPBearer

from interlock.protocol.base import Name
from interlock.runtime.api.keyfile import SCOPES, KeyRecord, KeyScope, KeysInvalid, digest_of, read_keys
from interlock.runtime.api.problems import KeyLacksScope, KeyWanted

__all__ = ["ANYBODY", "Caller", "KeyFile", "Keys", "Scope", "caller_with"]

_log = logging.getLogger(__name__)

Scope: TypeAlias = KeyScope
"""What a key is for."""


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


class Keys:
    """The keys of a server."""

    def __init__(self, records: Iterable[KeyRecord]) -> None:
        self._records = tuple(records)

    def caller(self, key: str) -> Caller | None:
        """Return who has a key, None where nobody does. It takes as long whoever it is."""
        digest, found = digest_of(key), None
        for record in self._records:
            if hmac.compare_digest(digest, record.sha256):
                found = record
        return None if found is None else _caller_of(found)


class KeyFile(Keys):
    """The keys of a file, read again whenever it changes; as long as it cannot be read nobody gets in."""

    def __init__(self, path: Path) -> None:
        super().__init__(())
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        """None: it could not be read."""
        self._complained = False

    def caller(self, key: str) -> Caller | None:
        """Return who has a key according to the file as it is now."""
        self._look()
        return super().caller(key)

    def _look(self) -> None:
        try:
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
            if seen != self._seen:
                self._records, self._seen, self._complained = read_keys(self._path), seen, False
        except (OSError, KeysInvalid) as error:
            self._records, self._seen = (), None
            if not self._complained:
                _log.error("no key is taken: %s", error)
                self._complained = True


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


def _caller_of(record: KeyRecord) -> Caller:
    return Caller(record.name, frozenset(record.scopes), None if record.teams is None else frozenset(record.teams))
