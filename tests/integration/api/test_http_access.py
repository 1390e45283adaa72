"""Who may do what over HTTP: keys, scopes and teams, with nothing said of what is not theirs."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from tests.integration.api.api_server import Api, Hand, key_record, open_api
from tests.waiting import eventually

from interlock.protocol.control import JobScope
from interlock.protocol.lineage import child_job
from interlock.runtime.api.keyfile import write_keys
from interlock.runtime.api.keys import KeyFile
from interlock.runtime.bus import Bus

_ALL = ("submit", "read", "answer", "kill")
_KEYS = [
    key_record("boss", "submit", "read", "answer", "kill"),
    key_record("ours", "submit", "read", "answer", "kill", teams=["digest"]),
    key_record("reader", "read"),
    key_record("submitter", "submit"),
    key_record("answerer", "answer"),
    key_record("killer", "kill"),
]
_REQUESTS: list[tuple[str, str, str, Any]] = [
    ("submit", "POST", "/v1/jobs", {"team": "secret", "inputs": {"numbers": []}}),
    ("read", "GET", "/v1/jobs/{job}", None),
    ("read", "GET", "/v1/jobs/{job}/events", None),
    ("read", "GET", "/v1/jobs/{job}/questions", None),
    ("answer", "POST", "/v1/jobs/{job}/questions/q-0/answer", {"answer": "yes"}),
    ("kill", "POST", "/v1/jobs/{job}/kill", {"reason": "none"}),
    ("kill", "POST", "/v1/jobs/{job}/resume", None),
    ("kill", "POST", "/v1/kill", {"scope": {"of": "job", "job": "{job}"}}),
    ("kill", "POST", "/v1/kill", {"scope": {"of": "team", "team": "secret"}}),
    ("kill", "POST", "/v1/resume", {"scope": {"of": "agent", "team": "secret", "agent": "reader"}}),
]


@asynccontextmanager
async def guarded(bus: Bus) -> AsyncIterator[Api]:
    """Serve an API with keys, and with a job of another team than ``ours``."""
    hand = Hand(bus, "hidden", of="secret")
    await hand.begin()
    await hand.ask(0, await hand.assign(0), "yes", "no")
    async with open_api(bus, keys=_KEYS, teams=["digest", "secret"]) as served:
        yield served


async def ask(api: Api, key: str | None, method: str, path: str, body: Any, job: str = "hidden") -> httpx2.Response:
    """Send a request about a job."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    sent = None if body is None else json.loads(json.dumps(body).replace("{job}", job))
    return await api.request(method, path.replace("{job}", job), json=sent, headers=headers)


@pytest.mark.parametrize(("scope", "method", "path", "body"), _REQUESTS)
async def test_without_a_known_key_nothing_is_said(bus: Bus, scope: str, method: str, path: str, body: Any) -> None:
    """No key, a wrong one and a malformed one all get the same 401, whatever is asked for."""
    async with guarded(bus) as api:
        answers = [await ask(api, key, method, path, body) for key in (None, "wrong", "x y")]
        answers.append(await ask(api, None, method, "/v1/none", body))
        assert {answer.status_code for answer in answers} == {401}
        assert len({answer.text for answer in answers}) == 1
        assert {answer.headers["www-authenticate"] for answer in answers} == {'Bearer realm="interlock"'}
        assert scope in _ALL


@pytest.mark.parametrize(("scope", "method", "path", "body"), _REQUESTS)
async def test_a_key_is_for_its_scope_only(bus: Bus, scope: str, method: str, path: str, body: Any) -> None:
    """A key without the scope gets 403, of a job that is there and of one that is not."""
    async with guarded(bus) as api:
        for name in ("reader", "submitter", "answerer", "killer"):
            if name.startswith(scope):
                continue
            found = {(await ask(api, name, method, path, body, job)).text for job in ("hidden", "nowhere")}
            assert len(found) == 1
            assert json.loads(found.pop())["type"] == "urn:interlock:problem:key-lacks-scope"


@pytest.mark.parametrize(("scope", "method", "path", "body"), _REQUESTS)
async def test_a_foreign_job_is_as_if_it_were_not_there(
    bus: Bus, scope: str, method: str, path: str, body: Any
) -> None:
    """What a key is not for is answered word for word as what is not there, and nothing happens to it."""
    async with guarded(bus) as api:
        foreign = await ask(api, "ours", method, path, body)
        nowhere = await ask(
            api, "ours", method, path, json.loads(json.dumps(body).replace("secret", "nobody")), "nowhere"
        )
        assert (foreign.status_code, foreign.text) == (404, nowhere.text)
        assert dict(foreign.headers, date="") == dict(nowhere.headers, date="")
        assert await api.context.bus.orders.standing() == {}
        assert scope in _ALL


async def test_lists_have_only_what_the_key_is_for(bus: Bus) -> None:
    """Jobs and teams of others are not in any list; what is for all is refused."""
    async with guarded(bus) as api:
        assert (await ask(api, "ours", "GET", "/v1/jobs", None)).json()["jobs"] == []
        assert [one["team"] for one in (await ask(api, "ours", "GET", "/v1/teams", None)).json()["teams"]] == ["digest"]
        refused = await ask(api, "ours", "POST", "/v1/kill", {"scope": {"of": "all"}})
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:interlock:problem:key-lacks-teams")
        allowed = await ask(api, "boss", "POST", "/v1/kill", {"scope": {"of": "all"}, "reason": "enough"})
        assert (allowed.status_code, allowed.json()["scope"]) == (200, {"of": "all"})


