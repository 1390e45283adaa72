"""Errors in the OpenAI API's shape, on the paths where its clients look for them.

Whatever refuses a request (a guard before the paths, the reading of the body, the path itself), the answer is a problem
as everywhere in this API; here it is put into other words on its way out.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interlock.runtime.api.chat_wire import ChatError, ErrorBody, ErrorDetail

__all__ = ["OpenAIErrors", "error_of", "error_response", "is_chat_path"]

_MODELS = "/v1/models"
_CHAT = "/v1/chat/"
_PROBLEM = "application/problem+json"

_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {
    "key-wanted": "invalid_api_key",
    "key-lacks-scope": "insufficient_permissions",
    "team-unknown": "model_not_found",
    "too-many-requests": "rate_limit_exceeded",
    "request-invalid": "invalid_request",
    "inputs-unusable": "invalid_inputs",
    "unexpected": "internal_error",
}
_STATUSES = {"request-invalid": 400, "inputs-unusable": 400}
_RETRY = "x-should-retry"

_AGAIN = {"too-many-requests", "too-busy"}
"""With these nothing was begun: a client may try again by itself. With a broker that went away nobody knows."""


def is_chat_path(path: str) -> bool:
    """Return whether OpenAI clients ask for ``path``."""
    return path == _MODELS or path.startswith((f"{_MODELS}/", _CHAT))


def error_of(problem: Mapping[str, object], status: int) -> tuple[int, ErrorBody, bool]:
    """Return the status and the body that say in the OpenAI API's words what a problem says, and whether to retry."""
    slug = str(problem.get("type", "")).rpartition(":")[2]
    status = _STATUSES.get(slug, status)
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    detail = str(problem.get("detail") or problem.get("title") or HTTPStatus(status).phrase)
    code = _CODES.get(slug, slug.replace("-", "_"))
    body = ErrorDetail(message=detail, type=_KINDS.get(status, kind), param=_param(problem), code=code)
    return status, ErrorBody(error=body), slug in _AGAIN


def _param(problem: Mapping[str, object]) -> str | None:
    errors = problem.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        return str(errors[0].get("at", "")).removeprefix("body.") or None
    return None


class OpenAIErrors:
    """Puts what an app answers as a problem into the OpenAI API's words, where its clients ask."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or not is_chat_path(scope["path"]):
            await self._app(scope, receive, send)
            return
        await self._app(scope, receive, _Translated(send))


class _Translated:
    """Sends on what is no problem, and a problem in other words once it is whole."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            if headers.get("content-type", "").startswith(_PROBLEM):
                self._start = message
                return
        elif self._start is not None and message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._translate(self._start)
            return
        await self._send(message)

    async def _translate(self, start: Message) -> None:
        status, error, again = error_of(json.loads(self._body or b"{}"), start["status"])
        body = error.model_dump_json().encode()
        headers = MutableHeaders(raw=list(start["headers"]))
        headers["content-type"] = "application/json"
        headers["content-length"] = str(len(body))
        headers[_RETRY] = "true" if again else "false"
        await self._send({"type": "http.response.start", "status": status, "headers": headers.raw})
        await self._send({"type": "http.response.body", "body": body})


def error_response(error: ChatError, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer that an error is, with these headers.

    It says whether to try again: official clients do so by themselves after some statuses, and each try would be a job.
    """
    retry = {_RETRY: "true" if error.again else "false"}
    return JSONResponse(error.body.model_dump(), error.status, {**(headers or {}), **retry})
