"""A web server on loopback whose pages a test decides, and a name service that a test decides too."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

__all__ = ["Names", "serving"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Names:
    """Gives the addresses of names, a different answer each time where a test wants that."""

    def __init__(self, **answers: list[str] | list[list[str]]) -> None:
        self._answers = {name.replace("_", "."): answer for name, answer in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the next answer for ``host``; none is left: nobody should have asked."""
        self.asked.append(host)
        answer = self._answers.get(host)
        if answer is None:
            raise OSError(f"no address for {host}:{port}")
        now = answer[0]
        if isinstance(now, str):
            return [str(one) for one in answer]
        answer.pop(0)
        return now


@asynccontextmanager
async def serving(handler: Handler, *, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Serve every path with ``handler``; yields the port."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
