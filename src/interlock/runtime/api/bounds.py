"""What guards every path: who asks, how often, how much at once, and how large and how deep a body may be.

All of it is decided before a body is read, and before anything of the app runs. What kills has bounds of its own, so
that it waits behind nothing else.
"""

import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Literal
from urllib.parse import urlsplit

import anyio
import pydantic_core
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interlock.runtime.api.context import ApiContext
from interlock.runtime.api.keys import ANYBODY, Caller
from interlock.runtime.api.problems import (
    AddressForeign,
    BodyNotJson,
    BodyTooLarge,
    BodyTooSlow,
    KeyWanted,
    MediaTypeWrong,
    Problem,
    TooBusy,
    TooManyRequests,
)
from interlock.runtime.api.revoking import WhileKnown
from interlock.runtime.api.settings import ApiSettings, is_loopback

__all__ = ["PUBLIC", "Bounds", "Rates"]

PUBLIC = frozenset({"/healthz", "/readyz", "/openapi.json"})
"""The paths that need no key, and that are always answered."""

_STOPS = re.compile(r"/v1/(jobs/[^/]+/)?(kill|resume)/?")
_STREAMS = re.compile(r"/v1/(jobs/[^/]+/events|chat/completions)/?")
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE", "TRACE"})
_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json", re.IGNORECASE)
_KNOWN = 10_000
"""The most keys and addresses whose rate is remembered."""

_DISCARD_SECONDS = 1.0
_STOPS_AT_ONCE = 64
_Kind = Literal["stop", "stream", "other"]


class Rates:
    """How often each of many may do something: buckets that fill again with time."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By whom: what was left in it, and when that was."""

    def take(self, whose: str, now: float) -> float:
        """Take one; return 0, or after how many seconds there will be one."""
        left, then = self._buckets.pop(whose, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._per_second)
        short = max(0.0, (1 - left) / self._per_second)
        self._buckets[whose] = (left if short else left - 1, now)
        if len(self._buckets) > _KNOWN:
            self._buckets.popitem(last=False)
        return short


class _Slots:
    """How many of something may be under way at once."""

    def __init__(self, number: int) -> None:
        self._free = number

    @contextmanager
    def one(self) -> Iterator[None]:
        """Have one under way inside the block.

        :raises TooBusy: there are as many as may be
        """
        if self._free <= 0:
            raise TooBusy
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class Bounds:
    """Lets requests through to an app, with who sent them in ``scope["caller"]``."""

    def __init__(self, app: ASGIApp, context: ApiContext) -> None:
        self._app = app
        self._keys = context.keys
        self._settings: ApiSettings = context.settings
        self._rates = Rates(context.settings.per_second, context.settings.burst)
        self._stops = Rates(context.settings.per_second, context.settings.burst)
        self._slots: dict[_Kind, _Slots] = {
            "stop": _Slots(_STOPS_AT_ONCE),
            "stream": _Slots(context.settings.streams),
            "other": _Slots(context.settings.at_once),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with the problem that it has."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False
        try:
            async with self._admitted(scope, receive) as passed:
                begun = True
                await self._pass_on(scope, passed, send)
        except Problem as problem:
            if begun:
                raise
            await problem.response()(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the app answer; a stream ends once its key is taken back."""
        keys, key = self._keys, _key_of(Headers(scope=scope))
        if keys is None or _kind(scope["path"]) != "stream":
            await self._app(scope, receive, send)
            return
        known = WhileKnown(receive, send, lambda: keys.caller(key) == scope["caller"])
        await self._app(scope, known.receive, known.send)
        await known.end(scope)

    @asynccontextmanager
    async def _admitted(self, scope: Scope, receive: Receive) -> AsyncIterator[Receive]:
        headers = Headers(scope=scope)
        if scope["path"] in PUBLIC:
            yield receive
            return
        scope["caller"] = self._caller(scope, headers)
        kind = _kind(scope["path"])
        self._count(scope, scope["caller"], kind)
        with self._slots[kind].one():
            yield receive if scope["method"] in _BODILESS else await self._with_body(headers, receive)

    def _caller(self, scope: Scope, headers: Headers) -> Caller:
        """Return who sends a request.

        :raises AddressForeign: there are no keys, and it does not come from here
        :raises KeyWanted: it has no key that is known
        :raises TooManyRequests: too many keys were tried from there
        """
        if self._keys is None:
            if not (_is_local(headers.get("host", "")) and _is_local_origin(headers.get("origin"))):
                raise AddressForeign
            return ANYBODY
        key = _key_of(headers)
        caller = self._keys.caller(key) if key else None
        if caller is None:
            self._take(self._rates, f" {_address(scope)}")
            raise KeyWanted
        return caller

    def _count(self, scope: Scope, caller: Caller, kind: _Kind) -> None:
        whose = _address(scope) if caller is ANYBODY else caller.name
        self._take(self._stops if kind == "stop" else self._rates, whose)

    def _take(self, rates: Rates, whose: str) -> None:
        short = rates.take(whose, time.monotonic())
        if short:
            raise TooManyRequests(int(short) + 1)

    async def _with_body(self, headers: Headers, receive: Receive) -> Receive:
        """Read the body and return what gives it to the app."""
        body = await self._body(headers, receive)
        if body:
            if not _JSON.fullmatch(headers.get("content-type", "").partition(";")[0].strip()):
                raise MediaTypeWrong
            try:
                pydantic_core.from_json(body, allow_inf_nan=False, cache_strings=False)
            except ValueError as error:
                raise BodyNotJson(str(error)) from None
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        limit = self._settings.body_bytes
        said = headers.get("content-length", "")
        if said.isdecimal() and int(said[:20]) > limit:
            await _discard(receive, more=True)
            raise BodyTooLarge(limit)
        parts: list[bytes] = []
        size, more = 0, True
        with anyio.move_on_after(self._settings.body_seconds):
            while more:
                message = await receive()
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                more = message.get("more_body", False)
                if size > limit:
                    await _discard(receive, more=more)
                    raise BodyTooLarge(limit)
            return b"".join(parts)
        raise BodyTooSlow(self._settings.body_seconds)


async def _discard(receive: Receive, *, more: bool) -> None:
    """Read on for a moment: who is hung up on in the middle of what he sends may not hear why."""
    with anyio.move_on_after(_DISCARD_SECONDS):
        while more:
            message = await receive()
            more = message.get("more_body", False)


def _kind(path: str) -> _Kind:
    if _STOPS.fullmatch(path):
        return "stop"
    return "stream" if _STREAMS.fullmatch(path) else "other"


def _key_of(headers: Headers) -> str:
    """Return the key that a request comes with, an empty string where it has none."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _is_local(host: str) -> bool:
    """Whether a request was meant for this machine: a page of another site can have its name lead here."""
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _is_local_origin(origin: str | None) -> bool:
    if origin is None:
        return True
    try:
        return is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False
