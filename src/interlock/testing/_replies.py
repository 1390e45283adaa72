"""Puts a scripted reply on the wire."""

import asyncio
import json
import re
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from aiohttp import web

from interlock.backends._tool_names import api_name
from interlock.protocol.base import Json
from interlock.testing._script import Answer, Call, CallTool, CallTools, Fail, Hang, HangUp, Malformed, Reply


@dataclass(frozen=True, slots=True)
class _Said:
    """What goes out: a message, why it ended, and what it cost."""

    text: str
    calls: list[dict[str, Any]]
    finish_reason: str
    usage: dict[str, Json]


async def perform(reply: Reply, call: Call, request: web.Request) -> web.StreamResponse:
    """Do to ``request`` what ``reply`` says."""
    match reply:
        case Answer():
            await asyncio.sleep(reply.delay)
            said = _Said(reply.text, [], reply.finish_reason, _usage(reply, call))
            return await _say(said, call, request)
        case CallTool():
            return await perform(CallTools(reply), call, request)
        case CallTools():
            await asyncio.sleep(reply.delay)
            return await _say(_calling(reply, call), call, request)
        case Fail():
            await asyncio.sleep(reply.delay)
            headers = {} if reply.retry_after is None else {"Retry-After": str(reply.retry_after)}
            return error_response(reply.status, reply.message, headers)
        case Malformed():
            body = reply.body.encode() if isinstance(reply.body, str) else reply.body
            return web.Response(body=body, content_type=reply.content_type)
        case HangUp():
            return await _hang_up(request, midway=reply.midway)
        case Hang():
            gone: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
            return await gone  # the handler is cancelled when the client goes


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return an error in the API's shape."""
    return web.json_response({"error": {"message": message, "type": "scripted"}}, status=status, headers=headers)


def _calling(reply: CallTools, call: Call) -> _Said:
    calls: list[dict[str, Any]] = [
        {
            "id": one.id or sha256(f"{number} {json.dumps(call.messages)}".encode()).hexdigest()[:9],
            "type": "function",
            "function": {"name": api_name(one.name), "arguments": one.text},
        }
        for number, one in enumerate(reply.calls)
    ]
    words = Answer(" ".join([reply.text, *(one.text for one in reply.calls)]))
    return _Said(reply.text, calls, reply.finish_reason, _usage(words, call))


async def _say(said: _Said, call: Call, request: web.Request) -> web.StreamResponse:
    if call.body.get("stream"):
        return await _stream(said, call, request)
    message: dict[str, Any] = {"role": "assistant", "content": said.text}
    if said.calls:
        message |= {"content": said.text or None, "tool_calls": said.calls}
    choice = {"index": 0, "message": message, "finish_reason": said.finish_reason}
    body = {**_head(call, "chat.completion"), "choices": [choice], "usage": said.usage}
    return web.Response(body=json.dumps(body).encode(), content_type="application/json")


async def _stream(said: _Said, call: Call, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    deltas: list[dict[str, Any]] = [{"content": word} for word in _words(said.text)]
    deltas += [{"tool_calls": [{"index": number, **one}]} for number, one in enumerate(said.calls)]
    for delta, end in [*((delta, None) for delta in deltas), ({}, said.finish_reason)]:
        choice = {"index": 0, "delta": delta, "finish_reason": end}
        await _event(response, {**_head(call, "chat.completion.chunk"), "choices": [choice]})
    options = call.body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        await _event(response, {**_head(call, "chat.completion.chunk"), "choices": [], "usage": said.usage})
    await response.write(b"data: [DONE]\n\n")
    return response


async def _event(response: web.StreamResponse, chunk: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")


async def _hang_up(request: web.Request, *, midway: bool) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    if midway:
        await response.prepare(request)
        await response.write(b'{"id": "half an ans')
    if request.transport is not None:
        request.transport.close()
    return response


def _head(call: Call, kind: str) -> dict[str, Json]:
    return {"id": f"scripted-{call.number}", "object": kind, "created": int(time.time()), "model": call.model}


def _usage(reply: Answer, call: Call) -> dict[str, Json]:
    prompt = len(call.conversation.split()) if reply.prompt_tokens is None else reply.prompt_tokens
    completion = len(reply.text.split()) if reply.completion_tokens is None else reply.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)
