"""What one client can ask of the HTTP API, and that a kill waits behind none of it."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from anyio.abc import ByteStream
from tests.integration.api.api_server import Api, Hand, key_record, open_api
from tests.waiting import eventually

from interlock.runtime.api.settings import ApiSettings
from interlock.runtime.bus import Bus

_JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def dripping(api: Api) -> AsyncIterator[ByteStream]:
    """Send a request whose body does not come to its end while the block runs."""
    async with await anyio.connect_tcp("127.0.0.1", int(api.url.rpartition(":")[2])) as stream:
        head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        await stream.send(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        yield stream


async def test_a_body_is_bounded(bus: Bus) -> None:
    """A body that is too large is refused by what it says of itself, and by what it is; so is one that is too slow."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    async with open_api(bus, settings=ApiSettings(body_bytes=1000, body_seconds=0.3)) as api:
        said = await api.post("/v1/jobs", content=b" " * 1001, headers=_JSON)
        streamed = await api.post("/v1/jobs", content=parts(), headers=_JSON)
        async with dripping(api) as stream:
            slow = await stream.receive()
        fits = await api.post("/v1/jobs", content=b" " * 900 + b"{}", headers=_JSON)
    assert slow.startswith(b"HTTP/1.1 408 ")
    assert [one.status_code for one in (said, streamed, fits)] == [413, 413, 422]


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"a":' * 5000, b"{", b"\xff", b'{"goal": "\\ud800"}', b'{"team": NaN}', "{}".encode("utf-16")],
)
async def test_what_is_no_sound_json_is_refused(bus: Bus, body: bytes) -> None:
    """Broken, bottomless and unsound JSON gets 400 before anything looks at it."""
    async with open_api(bus) as api:
        answer = await api.post("/v1/jobs", content=body, headers=_JSON)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:interlock:problem:body-not-json")


async def test_values_have_a_depth(bus: Bus) -> None:
    """A value that no message could carry is told to be nested too deeply."""
    deep = "[" * 70 + "]" * 70
    async with open_api(bus) as api:
        body = f'{{"team": "digest", "inputs": {{"numbers": {deep}}}}}'
        answer = await api.post("/v1/jobs", content=body.encode(), headers=_JSON)
    assert answer.status_code == 422
    assert "deeper than 64" in answer.json()["detail"]


async def test_a_key_has_a_rate(bus: Bus) -> None:
    """Who asks too often is told when to ask again; others are not, nor are kills."""
    keys = [key_record("busy", "read", "kill"), key_record("calm", "read")]
    await Hand(bus, "one").begin()
    async with open_api(bus, keys=keys, settings=ApiSettings(per_second=0.1, burst=3)) as api:
        busy, calm = ({"Authorization": f"Bearer {name}"} for name in ("busy", "calm"))
        found = [(await api.get("/v1/teams", headers=busy)).status_code for _ in range(5)]
        assert found == [200, 200, 200, 429, 429]
        refused = await api.get("/v1/teams", headers=busy)
        assert 1 <= int(refused.headers["retry-after"]) <= 11
        assert (await api.get("/v1/teams", headers=calm)).status_code == 200
        assert (await api.post("/v1/jobs/one/kill", headers=busy)).status_code == 200
        guesses = [(await api.get("/v1/teams", headers={"Authorization": f"Bearer {n}"})) for n in range(5)]
        assert [one.status_code for one in guesses] == [401, 401, 401, 429, 429]


async def test_a_kill_waits_behind_nothing(bus: Bus) -> None:
    """While as many slow requests are under way as may be, others are sent away and a kill is obeyed at once."""
    await Hand(bus, "one").begin()
    async with open_api(bus, settings=ApiSettings(at_once=5)) as api, AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(dripping(api))

        async def status() -> int:
            return (await api.get("/v1/teams")).status_code

        with anyio.fail_after(20):
            while await status() != 503:  # noqa: ASYNC110 -- the others are on their way
                await anyio.sleep(0.01)
        assert (await api.get("/healthz")).status_code == 200
        began = time.monotonic()
        killed = await api.post("/v1/jobs/one/kill", json={"reason": "enough"})
        assert (killed.status_code, killed.json()["reason"]) == (200, "enough")
        assert time.monotonic() - began < 1


async def test_streams_have_bounds_of_their_own(bus: Bus) -> None:
    """Streams take no room from requests, and are no more than may be."""
    await Hand(bus, "one").begin()
    async with open_api(bus, settings=ApiSettings(streams=2, at_once=1)) as api:
        async with api.stream("GET", "/v1/jobs/one/events"), api.stream("GET", "/v1/jobs/one/events"):
            assert (await api.get("/v1/jobs/one/events")).status_code == 503
            assert (await api.get("/v1/teams")).status_code == 200
        await eventually(lambda: api.context.hub.follows == 0)
        async with api.stream("GET", "/v1/jobs/one/events") as again:
            assert again.status_code == 200


async def test_errors_of_every_kind_are_problems(bus: Bus) -> None:
    """Paths and methods that are not there are told as everything else is."""
    async with open_api(bus) as api:
        nothing, method = await api.get("/nothing"), await api.delete("/v1/jobs")
        broken = await api.get("/v1/jobs?limit=many")
    found = [(one.status_code, json.loads(one.text)["type"].rpartition(":")[2]) for one in (nothing, method, broken)]
    assert found == [(404, "path-unknown"), (405, "method-wrong"), (422, "request-invalid")]
    assert method.headers["allow"]
    assert {one.headers["content-type"] for one in (nothing, method, broken)} == {"application/problem+json"}
