"""What the README and the page about chats show is run as it stands there, against a real ``interlock up --http``."""

import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.cli import environment, running

from interlock.testing import Call, ScriptedServer

pytestmark = pytest.mark.timeout(180)

_ROOT = Path(__file__).parents[3]
_README = (_ROOT / "README.md").read_text()
_PAGES = {"README.md": _README, "docs/chat.md": (_ROOT / "docs/chat.md").read_text()}
_SHOWN = "127.0.0.1:8080"
"""Where the snippets expect the server."""

_LANGUAGES = {"python": [sys.executable, "-W", "error", "-c"], "bash": ["bash", "-euc"]}


def marked(text: str) -> list[tuple[str, str]]:
    """Return the language and the text of each fenced block that is marked to be run."""
    return re.findall(r"<!-- run -->\n+```(\w+)\n(.*?)```", text, re.DOTALL)


def sorts(call: Call) -> dict[str, object]:
    """Answer for the README's team: a clerk that sorts messages, and a judge that agrees."""
    properties = (call.schema or {}).get("properties")
    if isinstance(properties, dict) and "desk" in properties:
        return {"desk": "other", "why": call.prompt.strip().splitlines()[-1][:60]}
    assert isinstance(properties, dict)
    return {name: {"evidence": "It fits.", "holds": True, "change": ""} for name in properties}


def free(address: str) -> str:
    """Return an address to listen on: the one that is shown, or another one where somebody else listens there."""
    host, _, port = address.partition(":")
    for wanted in (int(port), 0):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((host, wanted))
            except OSError:
                continue
            return f"{host}:{tried.getsockname()[1]}"
    raise AssertionError("no port is free")


@asynccontextmanager
async def up(folder: Path) -> AsyncIterator[str]:
    """Bring the README's team up as the README says; yield where it is."""
    (team,) = re.findall(r"```yaml\n(interlock: 1\n.*?)```", _README, re.DOTALL)
    (folder / "team.yaml").write_text(team)
    address = free(_SHOWN)
    async with ScriptedServer(sorts) as model:  # type: ignore[arg-type]  # objects of JSON
        env = {"INTERLOCK_MODEL_URL": model.url}
        command = ["up", "team.yaml", "--http", address, "--http-open", "--workers", "1"]
        async with running(*command, env=env, cwd=folder) as running_command:
            await running_command.until("node ")
            await running_command.until("the HTTP API is at")
            yield address


async def test_the_snippets_run_as_they_stand(tmp_path: Path) -> None:
    """Each of them ends well and prints what the team made of the message."""
    snippets = [(page, *one) for page, text in _PAGES.items() for one in marked(text)]
    assert {language for _, language, _ in snippets} == {"python", "bash"}
    async with up(tmp_path) as address:
        for page, language, snippet in snippets:
            text = snippet.replace(_SHOWN, address)
            env = {**environment(), "PATH": os.environ["PATH"]}
            with anyio.fail_after(60):
                done = await anyio.run_process([*_LANGUAGES[language], text], cwd=tmp_path, env=env, check=False)
            told = done.stdout.decode() + done.stderr.decode()
            assert done.returncode == 0, f"{page}:\n{snippet}\n{told}"
            assert "other" in told, f"{page}:\n{snippet}\n{told}"
            assert "0 of 1 could not be sorted" in told.replace("\\n", "\n"), f"{page}:\n{snippet}\n{told}"
