"""When processes die, told by the kernel and not by looking again and again."""

import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio

__all__ = ["Deaths"]


class Deaths:
    """The deaths of some processes. Each is known by a pidfd, so that no other process is taken for it."""

    def __init__(self) -> None:
        self.living: set[int] = set()
        """The pids of those that live."""
        self.last = 0.0
        """When the last death was, by ``time.monotonic``."""
        self._over = anyio.Event()

    @classmethod
    @asynccontextmanager
    async def of(cls, pids: Iterable[int]) -> "AsyncIterator[Deaths]":
        """Watch these processes while the block runs; those that live at the end stay in ``living``."""
        deaths = cls()
        watched = {pid: os.pidfd_open(pid) for pid in pids}
        deaths.living.update(watched)
        async with anyio.create_task_group() as group:
            for pid, descriptor in watched.items():
                group.start_soon(deaths._watch, pid, descriptor)
            await anyio.lowlevel.checkpoint()
            yield deaths
            group.cancel_scope.cancel()

    async def all(self, seconds: float) -> None:
        """Wait until all are dead, at most so long."""
        with anyio.move_on_after(seconds):
            while self.living:
                await self._over.wait()

    async def _watch(self, pid: int, descriptor: int) -> None:
        try:
            await anyio.wait_readable(descriptor)
            self.last = time.monotonic()
            self.living.discard(pid)
            if not self.living:
                self._over.set()
        finally:
            os.close(descriptor)
