"""The process of the engine ``local``: llama-cpp-python's OpenAI server on a socket that its parent opened.

``python -P _local_server.py SOCKET WEIGHTS NAME THREADS CONTEXT``, with the key in INTERLOCK_LOCAL_KEY. It runs as a
script, without the rest of Interlock.

llama-cpp-python generates for one request at a time. On its own it goes on generating for a client that is gone, and
with its setting ``interrupt_requests`` a second request cuts off a streamed first one. Here requests queue in order;
one whose client is gone leaves the queue, or stops generating within a token or a piece of the prompt.
"""

# llama_cpp is an extra, so it is usually not there when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"
# pyright: reportMissingImports=false

import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

import anyio
import llama_cpp
import uvicorn
from llama_cpp.llama_grammar import PRIMITIVE_RULES
from llama_cpp.server.app import create_app
from llama_cpp.server.settings import ModelSettings, ServerSettings

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_App: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]

PIECE = 64
"""Prompt tokens that are read between two looks at whether the client is still there; costs 5 % of the speed."""


class ClientGoneError(Exception):
    """The client is gone, so nobody needs the rest of the answer."""


class StoppableLlama(llama_cpp.Llama):
    """A model that another thread can stop."""

    stop = threading.Event()

    def eval(self, tokens: Sequence[int]) -> None:
        """Read ``tokens``: those of the prompt, then each that was generated.

        :raises ClientGoneError: ``stop`` is set
        """
        for start in range(0, len(tokens), PIECE):
            if self.stop.is_set():
                raise ClientGoneError
            super().eval(tokens[start : start + PIECE])


class OneAtATime:
    """An ASGI app that gives requests to another one in turn, each only while its client is there."""

    def __init__(self, app: _App) -> None:
        self._app = app
        self._turn = anyio.Lock()

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            await _Request(self._app, scope, receive, send).serve(self._turn)
        else:
            await self._app(scope, receive, send)


class _Request:
    """A request that watches its client."""

    def __init__(self, app: _App, scope: _Message, receive: _Receive, send: _Send) -> None:
        self._app, self._scope, self._receive, self._send = app, scope, receive, send
        self._inbox: list[_Message] = []
        self._gone = anyio.Event()
        self._running = False

    async def serve(self, turn: anyio.Lock) -> None:
        while not self._inbox or self._inbox[-1].get("more_body"):
            self._inbox.append(await self._receive())
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, group.cancel_scope)
            async with turn:
                await self._run()
            group.cancel_scope.cancel()

    async def _run(self) -> None:
        StoppableLlama.stop.clear()
        self._running = True
        try:
            await self._app(self._scope, self._replay, self._send)
        finally:
            self._running = False

    async def _watch(self, waiting: anyio.CancelScope) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        if self._running:
            StoppableLlama.stop.set()  # the thread that generates cannot be cancelled, so it is asked to stop
        else:
            waiting.cancel()

    async def _replay(self) -> _Message:
        if self._inbox:
            return self._inbox.pop(0)
        await self._gone.wait()
        return {"type": "http.disconnect"}


def forbid_control_characters() -> None:
    """Let a schema-bound answer be JSON: the grammar's own rule allows bare line ends inside strings."""
    escape = r'"\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F])'
    PRIMITIVE_RULES["char"].content = rf'[^"\\\x7F\x00-\x1F] | {escape}'


def main() -> None:
    """Load the weights and serve until SIGTERM."""
    descriptor, weights, name, threads, context = sys.argv[1:]
    key = os.environ["INTERLOCK_LOCAL_KEY"]
    # Every setting that is not given below would be taken from a variable of its name: HOST, SEED, CACHE...
    os.environ.clear()
    forbid_control_characters()
    llama_cpp.Llama = StoppableLlama  # the server makes its model from this name
    app = create_app(
        server_settings=ServerSettings(api_key=key, interrupt_requests=False),
        model_settings=[
            ModelSettings(
                model=weights,
                model_alias=name,
                n_ctx=int(context),
                n_threads=int(threads),
                n_threads_batch=int(threads),
                flash_attn=True,
                logits_all=False,  # the server's own default takes 800 MB with this vocabulary and context
                verbose=False,
            )
        ],
    )
    config = uvicorn.Config(OneAtATime(app), log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(descriptor))])


if __name__ == "__main__":
    main()
