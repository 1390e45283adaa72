"""Code that an agent writes runs in a sandbox, and the trace says in which."""

from pathlib import Path

from tests.cli import running
from tests.otlp_receiver import OtlpReceiver
from tests.teams import write_team

from interlock.testing import Answer, Call, CallTool, Reply, ScriptedServer

_CODE = "import os\nprint(6 * 7, sorted(os.environ), os.path.exists('/etc/shadow'))"


def _script(call: Call) -> Reply:
    return Answer(call.observations[-1]) if call.observations else CallTool("python.run", {"code": _CODE})


async def test_the_tier_stands_in_the_trace(tmp_path: Path) -> None:
    """What ran gives its output, has nothing of the environment, and its span names the tier and the effect class."""
    team = write_team(
        tmp_path,
        {
            "interlock": 1,
            "team": "coders",
            "agents": {"coder": {"kind": "worker", "tools": ["python.run"]}, "checker": {"kind": "verifier"}},
            "permissions": {"allow": ["python.run"]},
            "plan": [
                {
                    "step": "compute",
                    "agent": "coder",
                    "do": "Compute.",
                    "verify": {"criteria": [{"check": "contains", "all": ["42"]}]},
                }
            ],
        },
    )
    async with OtlpReceiver() as collector, ScriptedServer(_script) as server:
        env = {
            "INTERLOCK_MODEL_URL": server.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "A_CANARY": "in the environment",
        }
        async with running("run", str(team), "go", "--json", env=env, cwd=tmp_path) as command:
            done = await command.finish()
        spans = [span for span in collector.spans if span.name == "execute_tool python.run"]
    assert done.status == 0, done.err
    assert "A_CANARY" not in done.report["result"]
    assert "False" in done.report["result"], "there is no /etc/shadow in there"
    [span] = spans
    assert span.attributes["interlock.sandbox.tier"] in {"bubblewrap", "namespaces"}
    assert span.attributes["interlock.tool.effect"] == "read"
