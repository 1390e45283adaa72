"""Waiting for what can only be looked at: the state of other processes."""

from collections.abc import Callable

import anyio

__all__ = ["eventually"]


async def eventually(holds: Callable[[], object], seconds: float = 60) -> None:
    """Wait until ``holds`` does, looking every 10 ms.

    :raises TimeoutError: it does not within ``seconds``
    """
    with anyio.fail_after(seconds):
        while not holds():  # noqa: ASYNC110 -- another process sets no event here
            await anyio.sleep(0.01)
