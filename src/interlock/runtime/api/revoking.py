"""Ends what a request still gets once its key is taken back: to the app it is as if the client had hung up."""

from collections.abc import Callable

import anyio
from starlette.types import Message, Receive, Scope, Send

from interlock.runtime.api.problems import KeyWanted

__all__ = ["WhileKnown"]

_LOOK_SECONDS = 1.0
"""How long a stream may go on after its key was taken back."""


class WhileKnown:
    """One request, answered as long as its key is known."""

    def __init__(self, receive: Receive, send: Send, is_known: Callable[[], bool]) -> None:
        self._receive = receive
        self._send = send
        self._is_known = is_known
        self._begun = self._ended = False

    async def receive(self) -> Message:
        """Return what comes from the client; once its key is not known any more, that it has hung up."""
        while self._is_known():
            with anyio.move_on_after(_LOOK_SECONDS):
                return await self._receive()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        self._begun = True
        self._ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def end(self, scope: Scope) -> None:
        """End an answer that the app has left as it was; where it had none, tell why there is none."""
        if self._ended or self._is_known():
            return
        if self._begun:
            await self._send({"type": "http.response.body", "body": b""})
        else:
            await KeyWanted().response()(scope, self._receive, self._send)
