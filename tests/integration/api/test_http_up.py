"""``interlock up --http`` as people use it: a key, curl, and a server that may die without a word."""

import json
import signal
from pathlib import Path

import anyio
import httpx2
import pytest
from tests.cli import agent_pids, alive, environment, interlock, kill, running
from tests.teams import digest_team, summary, write_items, write_team
from tests.waiting import eventually

from interlock.testing import ScriptedServer

pytestmark = pytest.mark.timeout(300)


async def curl(*arguments: str, cwd: Path) -> str:
    """Return what curl prints."""
    done = await anyio.run_process(["curl", "-sS", "-N", "--max-time", "60", *arguments], cwd=cwd, env=environment())
    return done.stdout.decode()


async def test_a_job_by_curl(tmp_path: Path) -> None:
    """With a key a job is submitted, followed and reported on; taken back, the key opens nothing more.

    The server is a process of its own: where it dies it is started again, and the agents do not notice.
    """
    write_items(tmp_path, 5)
    path = write_team(tmp_path, digest_team())
    made = await interlock("api-key", "me", "--scope", "submit", "--scope", "read", "--team", "digest", cwd=tmp_path)
    header = f"Authorization: Bearer {made.out.strip()}"
    async with ScriptedServer(summary) as model:
        arguments = ("up", str(path), "--http", "127.0.0.1:0")
        async with running(*arguments, env={"INTERLOCK_MODEL_URL": model.url}, cwd=tmp_path) as up:
            await up.until("openapi.json")
            await up.until("node ")
            url = up.err.decode().partition("API is at ")[2].partition(",")[0]
            assert made.out.strip() not in up.err.decode()
            body = json.dumps({"team": "digest", "goal": "go", "id": "one"})
            sent = ("-H", header, "-H", "Content-Type: application/json", "-d", body)
            assert json.loads(await curl(*sent, f"{url}/v1/jobs", cwd=tmp_path)) == {"job_id": "one", "team": "digest"}
            events = await curl("-H", header, f"{url}/v1/jobs/one/events", cwd=tmp_path)
            assert events.count('"what":"closed"') == 6
            assert "event: closed\n" in events
            report = json.loads(await curl("-H", header, f"{url}/v1/jobs/one", cwd=tmp_path))
            shown = await interlock("show", "one", "--json", cwd=tmp_path)
            assert report == shown.report

            [server], [manager] = agent_pids(up.process.pid, "api"), agent_pids(up.process.pid, "manager")
            kill(server)
            await eventually(lambda: not alive(server))
            again = await curl(
                "--retry", "20", "--retry-all-errors", "--retry-delay", "1", f"{url}/readyz", cwd=tmp_path
            )
            assert json.loads(again)["ready"] is True
            assert agent_pids(up.process.pid, "manager") == [manager]

            revoked = await interlock("api-key", "me", "--revoke", cwd=tmp_path)
            assert revoked.status == 0
            async with httpx2.AsyncClient() as client:
                answer = await client.get(f"{url}/v1/jobs/one", headers={"Authorization": header.partition(" ")[2]})
            assert answer.status_code == 401
            up.process.send_signal(signal.SIGTERM)
            assert (await up.finish()).status == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--http", "127.0.0.1:0"], "there are no keys at"),
        (["--http", "0.0.0.0:0", "--http-open"], "--http-open is for this machine alone"),
        (["--http", "nowhere"], "is no address"),
        (["--http-open"], "--http-open needs --http"),
        (["--http", "192.0.2.1:80", "--http-keys", "keys.json"], "cannot be listened on"),
        (["--http", "127.0.0.1:0", "--http-keys", "broken.json"], "is no file of keys"),
    ],
)
async def test_what_cannot_be_served_is_told(tmp_path: Path, arguments: list[str], told: str) -> None:
    """A mistake is told in a line with exit status 2, before anything is started."""
    (tmp_path / "keys.json").write_text('{"keys": []}')
    (tmp_path / "broken.json").write_text("{")
    done = await interlock("up", *arguments, cwd=tmp_path)
    assert done.status == 2
    assert told in done.err
    assert not (tmp_path / ".interlock").exists()


async def test_keys_are_made_listed_and_taken_back(tmp_path: Path) -> None:
    """A name is one key; what is listed says what it is for and never the key."""
    made = await interlock("api-key", "me", "--team", "digest", "--scope", "read", cwd=tmp_path)
    assert (made.status, len(made.out.split())) == (0, 1)
    again = await interlock("api-key", "me", cwd=tmp_path)
    assert (again.status, "has a key me already" in again.err) == (2, True)
    listed = await interlock("api-key", cwd=tmp_path)
    assert listed.out == "key me: read for team digest\n"
    unknown = await interlock("api-key", "you", "--revoke", cwd=tmp_path)
    assert (unknown.status, "has no key you; there are me" in unknown.err) == (2, True)
    assert (await interlock("api-key", "me", "--revoke", cwd=tmp_path)).status == 0
    assert (await interlock("api-key", cwd=tmp_path)).out == ""
