import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from interlock.backends.chat import ChatMessage, ChatRequest
from interlock.backends.engines import Endpoint, open_chat
from interlock.backends.errors import ModelUnreachable
from interlock.backends.retry import RetrySettings

ANSWER = {"choices": [{"message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}


@asynccontextmanager
async def answering(seen: list[web.BaseRequest], tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Answer every request whatever it asks for, and keep it; yield the port."""

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(request)
        return web.json_response(ANSWER)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def asked(url: str) -> str:
    chat = open_chat(Endpoint(url=url, name="m", timeout=5), RetrySettings(attempts=1))
    try:
        request = ChatRequest(messages=(ChatMessage("user", "hello"),), temperature=0, max_tokens=5)
        return (await chat.chat(request)).text
    finally:
        await chat.aclose()


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("no_proxies")
async def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy gets the whole URL and its own credentials; a host that ``no_proxy`` names is asked directly."""
    seen: list[web.BaseRequest] = []
    async with answering(seen) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:word@127.0.0.1:{proxy}")
        assert await asked("http://model.invalid/v1") == "ok"
        assert str(seen[0].url) == "http://model.invalid/v1/chat/completions"
        assert seen[0].headers["Proxy-Authorization"].startswith("Basic ")
        monkeypatch.setenv("no_proxy", "model.invalid")
        with pytest.raises(ModelUnreachable):
            await asked("http://model.invalid/v1")
    assert len(seen) == 1


@pytest.mark.usefixtures("no_proxies")
async def test_a_certificate_is_verified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server whose certificate nobody trusts is not asked; one of an authority in ``SSL_CERT_FILE`` is."""
    authority, tls, seen = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), list[web.BaseRequest]()
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    async with answering(seen, tls) as port:
        with pytest.raises(ModelUnreachable, match="certificate verify failed"):
            await asked(f"https://127.0.0.1:{port}/v1")
        assert seen == []
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        assert await asked(f"https://127.0.0.1:{port}/v1") == "ok"