async def test_a_part_of_a_job_goes_with_the_whole(bus: Bus) -> None:
    """The job of a team within a team is for who may see the outermost one, whatever its own team is called."""
    async with guarded(bus) as api:
        await Hand(bus, "top", of="digest").begin()
        ours, theirs = child_job("top", "say:0", 1), child_job("hidden", "say:0", 1)
        await Hand(bus, ours, of="secret").begin()
        await Hand(bus, theirs, of="digest").begin()
        assert (await ask(api, "ours", "GET", f"/v1/jobs/{ours}", None)).json()["job_id"] == ours
        assert (await ask(api, "ours", "GET", f"/v1/jobs/{theirs}", None)).status_code == 404


@pytest.mark.parametrize("job", ["%2A", "a.b", "%3E", "a%20b", "a%0Ab", "x" * 200, "hidden.%3E", "%2e%2e"])
async def test_no_id_reaches_beyond_one_job(bus: Bus, job: str) -> None:
    """An id that would be a wildcard, or more than one word, is that of no job."""
    async with guarded(bus) as api:
        answer = await ask(api, "boss", "GET", f"/v1/jobs/{job}", None)
        assert answer.status_code == 404


async def test_a_file_of_keys_is_read_again(bus: Bus, tmp_path: Path) -> None:
    """A key counts from when it stands in the file, and no more once it does not; a broken file lets nobody in."""
    path = tmp_path / "keys.json"
    write_keys(path, [key_record("one", "read")])
    keys = KeyFile(path)
    assert keys.caller("one") is not None
    write_keys(path, [key_record("two", "read")])
    assert (keys.caller("one"), keys.caller("two") is not None) == (None, True)
    path.write_text("nonsense")
    assert keys.caller("two") is None
    write_keys(path, [key_record("two", "read")])
    assert keys.caller("two") is not None
    assert "two" not in path.read_text().replace('"name": "two"', "")
    assert bus.is_connected


async def _read_into(found: list[str], api: Api, key: str) -> None:
    """Read the events of a job until the stream ends."""
    headers = {"Authorization": f"Bearer {key}"}
    async with api.stream("GET", "/v1/jobs/hidden/events", headers=headers) as answer:
        async for line in answer.aiter_lines():
            found.append(line)  # noqa: PERF401 -- each as it comes
    found.append("ended")


async def test_a_stream_ends_once_its_key_is_taken_back(bus: Bus, tmp_path: Path) -> None:
    """It ends as streams end, nothing that comes after is told, and the streams of other keys go on."""
    path = tmp_path / "keys.json"
    kept, gone = key_record("kept", "read"), key_record("gone", "read")
    write_keys(path, [kept, gone])
    hand = Hand(bus, "hidden")
    await hand.begin()
    async with open_api(bus, keys=KeyFile(path)) as api, anyio.create_task_group() as group:
        his, hers = list[str](), list[str]()
        group.start_soon(_read_into, his, api, "gone")
        group.start_soon(_read_into, hers, api, "kept")
        await eventually(lambda: "event: plan" in his and "event: plan" in hers)
        write_keys(path, [kept])
        await eventually(lambda: "ended" in his)
        await hand.close()
        await eventually(lambda: "ended" in hers)
        assert ("event: closed" in his, "event: closed" in hers) == (False, True)
        assert (await ask(api, "gone", "GET", "/v1/jobs/hidden/events", None)).status_code == 401


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_chat_stops_once_its_key_is_taken_back(bus: Bus, tmp_path: Path, stream: bool) -> None:
    """Its job is ordered to stop; who waits for the whole answer is told that the key is not known."""
    path = tmp_path / "keys.json"
    write_keys(path, [key_record("gone", "submit", "read", "answer", "kill")])
    message = {"role": "user", "content": "Say it"}
    extra = {"inputs": {"numbers": [1]}, "id": "mine"}
    body = {"model": "digest", "messages": [message], "stream": stream, "interlock": extra}
    answers = list[httpx2.Response]()

    async def chat() -> None:
        answers.append(await ask(api, "gone", "POST", "/v1/chat/completions", body))

    async with open_api(bus, keys=KeyFile(path)) as api, anyio.create_task_group() as group:
        group.start_soon(chat)
        with anyio.fail_after(20):
            while await bus.jobs() != ["mine"]:  # noqa: ASYNC110 -- the server sets no event here
                await anyio.sleep(0.02)
        write_keys(path, [])
        await eventually(lambda: answers)
    orders = [order.order for order in (await bus.orders.standing()).values()]
    assert [(order.stop, order.scope) for order in orders] == [(True, JobScope(job="mine"))]
    assert answers[0].status_code == (200 if stream else 401)
    assert "[DONE]" not in answers[0].text


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "localhost.evil.example"},
    ],
)
async def test_a_server_without_keys_is_asked_only_from_here(bus: Bus, headers: dict[str, str]) -> None:
    """A page of another site, or a name that was made to lead here, gets nothing done on a server without keys."""
    async with open_api(bus) as api:
        job = {"team": "digest", "inputs": {"numbers": []}}
        answer = await api.post("/v1/jobs", json=job, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:interlock:problem:address-foreign")
        simple = await api.post("/v1/jobs", content=json.dumps(job), headers={"Content-Type": "text/plain"})
        assert (simple.status_code, simple.json()["type"]) == (415, "urn:interlock:problem:media-type-wrong")
        assert await bus.jobs() == []
