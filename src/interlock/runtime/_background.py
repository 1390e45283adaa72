"""Work beside a block that is ended with it, and whose failure the block's iterator hands on.

A task group around a block would wrap the block's own errors into exception groups, so this is a task with a cancel
scope. The scope, not the task, is cancelled: nats-py swallows a cancellation here and there, and a scope's is repeated.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None], failed: Callable[[BaseException], None]) -> AsyncIterator[None]:
    """Run ``work`` until the block is left; call ``failed`` with what it raises before that."""
    scope = anyio.CancelScope()

    async def run() -> None:
        with scope:
            await work

    def done(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()):
            failed(error)

    task = asyncio.create_task(run())
    task.add_done_callback(done)
    try:
        yield
    finally:
        scope.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])
