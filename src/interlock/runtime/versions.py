"""Which version of the messages this process speaks: the newest that all machines of its namespace read."""

import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import anyio

from interlock.protocol.messages import VERSION
from interlock.runtime.bus_errors import BusError
from interlock.runtime.failures import Mistake

__all__ = ["PROTOCOL_ENV", "ProtocolInvalid", "Speaks", "newest_version"]

_log = logging.getLogger(__name__)

PROTOCOL_ENV = "INTERLOCK_PROTOCOL"
"""Names the newest version that a process reads and writes, so that an upgrade can be held back."""

_LOOK_SECONDS = 2.0
"""How long what was seen of the machines counts; less than they are remembered after they are gone."""


class ProtocolInvalid(Mistake):
    """The environment names no version of the messages."""

    def __init__(self, given: str) -> None:
        super().__init__(f"{PROTOCOL_ENV} is {given!r}; it must be a version of the messages, from 1 to {VERSION}")


def newest_version(environ: Mapping[str, str] = os.environ) -> int:
    """Return the newest version of the messages that this process reads and writes.

    :raises ProtocolInvalid: the environment names none
    """
    given = environ.get(PROTOCOL_ENV, "").strip()
    if not given:
        return VERSION
    if not (given.isascii() and given.isdecimal() and 1 <= int(given) <= VERSION):
        raise ProtocolInvalid(given)
    return int(given)


class _Value(Protocol):
    @property
    def body(self) -> bytes: ...


class Speaks:
    """The version to write: the lowest of all machines that are there, as they tell of themselves.

    One that cannot be read, and a broker that is away, change nothing.
    """

    def __init__(self, nodes: Callable[[], Awaitable[Mapping[str, _Value]]], newest: int) -> None:
        """Look at what ``nodes`` gives; never speak newer than ``newest``."""
        self._nodes, self._newest = nodes, newest
        self.version = newest
        """As it was when it was last looked."""

    async def keep_looking(self) -> None:
        """Look every 2 s until cancelled: nobody who writes a message waits for that."""
        while self._newest > 1:
            await anyio.sleep(_LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        if self._newest == 1:
            return
        try:
            nodes = await self._nodes()
        except BusError as error:
            _log.debug("nobody can tell which versions are spoken: %s", error)
            return
        version = min([self._newest, *map(_version_of, nodes.values())])
        if version != self.version:
            _log.info("messages are written in version %d from here on", version)
        self.version = version


def _version_of(node: _Value) -> int:
    """Return the version that a machine reads; one that says nothing of it speaks as we do."""
    try:
        version = json.loads(node.body)["protocol"]
    except (ValueError, KeyError, TypeError):
        return VERSION
    return version if type(version) is int and version >= 1 else VERSION
