"""What a machine finds that tries everything the API says it takes, and everything it says it does not."""

import sys
from pathlib import Path

import anyio
import pytest
from tests.cli import environment, interlock, running
from tests.teams import write_team

from interlock.testing import Answer, ScriptedServer

pytestmark = pytest.mark.timeout(300)

_CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,ignored_auth"
)
_BOUNDS = ["--max-examples", "10", "--max-time", "15", "--seed", "7", "--request-timeout", "20", "--no-shrink"]


async def test_nothing_undocumented_is_answered(tmp_path: Path) -> None:
    """Of all requests that can be made from the description none gets a 5xx or an answer that it does not say."""
    team = {
        "interlock": 1,
        "team": "digest",
        "agents": {"reader": {"kind": "worker"}, "checker": {"kind": "verifier"}},
        "plan": [{"step": "say", "agent": "reader", "do": "Say: {{ goal }}", "output": {"said": "string"}}],
    }
    path = write_team(tmp_path, team)
    made = await interlock("api-key", "tester", "--team", "digest", cwd=tmp_path)
    assert made.status == 0, made.err
    async with ScriptedServer(lambda _: Answer({"said": "yes"})) as model:
        arguments = ("up", str(path), "--http", "127.0.0.1:0")
        async with running(*arguments, env={"INTERLOCK_MODEL_URL": model.url}, cwd=tmp_path) as up:
            await up.until("openapi.json")
            await up.until("node ")
            url = up.err.decode().partition("described by ")[2].split()[0]
            key = f"Authorization: Bearer {made.out.strip()}"
            command = [str(Path(sys.executable).parent / "st"), "run", url, "-H", key, "--checks", _CHECKS, *_BOUNDS]
            done = await anyio.run_process(command, check=False, cwd=tmp_path, env=environment())
            assert done.returncode == 0, done.stdout.decode()
            assert up.process.returncode is None
            assert "Traceback" not in up.err.decode(), up.err.decode()
