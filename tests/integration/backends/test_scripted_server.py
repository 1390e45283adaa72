import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from interlock.testing import Answer, Hang, HangUp, ScriptedServer

HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


async def test_the_official_client_understands_it() -> None:
    """Plain and streamed answers, the list of models and the usage are read by the openai client."""
    async with (
        ScriptedServer(Answer("one two  three", prompt_tokens=5)) as server,
        openai.AsyncOpenAI(base_url=server.url, api_key="x", max_retries=0) as client,
    ):
        whole = await client.chat.completions.create(**HELLO)
        stream = await client.chat.completions.create(**HELLO, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        models = [model.id async for model in client.models.list()]
    assert whole.choices[0].message.content == "one two  three"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two  three"
    assert whole.usage == chunks[-1].usage
    assert models == ["scripted"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"messages": 1}', b'{"messages": ["x"]}'])
async def test_what_is_no_chat_request_is_refused(body: bytes) -> None:
    """A client's mistake is a 400 and does not count as a call."""
    async with (
        ScriptedServer("ok") as server,
        aiohttp.ClientSession() as http,
        http.post(f"{server.url}/chat/completions", data=body) as response,
    ):
        assert response.status == 400
    assert server.seen == []


async def test_a_wrong_key_is_refused() -> None:
    """With a key set, requests without it are refused."""
    async with ScriptedServer("ok", api_key="right") as server, aiohttp.ClientSession() as http:
        async with http.post(f"{server.url}/chat/completions", json=HELLO) as response:
            assert response.status == 401
        headers = {"Authorization": "Bearer right"}
        async with http.post(f"{server.url}/chat/completions", json=HELLO, headers=headers) as response:
            assert response.status == 200


async def test_stopping_the_server_is_no_clients_hang_up() -> None:
    """A request that is open when the server stops is not counted as one whose client left."""
    async with aiohttp.ClientSession() as http:
        async with ScriptedServer(Hang()) as server:
            pending = asyncio.create_task(post(http, server.url))
            await server.until(lambda it: len(it.seen) == 1)
        with pytest.raises(aiohttp.ClientError):
            await pending
    assert server.clients_left == []


@pytest.mark.parametrize("midway", [True, False])
async def test_its_own_hang_up_is_no_clients(midway: bool) -> None:
    """A connection that the script closes is not counted as one whose client left."""
    async with ScriptedServer(HangUp(midway=midway)) as server, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientError):
            await post(http, server.url)
        await server.until(lambda it: it.seen[0].ended is not None)
    assert server.clients_left == []


async def post(http: aiohttp.ClientSession, url: str) -> None:
    async with http.post(f"{url}/chat/completions", json=HELLO) as response:
        await response.read()


async def test_it_runs_as_a_process(tmp_path: Path) -> None:
    """A script in a file is served by a process that says where it is, counts calls and ends on SIGTERM."""
    script = tmp_path / "script.py"
    script.write_text("def answer(call):\n    return f'{call.prompt} {call.number}'\n")
    command = [sys.executable, "-m", "interlock.testing", "--script", f"{script}:answer"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220 -- one line is awaited
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        async with aiohttp.ClientSession() as http:
            async with http.post(f"{url}/chat/completions", json=HELLO) as response:
                answer = await response.json()
            async with http.get(url.replace("/v1", "/seen")) as response:
                counts = json.loads(await response.text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert answer["choices"][0]["message"]["content"] == "hello 1"
    assert counts == {"calls": 1, "open": 0, "peak": 1, "left": 0}
