"""The scripted model as a real HTTP server with the OpenAI API's paths."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from interlock.backends._tool_names import own_name
from interlock.protocol.base import Json
from interlock.testing._replies import error_response, perform
from interlock.testing._script import Call, Script, compiled


@dataclass(slots=True)
class Seen:
    """What the server saw of one chat request."""

    call: Call
    headers: Mapping[str, str] = field(repr=False)
    began: float
    """When the request was read, by ``time.monotonic``."""
    ended: float | None = None
    """When the answer was sent or the client was gone; None: not yet."""
    client_left: bool = False
    """Whether the client closed the connection before it had its answer."""


class ScriptedServer:
    """An OpenAI-compatible server on loopback whose answers a script decides.

    An async context manager; inside it, point a team or a client at :attr:`url`::

        script = [
            when("Summarise", {"summary": "far too long"}, {"summary": "short"}),  # the second time it is better
            when("busy", Fail(429, retry_after=0.01), "now I have time"),
            otherwise("yes"),
        ]
        async with ScriptedServer(script) as server:
            ...  # run a team with INTERLOCK_MODEL_URL=server.url
            assert server.peak <= 64

    A model that uses tools is a script of calls and answers. The last message is then what came of the last call, so
    rules can go by it; a function of the call sees all of them::

        script = [
            when("Read the rules", CallTool("files.read", {"path": "rules.txt"})),
            when("no such file", CallTools(CallTool("files.list"), text="Let me look around.")),
            otherwise({"rules": 3}),
        ]
        ...
        assert server.calls[0].tools == ("files.list", "files.read")  # what was offered
        assert "no such file" in server.calls[1].observations[0]  # what came of the first call

    Serves ``GET /v1/models``, ``POST /v1/chat/completions`` (also streamed) and ``GET /seen`` (counts, as JSON).
    """

    def __init__(self, script: Script, *, model: str = "scripted", api_key: str | None = None, port: int = 0) -> None:
        """Prepare the server.

        :param script: what to answer: a function of the call, rules, or one reply to everything
        :param model: the only model that ``/v1/models`` lists; a request may name any
        :param api_key: the bearer token that requests must carry; None: any or none
        :param port: 0 takes a free one
        """
        self._decide = compiled(script)
        self._model = model
        self._api_key = api_key
        self._port = port
        self._runner: web.AppRunner | None = None
        self._repeats: Counter[str] = Counter()
        self._open = 0
        self._stopping = False
        self._changed = asyncio.Event()
        self.seen: list[Seen] = []
        """Every chat request, in the order in which they came."""
        self.peak = 0
        """The most chat requests that were open at once."""
        self.model_lists = 0
        """How often ``/v1/models`` was asked for."""

    @property
    def url(self) -> str:
        """Base URL of the API, ending in ``/v1``; only inside the context."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def calls(self) -> list[Call]:
        """Every chat request as the script saw it."""
        return [seen.call for seen in self.seen]

    @property
    def clients_left(self) -> list[Seen]:
        """The requests whose client closed the connection before it had its answer."""
        return [seen for seen in self.seen if seen.client_left]

    async def until(self, true: Callable[[Self], bool]) -> None:
        """Wait until ``true`` holds of this server; it is asked again whenever a chat request comes or ends."""
        while not true(self):
            await self._changed.wait()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        self._serve(app.router)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self._port, backlog=1024).start()
        self._runner, self._port = runner, runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        if self._runner is not None:
            await self._runner.cleanup()

    def _serve(self, router: web.UrlDispatcher) -> None:
        """Say what is served; a subclass may serve more."""
        router.add_post("/v1/chat/completions", self._chat)
        router.add_get("/v1/models", self._models)
        router.add_get("/seen", self._counts)

    async def _models(self, request: web.Request) -> web.Response:
        self.model_lists += 1
        return self._refusal(request) or web.json_response(
            {"object": "list", "data": [{"id": self._model, "object": "model"}]}
        )

    async def _counts(self, _request: web.Request) -> web.Response:
        counts = {"calls": len(self.seen), "open": self._open, "peak": self.peak, "left": len(self.clients_left)}
        return web.json_response(counts)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._refusal(request):
            return refusal
        try:
            call = self._call(json.loads(await request.read()))
        except ValueError as error:
            return error_response(400, f"not a chat request: {error}")
        with self._watched(call, request):
            return await perform(self._decide(call), call, request)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self._api_key is None or request.headers.get("Authorization") == f"Bearer {self._api_key}":
            return None
        return error_response(401, "wrong key")

    def _call(self, body: Any) -> Call:
        messages = body.get("messages") if isinstance(body, dict) else None
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise ValueError("messages must be a list of objects")
        key = json.dumps(messages)
        self._repeats[key] += 1
        return Call(
            messages=tuple(messages),
            model=str(body.get("model", "")),
            schema=_schema(body.get("response_format")),
            number=len(self.seen) + 1,
            repeat=self._repeats[key],
            body=body,
            tools=_tools(body.get("tools")),
        )

    @contextmanager
    def _watched(self, call: Call, request: web.Request) -> Iterator[None]:
        seen = Seen(call, request.headers, time.monotonic())
        self.seen.append(seen)
        self._open += 1
        self.peak = max(self.peak, self._open)
        self._wake()
        try:
            yield
        except (asyncio.CancelledError, ConnectionError):
            seen.client_left = not self._stopping  # a server that stops cancels its handlers too
            raise
        finally:
            self._open -= 1
            seen.ended = time.monotonic()
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _schema(response_format: Json) -> dict[str, Json] | None:
    match response_format:
        case {"json_schema": {"schema": dict(schema)}} | {"schema": dict(schema)}:
            return schema
        case _:
            return None


def _tools(offered: Json) -> tuple[str, ...]:
    """Return the names of the tools that a request offers; none where it is written in a form of its own."""
    names: list[str] = []
    for tool in offered if isinstance(offered, list) else ():
        match tool:
            case {"function": {"name": str(name)}}:
                names.append(own_name(name, ()))
            case _:
                pass
    return tuple(names)
