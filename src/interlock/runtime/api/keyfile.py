"""Files of keys of the HTTP API: what stands in one, how it is read and changed. Only hashes of keys are stored."""

import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError

from interlock.protocol.base import Name, Strict
from interlock.runtime.keyring import write_private

__all__ = ["SCOPES", "KeyRecord", "KeyScope", "KeysInvalid", "digest_of", "new_key", "read_keys", "write_keys"]

KeyScope = Literal["submit", "read", "answer", "kill"]
"""``submit`` jobs, ``read`` jobs and teams, ``answer`` questions, ``kill`` and resume."""

SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)

_PREFIX = "ilk_"
"""Begins each key, so that people and scanners of secrets know one when they see it."""

_RANDOM_BYTES = 32


class KeysInvalid(Exception):
    """A file of keys is none."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"{path} is no file of keys: {reason}; `interlock api-key NAME` makes one")


class KeyRecord(Strict):
    """One key, as it stands in the file."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.@-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the key; the key itself is a random number of 256 bits, so nobody guesses it from this."""
    scopes: tuple[KeyScope, ...] = Field(min_length=1)
    teams: tuple[Name, ...] | None = None
    """None: all of them."""


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


def write_keys(path: Path, records: Iterable[KeyRecord]) -> None:
    """Make these the keys of a file, in one go: who reads it meanwhile sees those before or these.

    :raises OSError: it cannot be written
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    write_private(beside, f"{_Records(keys=tuple(records)).model_dump_json(indent=2)}\n")
    beside.replace(path)
