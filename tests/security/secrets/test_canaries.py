"""Secrets stay with the gateway: not a byte of one in prompts, messages, spans, logs, file names or URLs."""

import base64
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.cli import Finished, running
from tests.otlp_receiver import OtlpReceiver
from tests.teams import write_team

from interlock.testing import Answer, Call, CallTool, Reply, ScriptedServer

CANARY = "canary/9f27+b6e41c=d05?8a3 pass"
"""Has characters that every encoding writes in another way."""

_TOOLS = '''
import base64, logging, sys
from typing import Annotated
from interlock.agents.tools.errors import ToolFailed
from interlock.agents.tools.tool import Secret, tool

Token = Annotated[str, Secret("TOKEN")]


@tool(effect="read", name="leaky.echo")
def echo(token: Token) -> dict[str, object]:
    """Return the secret in every form."""
    logging.getLogger("leaky").warning("the token is %s", token)
    print("stdout says", token)
    print("stderr says", token, file=sys.stderr)
    return {
        "plain": token,
        "inside": f"Bearer {token}!",
        "list": [token, {"deep": token}],
        token: "as a key",
        "base64": base64.b64encode(token.encode()).decode(),
        "basic": base64.b64encode(f"user:{token}".encode()).decode(),
        "hex": token.encode().hex(),
    }


@tool(effect="read", name="leaky.fail")
def fail(token: Token) -> str:
    """Fail with the secret in the error."""
    raise ToolFailed(f"401: {token} is not accepted")


@tool(effect="once", name="leaky.crash")
def crash(token: Token) -> str:
    """Raise something unforeseen with the secret in it."""
    raise RuntimeError(f"https://user:{token}@host/{token}")


@tool(effect="once", name="leaky.write")
def write(text: str, token: Token) -> str:
    """Use the secret as it is meant to be used."""
    return f"wrote {len(text)} characters with {token}"
'''

_CALLS = ["leaky.echo", "leaky.fail", "leaky.crash", "leaky.write"]


def _script(call: Call) -> Reply:
    made = len(call.observations)
    if made >= len(_CALLS):
        return Answer("done " + " ".join(call.observations)[:2000])  # what it saw comes out again as its answer
    return CallTool(_CALLS[made], {"text": "a text"} if _CALLS[made] == "leaky.write" else {})


def _team(folder: Path) -> Path:
    (folder / "leaky.py").write_text(_TOOLS)
    return write_team(
        folder,
        {
            "interlock": 1,
            "team": "leaky",
            "secrets": {"TOKEN": {"env": "LEAKY_TOKEN"}},
            "tools": {"modules": ["leaky.py"]},
            "agents": {"worker": {"kind": "worker", "tools": _CALLS}, "checker": {"kind": "verifier"}},
            "permissions": {
                "allow": ["leaky.echo", "leaky.fail", {"tool": "leaky.*", "arguments": {"*": {"source": ["data"]}}}]
            },
            "plan": [
                {
                    "step": "use",
                    "agent": "worker",
                    "do": "Use the tools.",
                    "verify": {"criteria": [{"check": "words", "min": 1}]},
                }
            ],
        },
    )


def _forms(secret: str) -> list[bytes]:
    """Return what of a secret may stand nowhere: the ways in which text and JSON carry it, and its distinct part."""
    raw = secret.encode()
    shifted = [base64.b64encode(b"x" * pad + raw)[4:-4] for pad in range(3)]
    return [raw, quote(secret).encode(), quote(secret, safe="").encode(), raw.hex().encode(), b"b6e41c", *shifted]


def _found(secret: str, text: bytes) -> list[bytes]:
    return [form for form in _forms(secret) if form in text]


async def _run(folder: Path, team: Path) -> tuple[Finished, list[str], list[Any]]:
    async with OtlpReceiver() as collector, ScriptedServer(_script) as server:
        env = {
            "INTERLOCK_MODEL_URL": server.url,
            "LEAKY_TOKEN": CANARY,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true",
            "INTERLOCK_LOG": "debug",
        }
        async with running("run", str(team), "go", "--json", env=env, cwd=folder) as command:
            done = await command.finish()
        asked = [json.dumps(call.body, ensure_ascii=False) for call in server.calls]
        return done, asked, list(collector.spans)


def _check_files(folder: Path) -> None:
    kept = [path for path in (folder / ".interlock").rglob("*") if path.is_file()]
    assert any("jetstream" in path.parts for path in kept)
    assert [(path.name, hit) for path in kept if (hit := _found(CANARY, path.read_bytes()))] == []
    assert [path for path in folder.rglob("*") if _found(CANARY, str(path).encode())] == []


async def test_no_byte_of_a_secret_gets_out(tmp_path: Path) -> None:
    """A tool that leaks its secret in every way it can leaks nothing into what anybody reads or keeps."""
    done, asked, spans = await _run(tmp_path, _team(tmp_path))
    assert done.status == 0, done.err
    shown = "\n".join(asked)
    assert len(asked) == len(_CALLS) + 1
    assert "[secret TOKEN]" in shown, "the model sees that there is something, and not what"
    assert re.search(r"wrote 6 characters", shown), "the tool had the secret itself"
    found = {
        "prompts": _found(CANARY, shown.encode()),
        "report": _found(CANARY, done.out.encode()),
        "logs": _found(CANARY, done.err.encode()),
        "spans": _found(CANARY, repr(spans).encode()),
    }
    assert {where: what for where, what in found.items() if what} == {}
    assert len(spans) > 5
    _check_files(tmp_path)


async def test_a_secret_that_is_not_there_is_said_by_name(tmp_path: Path) -> None:
    """Without its environment variable a job does not begin, and the message names the variable."""
    async with running(
        "run", str(_team(tmp_path)), "go", cwd=tmp_path, env={"INTERLOCK_MODEL_URL": "http://127.0.0.1:9/v1"}
    ) as command:
        done = await command.finish()
    assert done.status == 2
    assert "LEAKY_TOKEN" in done.err


@pytest.mark.parametrize("form", _forms(CANARY)[:4])
def test_the_search_would_find_it(form: bytes) -> None:
    """Each form that is looked for is found where it stands, so that finding none says something."""
    assert _found(CANARY, b"noise " + form + b" noise")
