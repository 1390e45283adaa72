"""Jobs over HTTP: submitted once, listed in pages, reported on, followed from anywhere."""

import re
from typing import Any

import httpx2
import pytest
from tests.integration.api.api_server import Api, Hand, open_api
from tests.waiting import eventually

from interlock.protocol.messages import JobSubmitted
from interlock.protocol.subjects import submitted_subject
from interlock.protocol.team import Budget
from interlock.runtime.api.settings import ApiSettings
from interlock.runtime.bus import Bus

_JOB = {"team": "digest", "goal": "go", "inputs": {"numbers": [1, 2]}}


def problem(answer: httpx2.Response) -> tuple[int, str]:
    """Return the status and the name of the problem that a request ended with."""
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    return answer.status_code, body["type"].removeprefix("urn:interlock:problem:")


async def events_of(api: Api, path: str, last: str | None = None) -> list[tuple[int, str]]:
    """Return the ids and kinds of the events of a stream that ends."""
    headers = {} if last is None else {"Last-Event-ID": last}
    answer = await api.get(path, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    found = re.findall(r"^id: (\d+)\nevent: (\w+)\ndata: .*\n\n", answer.text, re.MULTILINE)
    return [(int(number), kind) for number, kind in found]


async def test_a_job_is_submitted_once(bus: Bus) -> None:
    """The first request gets 201 and where the job is, the same again 200, another one with that id 409."""
    async with open_api(bus) as api:
        first = await api.post("/v1/jobs", json={**_JOB, "id": "one", "budget": {"tokens": 900}})
        again = await api.post("/v1/jobs", json={**_JOB, "id": "one"})
        other = await api.post("/v1/jobs", json={**_JOB, "id": "one", "inputs": {"numbers": [1, 3]}})
    assert (first.status_code, first.json(), first.headers["location"]) == (
        201,
        {"job_id": "one", "team": "digest"},
        "/v1/jobs/one",
    )
    assert (again.status_code, again.json()) == (200, first.json())
    assert problem(other) == (409, "job-differs")
    entries = await bus.entries(submitted_subject(bus.ns, "one"))
    assert len(entries) == 1
    assert isinstance(entries[0].message, JobSubmitted)
    assert entries[0].message.budget == Budget(tokens=900)
    assert entries[0].message.inputs == {"numbers": [1, 2], "papers": None}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"inputs": {}}, (422, "inputs-unusable")),
        ({"inputs": {"numbers": "many"}}, (422, "inputs-unusable")),
        ({"inputs": {"numbers": [1], "colour": "red"}}, (422, "inputs-unusable")),
        ({"inputs": {"numbers": [1], "papers": ["/etc/passwd"]}}, (422, "inputs-unusable")),
        ({"inputs": {"numbers": [1], "papers": "/etc/*"}}, (422, "inputs-unusable")),
        ({"team": "nobody"}, (404, "team-unknown")),
        ({"id": "a:b"}, (422, "request-invalid")),
        ({"id": "a b"}, (422, "request-invalid")),
        ({"priority": "most"}, (422, "request-invalid")),
        ({"budget": {"calls": 0}}, (422, "request-invalid")),
        ({"colour": "red"}, (422, "request-invalid")),
    ],
)
async def test_what_is_wrong_with_a_job_is_told(bus: Bus, change: dict[str, Any], found: tuple[int, str]) -> None:
    """Inputs are held to what the team declares, and no path of a request is ever read."""
    async with open_api(bus) as api:
        answer = await api.post("/v1/jobs", json={**_JOB, **change})
        assert problem(answer) == found
        assert "root:" not in answer.text
        assert await bus.jobs() == []


async def test_files_are_given_by_value(bus: Bus) -> None:
    """An input of type files takes what the files hold."""
    papers = [{"path": "a.txt", "name": "a.txt", "text": "hello"}]
    async with open_api(bus) as api:
        answer = await api.post("/v1/jobs", json={**_JOB, "inputs": {"numbers": [1], "papers": papers}, "id": "one"})
    assert answer.status_code == 201
    entry = await bus.last(submitted_subject(bus.ns, "one"))
    assert entry is not None
    assert isinstance(entry.message, JobSubmitted)
    assert entry.message.inputs["papers"] == papers


async def test_a_killed_team_takes_no_job(bus: Bus) -> None:
    """A standing order forbids jobs, over HTTP too, until it is lifted over HTTP."""
    scope = {"scope": {"of": "team", "team": "digest"}}
    async with open_api(bus) as api:
        assert (await api.post("/v1/kill", json={**scope, "reason": "enough"})).json()["stop"] is True
        forbidden = await api.post("/v1/jobs", json=_JOB)
        assert problem(forbidden) == (409, "job-forbidden")
        assert "enough" in forbidden.json()["detail"]
        assert (await api.post("/v1/resume", json=scope)).json()["stop"] is False
        assert (await api.post("/v1/jobs", json=_JOB)).status_code == 201


