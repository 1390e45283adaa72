"""A hundred watchers of one job of a thousand items, each of whom sees every task end exactly once."""

import re
from collections import Counter
from pathlib import Path

import aiohttp
import anyio
import pytest
from tests.cli import interlock, running
from tests.teams import digest_team, summary, write_items, write_team

from interlock.testing import ScriptedServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

_WATCHERS = 100
_ITEMS = 1000
_EVENT = re.compile(rb"id: (\d+)\nevent: (\w+)\ndata: (.*)\n\n")
_CLOSED = re.compile(rb'"what":"closed","task":"([^"]+)"')


class Watcher:
    """Reads the events of a job, and hangs up once in the middle."""

    def __init__(self, url: str, hangs_up_after: int) -> None:
        self._url = url
        self._hangs_up_after = hangs_up_after
        self.last = 0
        self.connections = 0
        self.closed: Counter[bytes] = Counter()
        self.over = False

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Read until the job is over."""
        while not self.over:
            self.connections += 1
            headers = {"Last-Event-ID": str(self.last)} if self.last else {}
            async with session.get(self._url, headers=headers) as answer:
                assert answer.status == 200
                await self._read(answer)

    async def _read(self, answer: aiohttp.ClientResponse) -> None:
        rest = b""
        async for chunk in answer.content.iter_any():
            rest += chunk
            end = 0
            for event in _EVENT.finditer(rest):
                end = event.end()
                self._take(int(event[1]), event[2], event[3])
                if self.connections == 1 and sum(self.closed.values()) == self._hangs_up_after:
                    answer.close()
                    return
            rest = rest[end:]

    def _take(self, number: int, kind: bytes, data: bytes) -> None:
        assert number > self.last
        self.last = number
        if kind == b"task" and (found := _CLOSED.search(data)):
            self.closed[found[1]] += 1
        self.over = self.over or kind == b"closed"


async def test_a_hundred_watchers_see_each_task_end_once(tmp_path: Path) -> None:
    """Each sees every closed task exactly once, across a connection that broke in the middle and was made again."""
    write_items(tmp_path, _ITEMS)
    path = write_team(tmp_path, digest_team())
    expected = Counter({b"summarise:%d" % number: 1 for number in range(_ITEMS)} | {b"headline": 1})
    async with ScriptedServer(summary) as model:
        arguments = ("up", str(path), "--http", "127.0.0.1:0", "--http-open")
        async with running(*arguments, env={"INTERLOCK_MODEL_URL": model.url}, cwd=tmp_path) as up:
            await up.until("openapi.json")
            await up.until("node ")
            url = up.err.decode().partition("API is at ")[2].partition(",")[0]
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector) as session:
                async with session.post(f"{url}/v1/jobs", json={"team": "digest", "goal": "go", "id": "one"}) as made:
                    assert made.status == 201
                watchers = [Watcher(f"{url}/v1/jobs/one/events", 5 + number * 9) for number in range(_WATCHERS)]
                async with anyio.create_task_group() as group:
                    for watcher in watchers:
                        group.start_soon(watcher.run, session)
    for watcher in watchers:
        assert watcher.connections == 2
        assert watcher.closed == expected
    shown = await interlock("show", "one", "--json", cwd=tmp_path)
    assert shown.report["status"] == "succeeded"
