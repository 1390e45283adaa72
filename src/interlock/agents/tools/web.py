"""The tool ``web.fetch``: one page of the public internet as text, within bounds of time and size.

Names are resolved once for each hop, every address is checked, and the connection goes to a checked address, so that a
name which means something else a moment later leads nowhere. No cookies, no proxies, no credentials.
"""

import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated

import anyio
import anyio.to_thread
from pydantic import Field

from interlock._version import __version__
from interlock.agents.tools._page_text import media_type, page_text
from interlock.agents.tools._reach import Reach, Resolver, networks, system_resolver
from interlock.agents.tools.errors import ToolFailed
from interlock.agents.tools.tool import ToolContext, tool
from interlock.protocol.base import Json
from interlock.protocol.team import WebTools

if TYPE_CHECKING:
    import httpx2  # imported where it is used: it takes 80 ms

__all__ = ["Web"]

_HOPS = 6
_MOST_TEXT = 100_000
_PORTS = {"http": 80, "https": 443}
_PORT_LIMIT = 65_535
_REDIRECTS = {301, 302, 303, 307, 308}
_HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]{0,252})|\[[0-9a-f:.]+\]")
_CODINGS = {"", "identity", "gzip", "x-gzip", "deflate"}
_HEADERS = {
    "User-Agent": f"interlock/{__version__}",
    "Accept": "text/html, application/xhtml+xml, text/*;q=0.9, application/json;q=0.9, */*;q=0.1",
    "Accept-Encoding": "gzip, deflate",
    "Connection": "close",
}


class Web:
    """The web tool of one team."""

    def __init__(
        self,
        settings: WebTools,
        *,
        resolve: Resolver = system_resolver,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """Take the team's bounds.

        :param resolve: gives the addresses of a name
        :param trust: which certificates are believed; left out: those that the system believes
        :raises ToolSettingsInvalid: a private network is not in CIDR notation
        """
        self._settings = settings
        self._reach = Reach(networks(settings.private, "tools.web.private"), resolve)
        self._given_trust = trust

    @tool(effect="read", name="web.fetch", network=True, kinds={"url": "url"}, primary="url", destinations=("url",))
    async def fetch(
        self,
        url: str,
        context: ToolContext,
        links: Annotated[bool, Field(description="Whether to show where links lead.")] = False,
    ) -> dict[str, Json]:
        """Fetch a page or a text file from the web and return it as text."""
        try:
            with anyio.fail_after(self._settings.seconds):
                return await self._follow(url, context, links=links)
        except TimeoutError:
            reason = f"it took longer than the {self._settings.seconds:g} s of tools.web.seconds"
        raise ToolFailed(reason)

    async def _follow(self, url: str, context: ToolContext, *, links: bool) -> dict[str, Json]:
        target = _parsed(url)
        for _ in range(_HOPS):
            async with self._answer(target) as response:
                location = response.headers.get("Location") if response.status_code in _REDIRECTS else None
                if location is None:
                    return await self._read(response, target, links=links)
            target = _parsed(str(target.join(location)))
            await context.allow_url(str(target))
        raise ToolFailed(f"it leads on and on: {_HOPS} redirects, the last to {target}")

    @asynccontextmanager
    async def _answer(self, target: "httpx2.URL") -> AsyncIterator["httpx2.Response"]:
        """Ask for ``target`` at the first of its addresses that takes the connection."""
        import httpx2  # noqa: PLC0415 -- see above

        port = target.port or _PORTS[target.scheme]
        addresses = await self._reach.addresses(target.raw_host.decode(), port)
        # A transport of its own for each hop: a pool would share connections between names at one address.
        async with httpx2.AsyncHTTPTransport(verify=self._trust, trust_env=False) as transport:
            response = await self._first_answer(transport, target, addresses)
            try:
                yield response
            finally:
                await response.aclose()

    async def _first_answer(
        self, transport: "httpx2.AsyncHTTPTransport", target: "httpx2.URL", addresses: Sequence[str]
    ) -> "httpx2.Response":
        import httpx2  # noqa: PLC0415 -- see above

        patience = self._settings.seconds / (len(addresses) + 1)
        problem = ""
        for address in addresses:
            request = _request(target, address, patience)
            try:
                response = await transport.handle_async_request(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                problem = _said(error)
                continue
            except httpx2.TransportError as error:
                raise ToolFailed(f"{target}: {_said(error)}") from error
            response.request = request
            return response
        raise ToolFailed(f"{target} cannot be reached: {problem}")

    async def _read(self, response: "httpx2.Response", target: "httpx2.URL", *, links: bool) -> dict[str, Json]:
        header = response.headers.get("Content-Type", "")
        kind = media_type(header)
        body, cut = await self._body(response)
        work = partial(page_text, body, kind, header, links=links)
        text = await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
        return {
            "url": str(target),
            "status": response.status_code,
            "type": kind,
            "text": text[:_MOST_TEXT],
            "cut": cut or len(text) > _MOST_TEXT,
        }

    async def _body(self, response: "httpx2.Response") -> tuple[bytes, bool]:
        """Return the unpacked body, at most ``tools.web.bytes`` of it, and whether there was more."""
        import httpx2  # noqa: PLC0415 -- see above

        codings = {coding.strip().lower() for coding in response.headers.get("Content-Encoding", "").split(",")}
        if not codings <= _CODINGS:
            raise ToolFailed(f"what is there is packed in a way that was not asked for: {', '.join(sorted(codings))}")
        body = bytearray()
        try:
            async with aclosing(response.aiter_bytes()) as pieces:
                async for piece in pieces:  # each is unpacked to 1 MiB at most
                    body += piece
                    if len(body) > self._settings.bytes:
                        return bytes(body[: self._settings.bytes]), True
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise ToolFailed(f"it broke off: {_said(error)}") from error
        return bytes(body), False

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        import httpx2  # noqa: PLC0415 -- see above

        return self._given_trust or httpx2.create_ssl_context(trust_env=False)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _request(target: "httpx2.URL", address: str, patience: float) -> "httpx2.Request":
    """Return the request for ``target`` that goes to ``address``: name and certificate stay those of the URL."""
    import httpx2  # noqa: PLC0415 -- see above

    return httpx2.Request(
        "GET",
        target.copy_with(host=address),
        headers={"Host": target.netloc.decode(), **_HEADERS},
        extensions={"sni_hostname": target.raw_host.decode(), "timeout": {"connect": patience}},
    )


def _parsed(url: str) -> "httpx2.URL":
    """Return ``url`` parsed; what parsers could read in different ways is refused.

    :raises ToolFailed: it is no plain http or https URL
    """
    import httpx2  # noqa: PLC0415 -- see above

    if not url.isprintable() or any(character in url for character in ' \\"<>'):
        raise ToolFailed(f"{url[:200]!r} has characters that no URL has: write them percent-encoded")
    try:
        parsed = httpx2.URL(url).copy_with(fragment=None)
    except (httpx2.InvalidURL, ValueError) as error:
        raise ToolFailed(f"{url[:200]!r} is no URL: {error}") from error
    host = parsed.raw_host.decode()
    if parsed.scheme not in _PORTS or not _HOST.fullmatch(f"[{host}]" if ":" in host else host):
        raise ToolFailed(f"{url[:200]!r} is not of the form http(s)://HOST/PATH")
    if parsed.userinfo or (parsed.port or 0) > _PORT_LIMIT or parsed.port == 0:
        raise ToolFailed(f"{url[:200]!r} holds a user name, or a port that there is not")
    return parsed
