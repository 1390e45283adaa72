"""What a supervisor tells its processes while they run, and what they say, in lines over standard input and output.

To a process: how long it may live, to drain (take nothing more and end once all in hand is done), which jobs are
killed. From it: that it is ready, how many messages it has in hand, that it let go of a killed job, its last word.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream

from interlock.runtime._lease import lease_line

_log = logging.getLogger(__name__)

DRAIN = "drain"
KILL = "kill"
SPARE = "spare"
IN_HAND = "hand"
DROPPED = "dropped"

_LEEWAY = 0.1
"""Seconds by which a process's lease on its life is longer than the supervisor's word, to end by itself."""

_WORD_BYTES = 4096
_LINE_BYTES = 16 * 1024


class Wishes:
    """What a supervisor wants of all its processes right now."""

    def __init__(self, until: float | None) -> None:
        self.until = until
        """Until when they may live, by ``time.monotonic``; None: as long as they like, and they are told nothing."""
        self.killed: frozenset[str] = frozenset()
        self.draining = False
        self.changed = anyio.Event()

    def tell(self) -> None:
        """Wake those who pass the wishes on."""
        changed, self.changed = self.changed, anyio.Event()
        changed.set()


class Talk:
    """The talk with one process, for one life of it."""

    def __init__(self) -> None:
        self.in_hand = 0
        """How many messages it works on, as far as it has said."""
        self.owes: set[str] = set()
        """The killed jobs that it was told to let go of and did not say so yet."""
        self._ready = False
        self._owing = anyio.Event()
        self._heard = anyio.Event()

    async def tell(self, stdin: ByteSendStream, config: bytes, wishes: Wishes) -> None:
        """Tell the process what it is, and whatever is wished from then on."""
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # it died: its exit status tells
            await stdin.send(config + b"\n")
            killed: frozenset[str] = frozenset()
            draining = False
            while wishes.until is not None:
                changed = wishes.changed
                words = [lease_line(wishes.until + _LEEWAY)]
                words += [f"{KILL} {job}\n".encode() for job in sorted(wishes.killed - killed)]
                words += [f"{SPARE} {job}\n".encode() for job in sorted(killed - wishes.killed)]
                words += [f"{DRAIN}\n".encode()] if wishes.draining and not draining else []
                self._expect(wishes.killed - killed)
                killed, draining = wishes.killed, wishes.draining
                await stdin.send(b"".join(words))
                await changed.wait()
        await stdin.aclose()

    async def listen(self, stdout: ByteReceiveStream, begun: bytes) -> None:
        """Hear what the process says from when it is ready; ``begun`` was read already."""
        self._ready = True
        rest = begun
        while True:
            *lines, rest = rest.split(b"\n")
            for line in lines:
                self._hear(line.decode(errors="replace").split())
            try:
                rest = rest[-_WORD_BYTES:] + await stdout.receive()
            except anyio.EndOfStream:
                return

    async def until_owing(self) -> None:
        """Wait until the process has been told to let go of something."""
        await self._owing.wait()
        self._owing = anyio.Event()

    async def until_paid(self) -> None:
        """Wait until it has let go of all that."""
        while self.owes:
            self._heard = anyio.Event()
            await self._heard.wait()

    def _expect(self, jobs: Collection[str]) -> None:
        if jobs and self._ready:  # before it is ready it has nothing in hand, and may take its time to listen
            self.owes.update(jobs)
            self._owing.set()

    def _hear(self, words: list[str]) -> None:
        match words:
            case [said, number] if said == IN_HAND and number.isdecimal():
                self.in_hand = int(number)
            case [said, job] if said == DROPPED:
                self.owes.discard(job)
                self._heard.set()
            case _:
                pass


async def relay(stream: ByteReceiveStream | None, name: str, kept: deque[str], hide: Callable[[str], str]) -> None:
    """Pass on what the process writes to its standard error, line by line, and keep the end of it."""
    rest = b""
    if stream is None:
        return
    async for chunk in stream:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LINE_BYTES:
            lines, rest = [*lines, rest], b""
        for line in lines:
            _relay_line(line, name, kept, hide)
    if rest:
        _relay_line(rest, name, kept, hide)


def _relay_line(line: bytes, name: str, kept: deque[str], hide: Callable[[str], str]) -> None:
    text = hide(line.decode(errors="replace").rstrip())
    kept.append(text)
    _log.warning("%s: %s", name, text)
