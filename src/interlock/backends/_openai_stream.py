"""An answer that comes in pieces: the events of a streamed chat completion put together to a whole one. Pure."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from interlock.backends._openai_wire import error_of_status
from interlock.backends.engines import Endpoint

_FAILED = 500
"""The HTTP status that an error counts as which comes in the middle of an answer and names none."""


class Pieces:
    """The pieces of one answer so far."""

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self._endpoint, self._model = endpoint, model
        self._unread = b""
        self._text: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._rest: dict[str, Any] = {}
        self._finish_reason: str | None = None
        self._done = False

    @property
    def whole(self) -> bool:
        """Whether nothing more is to come."""
        return self._done or self._finish_reason is not None

    def take(self, data: bytes) -> Iterator[str]:
        """Take bytes as they come from the wire and yield the pieces of text that they end.

        :raises ModelError: the server says that it failed
        """
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and (text := self._event(line[5:].strip())):
                yield text

    def _event(self, data: bytes) -> str:
        """Take one event in and return the text that it brings."""
        if data == b"[DONE]":
            self._done = True
            return ""
        try:
            event: Any = from_json(data)
        except ValueError:
            return ""
        match event:
            case {"error": error}:
                status = error.get("code") if isinstance(error, dict) else None
                raise error_of_status(
                    status if isinstance(status, int) else _FAILED, {}, data, self._endpoint, self._model
                )
            case dict():
                self._rest |= {key: event[key] for key in ("id", "model", "usage") if event.get(key)}
                return self._choice(event.get("choices"))
            case _:
                return ""

    def _choice(self, choices: Any) -> str:
        match choices:
            case [{"delta": dict(delta)} as choice, *_]:
                self._finish_reason = choice.get("finish_reason") or self._finish_reason
                return self._delta(delta)
            case _:
                return ""

    def _delta(self, delta: dict[str, Any]) -> str:
        for call in delta.get("tool_calls") or ():
            self._call(call)
        text = delta.get("content") or delta.get("refusal")
        if not isinstance(text, str):
            return ""
        self._text.append(text)
        return text

    def _call(self, piece: dict[str, Any]) -> None:
        """Add to a call: its id and name come once, its arguments bit by bit."""
        function = piece.get("function") or {}
        call = self._calls.setdefault(piece.get("index") or 0, {"id": "", "name": "", "arguments": ""})
        call["id"] = piece.get("id") or call["id"]
        call["name"] = function.get("name") or call["name"]
        call["arguments"] += function.get("arguments") or ""

    def body(self) -> bytes:
        """Return the answer as it would have come in one piece."""
        message: dict[str, Any] = {"content": "".join(self._text)}
        if self._calls:
            message["tool_calls"] = [
                {"id": call["id"], "function": {"name": call["name"], "arguments": call["arguments"]}}
                for _, call in sorted(self._calls.items())
            ]
        choice = {"message": message, "finish_reason": self._finish_reason}
        return json.dumps({**self._rest, "choices": [choice]}).encode()
