"""What the OpenAI API's paths refuse, how they say so, and when a client counts as gone. Nobody works here."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import anyio
import pytest
from tests.integration.api.chat_teams import KEYS
from tests.teams import digest_team
from tests.waiting import eventually

from interlock.observability.tracing import Tracing
from interlock.protocol.control import JobScope, TeamScope
from interlock.protocol.team import Team
from interlock.runtime.api.app import make_app
from interlock.runtime.api.chat_answers import Held
from interlock.runtime.api.context import open_context
from interlock.runtime.api.keys import Keys
from interlock.runtime.api.server import serving
from interlock.runtime.api.settings import ApiSettings
from interlock.runtime.bus import Bus
from interlock.runtime.closing import close_killed
from interlock.runtime.killswitch import command
from interlock.runtime.presence import Presence

_GO = {"model": "digest", "messages": [{"role": "user", "content": "go"}]}
_ALL = {"Authorization": "Bearer all"}


def _team() -> Team:
    team = digest_team()
    team["plan"][0]["for_each"] = "{{ inputs.items }}"
    team["inputs"] = {"items": {"type": "array", "default": []}}
    return Team.model_validate(team)


@dataclass
class Api:
    """A server, and a client without a key."""

    session: aiohttp.ClientSession
    url: str
    held: Held

    @property
    def waiting(self) -> int:
        """How many clients wait for the job ``mine``."""
        return self.held.by_many("mine")


@asynccontextmanager
async def api(bus: Bus, **settings: Any) -> AsyncIterator[Api]:
    """Serve a team that nobody works for."""
    await Presence(bus).publish_team(_team())
    async with open_context(bus, Tracing(), Keys(KEYS.values()), ApiSettings(**settings)) as context:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            app = make_app(context)
            async with serving(app, listener):
                url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/"
                async with aiohttp.ClientSession(url) as session:
                    yield Api(session, url, app.state.held)


async def refused(served: Api, body: Any = _GO, path: str = "chat/completions", **more: Any) -> Any:
    """Send a request; return the status and the error."""
    headers = more.pop("headers", _ALL)
    how: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
    async with served.session.request(more.pop("method", "POST"), path, headers=headers, **how) as response:
        assert response.content_type == "application/json"
        found = await response.json()
        assert set(found) == {"error"}
        assert set(found["error"]) == {"message", "type", "param", "code"}
        assert found["error"]["message"]
        assert response.headers["x-should-retry"] == ("true" if response.status == 429 else "false")
        return response.status, found["error"]["code"], found["error"]["param"]


async def orders(bus: Bus) -> list[str]:
    """Return the jobs that are killed."""
    standing = (await bus.orders.standing()).values()
    return [one.order.scope.job for one in standing if isinstance(one.order.scope, JobScope)]


@pytest.mark.parametrize(
    ("more", "status", "code", "param"),
    [
        ({"model": "nobody"}, 404, "model_not_found", "model"),
        ({"model": None}, 400, "invalid_request", "model"),
        ({"messages": []}, 400, "invalid_request", "messages"),
        ({"messages": None}, 400, "invalid_request", "messages"),
        ({"messages": [{"role": "king", "content": "go"}]}, 400, "invalid_request", "messages.0.role"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "invalid_request", "messages[0].content"),
        ({"n": 3}, 400, "invalid_request", "n"),
        ({"tools": [{"type": "function"}]}, 400, "invalid_request", "tools"),
        ({"response_format": {"type": "json_schema"}}, 400, "invalid_request", "response_format.json_schema.schema"),
        ({"interlock": {"invented": 1}}, 400, "invalid_request", "interlock.invented"),
        ({"interlock": {"inputs": {"other": 1}}}, 400, "invalid_inputs", None),
        ({"interlock": {"inputs": {"items": 3}}}, 400, "invalid_inputs", None),
    ],
)
async def test_a_wrong_request_is_refused_by_name(
    bus: Bus, more: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    """In the API's own words: what is wrong, and in which field; nothing is begun."""
    async with api(bus) as served:
        assert await refused(served, {**_GO, **more}) == (status, code, param)
        assert await refused(served, {**_GO, **more, "stream": True}) == (status, code, param)
    assert await bus.jobs() == []


