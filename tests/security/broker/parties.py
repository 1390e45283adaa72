"""A broker with the keys of one team, and connections of its parties, raw and over the bus."""

import json
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import nats
import pytest
from nats.aio.client import Client

from interlock.runtime._keys import public_key
from interlock.runtime.address import AGENT_API, BrokerAddress, inbox_of
from interlock.runtime.bus import Bus
from interlock.runtime.credentials import Party
from interlock.runtime.keyring import login_of

NS = "main"
READER, WRITER, CHECKER = "reader@digest", "writer@digest", "checker@digest"
WORKER, OTHER, VERIFIER = Party("worker", READER), Party("worker", WRITER), Party("verifier", CHECKER)
MANAGER, OPERATOR = Party("manager"), Party("operator")
PARTIES = (WORKER, OTHER, VERIFIER, MANAGER)

SECONDS = 1.0
"""A generous bound on how long a refusal takes to be told; the figure is printed."""

_DENIED = re.compile(r'permissions violation for (?:publish|subscription)[a-z ]* "')


class Raw:
    """A connection of plain nats-py with a party's key: what whoever has broken into an agent could do."""

    def __init__(self, client: Client, inbox: str, refusals: list[str]) -> None:
        self.client = client
        self.inbox = inbox
        self.refusals = refusals

    @classmethod
    @asynccontextmanager
    async def of(cls, operator: BrokerAddress, party: Party) -> "AsyncIterator[Raw]":
        """Connect as ``party``."""
        login = login_of(operator, party, 0)
        assert login.seed is not None
        inbox, refusals = inbox_of(public_key(login.seed)), list[str]()

        async def told(error: Exception) -> None:
            refusals.append(str(error))

        client = await nats.connect(
            login.url, nkeys_seed_str=login.seed, inbox_prefix=inbox.encode(), error_cb=told, allow_reconnect=False
        )
        async with client:
            yield cls(client, inbox, refusals)

    async def refused_publish(self, subject: str, body: bytes = b"{}", reply: str = "") -> float:
        """Publish and return the seconds until the broker said that this is forbidden."""
        before, began = len(self.refusals), time.monotonic()
        await self.client.publish(subject, body, reply)
        return await self._refused(before, began)

    async def refused_subscribe(self, subject: str) -> float:
        """Subscribe and return the seconds until the broker said that this is forbidden."""
        before, began = len(self.refusals), time.monotonic()
        await self.client.subscribe(subject)
        return await self._refused(before, began)

    async def api(self, call: str, arguments: Any = None) -> dict[str, Any]:
        """Ask JetStream's API, as far as that is let through."""
        body = json.dumps(arguments).encode() if arguments is not None else b""
        answer: dict[str, Any] = json.loads((await self.client.request(f"{AGENT_API}.{call}", body, timeout=5)).data)
        return answer

    async def _refused(self, before: int, began: float) -> float:
        await self.client.flush()
        with anyio.fail_after(SECONDS):
            while len(self.refusals) == before:  # noqa: ASYNC110 -- nats-py tells it to a callback
                await anyio.sleep(0.001)
        took = time.monotonic() - began
        assert _DENIED.search(self.refusals[-1]), self.refusals
        return took


@asynccontextmanager
async def bus_of(operator: BrokerAddress, party: Party) -> AsyncIterator[Bus]:
    """Connect a bus as ``party`` does."""
    login = operator if party.kind == "operator" else login_of(operator, party, 0)
    async with Bus.connect(login, NS, party.name) as bus:
        yield bus


def log_of(operator: BrokerAddress) -> str:
    """Return what the server itself has logged."""
    assert operator.keys is not None
    return (Path(operator.keys).parent / "nats-server.log").read_text()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged as an error."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
