"""nats-py's client, with what a busy connection does most often made short, and with breaks that are told at once.

A message goes from the socket's bytes to its receiver in one call, where nats-py queues it for a task of its
subscription; what one turn of the event loop sends is written at its end, in one piece.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nats import errors as nats_errors
from nats.aio.client import Client, Srv
from nats.aio.subscription import Subscription

_log = logging.getLogger(__name__)

_PING = b"PING\r\n"
_GREETING = "NATS/1.0"
_STATUS, _DESCRIPTION = "Status", "Description"
_UNSENDABLE = re.compile(r"[\s\x00-\x1f\x7f]")
"""What may stand in no subject: the line would end there and the broker would read on in the middle."""


@dataclass(slots=True)
class Heard:
    """A message as it came."""

    subject: str
    reply: str
    data: bytes
    headers: Mapping[str, str]


Receiver = Callable[[Heard], None]
"""Takes a message; called while the connection is read, so it only keeps it for others."""


class FastClient(Client):
    """A client whose subscriptions have receivers, and whose round trips can be relied on."""

    def __init__(self, broken: Callable[[str], None]) -> None:
        super().__init__()
        self._broken = broken
        self._receivers: dict[int, Receiver] = {}

    async def hear(self, subject: str, receive: Receiver) -> Subscription:
        """Have ``receive`` called for each message to ``subject``.

        :raises nats.errors.Error: there is no connection
        """
        subscription = await self.subscribe(subject, cb=_nobody, pending_msgs_limit=0, pending_bytes_limit=0)
        self._receivers[subscription._id] = receive  # noqa: SLF001 -- nats-py's name for the subscription on the wire
        return subscription

    def send(self, subject: str, body: bytes, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Send a message; nothing says whether it arrives.

        :raises nats.errors.Error: there is no connection, or a subject is none
        """
        if not subject or _UNSENDABLE.search(subject) or _UNSENDABLE.search(reply):
            raise nats_errors.BadSubjectError
        if not self.is_connected or self._transport is None:
            raise nats_errors.ConnectionReconnectingError
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._write_pending)
        command = _command(subject, body, reply, headers)
        self._pending.append(command)
        self._pending_data_size += len(command)

    async def room(self) -> None:
        """Wait until the transport has sent most of what it was given; usually it has."""
        try:
            if self._transport is not None:
                await self._transport.drain()  # type: ignore[no-untyped-call]  # nats-py annotates only some methods
        except OSError as error:
            _log.debug("the connection broke while it was written to: %s", error)  # who reads it is told

    def _write_pending(self) -> None:
        """Write what this turn of the event loop gathered in one call: each is a call of the system."""
        if self._pending and self._transport is not None:
            pending = b"".join(self._pending)
            self.forget_unsent()
            self._transport.write(pending)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        receive = self._receivers.get(sid)
        if receive is None:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]  # None is usual
            return
        try:
            receive(Heard(subject.decode(), reply.decode(), data, _parsed(headers) if headers else {}))
        except Exception:  # noqa: BLE001 -- raised further it would end the reading of the connection
            _log.exception("a message to %s could not be taken in", subject.decode(errors="replace"))

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._receivers.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    async def _process_op_err(self, e: Exception) -> None:
        """Begin to reconnect; nats-py tells of it only after it closed the old connection, which can take its time."""
        if not (self.is_closed or self.is_reconnecting):
            self._broken(str(e))
        await super()._process_op_err(e)

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if not self.is_closed:
            self._broken(str(self.last_error or "it was closed"))
        await super()._close(status, do_cbs)

    async def _connect_to_server(self, s: Srv) -> None:
        """Dial; nats-py would leave open the connection of an attempt before this one that broke at its greeting."""
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]  # nats-py annotates only some methods
        await super()._connect_to_server(s)

    @property
    def in_cluster(self) -> bool:
        """Whether the server greeted as a node of a cluster."""
        return bool(self._server_info.get("cluster"))

    async def ping(self, pong: "asyncio.Future[Any]") -> None:
        """Send a PING whose PONG sets the result of ``pong``."""
        await self._send_ping(pong)

    def forget_unsent(self) -> None:
        """Drop what would be sent after a reconnect: with ``pending_size=0`` that is what was not flushed yet."""
        self._pending.clear()
        self._pending_data_size = 0

    async def _send_ping(self, future: "asyncio.Future[Any] | None" = None) -> None:
        """Send a PING behind what was sent before; nats-py lets it overtake, so that its PONG would prove nothing."""
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        await self._send_command(_PING)
        await self._flush_pending()

    async def _process_pong(self) -> None:
        """Take a PONG; one that nobody waits for any more would end nats-py's reading loop, and so the connection."""
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()


async def _nobody(_message: object) -> None:
    """Stand in for a receiver until there is one: nothing comes before the broker knows of the subscription."""


def _command(subject: str, body: bytes, reply: str, headers: Mapping[str, str] | None) -> bytes:
    to = f"{subject} {reply}" if reply else subject
    if not headers:
        return b"PUB %b %d\r\n%b\r\n" % (to.encode(), len(body), body)
    block = _block(headers)
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (to.encode(), len(block), len(block) + len(body), block, body)


def _block(headers: Mapping[str, str]) -> bytes:
    """Return the headers as they are sent; a line end in one would begin another."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not len(headers) == lines.count("\n") == lines.count("\r"):
        lines = "".join([f"{_one_line(name)}: {_one_line(value)}\r\n" for name, value in headers.items()])
    return f"{_GREETING}\r\n{lines}\r\n".encode()


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def _parsed(block: bytes) -> dict[str, str]:
    """Return the headers of a message, and its status, where it has one, as ``Status`` and ``Description``."""
    greeting, *lines = block.decode("utf-8", "replace").split("\r\n")
    found: dict[str, str] = {}
    if status := greeting.removeprefix(_GREETING).strip():
        found[_STATUS], _, found[_DESCRIPTION] = status.partition(" ")
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            found[name.strip()] = value.strip()
    return found