async def test_jobs_are_listed_in_pages(bus: Bus) -> None:
    """Every job is on one page, newest first, with how it stands."""
    async with open_api(bus) as api:
        for number in range(7):
            await api.post("/v1/jobs", json={**_JOB, "id": f"job{number}"})
        await eventually(lambda: len(list(api.context.jobs.newest())) == 7)
        found: list[str] = []
        after, page = "", {}
        for _ in range(3):
            page = (await api.get(f"/v1/jobs?limit=3{after}")).json()
            found += [one["job_id"] for one in page["jobs"]]
            after = f"&before={page['next']}"
        assert page["next"] is None
        assert found == [f"job{number}" for number in reversed(range(7))]
        assert (await api.get("/v1/jobs?team=other")).json() == {"jobs": [], "next": None}
        assert (await api.get("/v1/jobs?status=killed")).json()["jobs"] == []


async def test_a_report_is_read_on(bus: Bus) -> None:
    """A report says how the job stands each time it is asked for."""
    hand = Hand(bus, "one")
    async with open_api(bus) as api:
        await hand.begin(2)
        first = (await api.get("/v1/jobs/one")).json()
        assert (first["status"], [task["status"] for task in first["tasks"]]) == ("running", ["waiting", "waiting"])
        assigned = await hand.assign(0)
        assert [task["status"] for task in (await api.get("/v1/jobs/one")).json()["tasks"]] == ["open", "waiting"]
        await hand.drop(0, assigned)
        await hand.close()
        last = (await api.get("/v1/jobs/one")).json()
        assert (last["status"], [task["status"] for task in last["tasks"]]) == ("failed", ["failed", "cancelled"])


async def test_events_go_on_where_they_were_left(bus: Bus) -> None:
    """Whoever names the last event that he saw gets what comes after it, and each event once; then nothing more."""
    hand = Hand(bus, "one")
    await hand.begin(2)
    for index in range(2):
        await hand.drop(index, await hand.assign(index))
    closed = await hand.close()
    async with open_api(bus) as api:
        whole = await events_of(api, "/v1/jobs/one/events")
        assert [kind for _, kind in whole] == ["job", "plan", "plan", "task", "task", "task", "task", "closed"]
        for place in range(len(whole) - 1):
            seen = whole[place][0]
            assert await events_of(api, f"/v1/jobs/one/events?after={seen}") == whole[place + 1 :]
            assert await events_of(api, "/v1/jobs/one/events?after=0", last=str(seen)) == whole[place + 1 :]
        over = await api.get(f"/v1/jobs/one/events?after={closed}")
        assert (over.status_code, over.content) == (204, b"")


async def test_events_come_as_they_happen(bus: Bus) -> None:
    """A stream is open before anything happens, says that it is there, ends with the job, and costs nothing then."""
    hand = Hand(bus, "one")
    await hand.begin()
    async with open_api(bus, settings=ApiSettings(heartbeat=0.2)) as api:
        async with api.stream("GET", "/v1/jobs/one/events") as answer:
            lines = answer.aiter_lines()
            async for line in lines:
                if line.startswith(": "):
                    break
            assert api.context.hub.follows == 1
            assigned = await hand.assign(0)
            while f"id: {assigned}" != await anext(lines):
                pass
            closed = await hand.close()
            rest = [line async for line in lines]
            assert f"id: {closed}" in rest
        await eventually(lambda: api.context.hub.follows == 0)


async def test_who_hangs_up_costs_nothing(bus: Bus) -> None:
    """A follow of the log ends with its last watcher, who need not say goodbye."""
    await Hand(bus, "one").begin()
    async with open_api(bus) as api:
        async with api.stream("GET", "/v1/jobs/one/events") as answer:
            lines = answer.aiter_lines()  # which hangs up when it is forgotten
            await anext(lines)
            await eventually(lambda: api.context.hub.follows == 1)
        await eventually(lambda: api.context.hub.follows == 0)


async def test_what_is_there_is_told(bus: Bus) -> None:
    """Teams say what they take; without a manager the server lives but is not ready."""
    async with open_api(bus, teams=["digest", "other"]) as api:
        [first, second] = (await api.get("/v1/teams")).json()["teams"]
        assert (first["team"], second["team"], first["up"], first["plans"]) == ("digest", "other", False, False)
        assert first["inputs"]["numbers"] == {"type": "array", "description": "", "required": True}
        assert (await api.get("/healthz")).json() == {"status": "ok"}
        ready = await api.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"ready": False, "broker": True, "manager": False})


async def test_questions_are_answered_once(bus: Bus) -> None:
    """A question is listed, takes an answer that it offers, and is over then."""
    hand = Hand(bus, "one")
    await hand.begin()
    question = await hand.ask(0, await hand.assign(0), "yes", "no")
    path = f"/v1/jobs/one/questions/{question}/answer"
    async with open_api(bus) as api:
        [asked] = (await api.get("/v1/jobs/one/questions")).json()["questions"]
        assert (asked["id"], asked["status"], asked["options"]) == (question, "open", ["yes", "no"])
        assert problem(await api.post(path, json={"answer": "perhaps"})) == (422, "answer-unusable")
        unknown = "/v1/jobs/one/questions/q-9/answer"
        assert problem(await api.post(unknown, json={"answer": "yes"})) == (404, "question-unknown")
        given = await api.post(path, json={"answer": "YES", "note": "go"})
        assert (given.status_code, given.json()["answer"], given.json()["note"]) == (200, "yes", "go")
        assert problem(await api.post(path, json={"answer": "no"})) == (409, "question-over")
        [told] = (await api.get("/v1/jobs/one/questions")).json()["questions"]
        assert (told["status"], told["answer"]) == ("answered", "yes")