async def test_what_no_path_sees_is_refused_in_the_same_words(bus: Bus) -> None:
    """Keys, bodies and rates are guarded before the paths; other paths say problems as ever."""
    async with api(bus, body_bytes=2000, burst=20, per_second=0.01) as served:
        assert await refused(served, headers={}) == (401, "invalid_api_key", None)
        assert await refused(served, headers={"Authorization": "Bearer x"}) == (401, "invalid_api_key", None)
        reads = {"Authorization": "Bearer reads"}
        assert await refused(served, headers=reads) == (403, "insufficient_permissions", None)
        assert await refused(served, headers={"Authorization": "Bearer form"}) == (404, "model_not_found", "model")
        typed = {**_ALL, "Content-Type": "application/json"}
        assert await refused(served, b"{'a'}", headers=typed) == (400, "body_not_json", None)
        assert await refused(served, b"\xff", headers=typed) == (400, "body_not_json", None)
        assert await refused(served, b"[]", headers=typed) == (400, "invalid_request", "body")
        assert await refused(served, b"{}", headers=_ALL) == (415, "media_type_wrong", None)
        huge = {**_GO, "messages": [{"role": "user", "content": "x" * 3000}]}
        assert await refused(served, huge) == (413, "body_too_large", None)
        assert (await refused(served, path="models/nobody", method="GET"))[:2] == (404, "model_not_found")
        assert (await refused(served, method="PUT"))[0] == 405
        async with served.session.get("teams", headers={}) as response:
            assert (response.status, response.content_type) == (401, "application/problem+json")
        for _ in range(20):
            await refused(served, {**_GO, "n": 2})
        assert await refused(served, {**_GO, "n": 2}) == (429, "rate_limit_exceeded", None)


async def test_what_is_killed_takes_no_conversation(bus: Bus) -> None:
    """The order says why; a client does not try again by itself."""
    async with api(bus) as served:
        await command(bus, TeamScope(team="digest"), stop=True, reason="enough")
        assert await refused(served) == (409, "job_forbidden", None)


async def chat(url: str, *, stream: bool) -> None:
    """Send a request from a client of its own, and read the answer until somebody ends it."""
    body = {**_GO, "stream": stream, "interlock": {"id": "mine"}}
    with suppress(aiohttp.ClientError):
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}chat/completions", json=body, headers=_ALL) as response,
        ):
            await response.read()


@pytest.mark.parametrize("stream", [True, False])
async def test_the_last_client_that_hangs_up_stops_the_job(bus: Bus, stream: bool) -> None:
    """As long as somebody else waits for the same job it goes on; the order is for this job alone."""
    async with api(bus) as served:
        first, second = (asyncio.create_task(chat(served.url, stream=stream)) for _ in range(2))
        await eventually(lambda: served.waiting == 2, 10)
        first.cancel()
        await eventually(lambda: served.waiting == 1, 1)
        assert await orders(bus) == []
        second.cancel()
        await eventually(lambda: served.waiting == 0, 1)
        with anyio.fail_after(1):
            while await orders(bus) != ["mine"]:  # noqa: ASYNC110 -- it is in a stream
                await anyio.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_server_that_ends_stops_no_job(bus: Bus, stream: bool) -> None:
    """The connection breaks for the client, and the job goes on in the log."""
    async with api(bus) as served:
        asking = asyncio.create_task(chat(served.url, stream=stream))
        await eventually(lambda: served.waiting == 1, 10)
    await eventually(lambda: served.waiting == 0, 10)
    with anyio.fail_after(10):
        await asking
    await anyio.sleep(0.3)  # time for an order that must not come
    assert await orders(bus) == []


async def test_a_job_that_is_over_needs_no_order(bus: Bus) -> None:
    """Also where the client goes before it was told."""
    async with api(bus) as served:
        asking = asyncio.create_task(chat(served.url, stream=False))
        await eventually(lambda: served.waiting == 1, 10)
        await close_killed(bus, Tracing(), "mine", "it is over")
        asking.cancel()
        await eventually(lambda: served.waiting == 0, 10)
    await anyio.sleep(0.3)  # time for an order that must not come
    assert await orders(bus) == []


async def test_a_stream_without_news_says_that_it_is_there(bus: Bus) -> None:
    """By comments, which readers of events pass over."""
    async with (
        api(bus, heartbeat=0.1) as served,
        served.session.post("chat/completions", json={**_GO, "stream": True}, headers=_ALL) as response,
    ):
        lines = [await response.content.readline() for _ in range(8)]
    assert lines.count(b": keep-alive\n") >= 2
    assert json.loads(lines[0].removeprefix(b"data: "))["choices"][0]["delta"] == {"role": "assistant", "content": ""}
