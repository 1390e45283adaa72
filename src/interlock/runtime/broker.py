"""The embedded broker: a nats-server of our own on the loopback interface, its store and its keys in a folder.

Two profiles. The fast one leaves it to the operating system when bytes reach the disk: what was acknowledged survives
``kill -9`` of every process, not a power cut of the last moments. The durable one syncs before it acknowledges.
"""

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio

from interlock.runtime._nats_server import NatsServer, ServerOptions, find_binary, start
from interlock.runtime.address import BrokerAddress
from interlock.runtime.broker_errors import BrokerError, StateFolderInUse, StateFolderUnusable
from interlock.runtime.credentials import Party, accounts
from interlock.runtime.keyring import Keyring, write_private

__all__ = ["embedded_broker", "running_broker"]

_log = logging.getLogger(__name__)

_DYING_SECONDS = 3.0
_POLL_SECONDS = 0.02
_RESTART_SECONDS = (0.0, 0.2, 1.0, 5.0)
"""How long to wait before each attempt to start again a server that died."""


@asynccontextmanager
async def embedded_broker(
    state: Path,
    *,
    parties: Iterable[Party] = (),
    ns: str = "main",
    durable: bool = False,
    port: int | None = None,
    binary: Path | None = None,
) -> AsyncIterator[BrokerAddress]:
    """Run a nats-server with its store in ``state`` and yield its operator's login; it is stopped on leaving.

    It listens on 127.0.0.1 only, on ``port`` or any free one, stands in a session of its own and dies with this
    process. A server that dies by itself is started again with the same port, keys and store. It lets in whoever has
    a key: its operator, ``parties``, and those of earlier times, each only to what it may do in the namespace ``ns``.
    The folder, made if need be, also keeps the keys (``keys``), the log (``nats-server.log``) and, while the server
    runs, its address for ``running_broker``.

    :raises StateFolderInUse: another broker works on the folder
    :raises StateFolderUnusable: the folder cannot be made, read or written
    :raises KeysUnusable: the same of its keys
    :raises BrokerBinaryMissing: there is no nats-server to start
    :raises BrokerTooOld: it is older than 2.12
    :raises BrokerStartFailed: it did not come up; the end of its log is in the message
    """
    found = find_binary(binary)
    state = Path(os.path.abspath(state))  # noqa: ASYNC240, PTH100 - looks at no disk: links stay as they are
    async with _holding(state) as lock:
        keys = _keyring(state)
        keys.make([Party("operator"), *parties])
        operator = keys.login("nats://127.0.0.1", Party("operator"))
        wanted = -1 if port is None else port
        options = ServerOptions(found, state, accounts(keys.public(), ns), operator, durable, wanted, (lock,))
        server = await start(options)
        keeper = asyncio.create_task(_keep_alive(server), name="broker keeper")
        try:
            write_private(state / "broker.json", json.dumps({"url": server.address.url, "pid": os.getpid()}))
            yield server.address
        finally:
            (state / "broker.json").unlink(missing_ok=True)
            await _stop(keeper, server)


def running_broker(state: Path) -> BrokerAddress | None:
    """Return the operator's login to the broker that another process runs on ``state``, None if there is none.

    :raises KeyMissing: its keys were taken away
    :raises KeysUnusable: its keys cannot be read
    """
    state = Path(os.path.abspath(state))  # noqa: PTH100 - links stay as they are
    try:
        written = json.loads((state / "broker.json").read_text())
        url = written["url"] if _lives(written["pid"]) else None
    except (OSError, ValueError, KeyError, TypeError):  # none, or being written right now
        return None
    return None if url is None else _keyring(state).login(url, Party("operator"))


def _keyring(state: Path) -> Keyring:
    return Keyring(state / "keys")


async def _stop(keeper: "asyncio.Task[None]", server: NatsServer) -> None:
    keeper.cancel()
    with anyio.CancelScope(shield=True):
        await asyncio.wait([keeper])
        await server.stop()


async def _keep_alive(server: NatsServer) -> None:
    """Start the server again whenever it dies by itself, on the same port; give up where it will not come up."""
    while True:
        status = await server.process.wait()
        _log.warning("the broker (process %d) ended with status %s; starting it again", server.process.pid, status)
        for seconds in _RESTART_SECONDS:
            await anyio.sleep(seconds)
            try:
                server.process = (await start(replace(server.options, port=server.port))).process
                break
            except (BrokerError, OSError) as error:
                _log.error("the broker could not be started again: %s", error)
        else:
            return


@asynccontextmanager
async def _holding(state: Path) -> AsyncIterator[int]:
    """Hold the folder's lock; its descriptor is handed to the server, so that it lasts as long as either lives."""
    descriptor = _open_lock(state)
    try:
        await _lock(state, descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _open_lock(state: Path) -> int:
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StateFolderUnusable(state, error.strerror or str(error)) from None


async def _lock(state: Path, descriptor: int) -> None:
    """Take the lock. Where its holder is dead its server is dying too, and is waited for."""
    with anyio.move_on_after(_DYING_SECONDS):
        while not _try_lock(descriptor):
            if (holder := _holder(descriptor)) is None or _lives(holder):
                raise StateFolderInUse(state, holder)
            await anyio.sleep(_POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return
    raise StateFolderInUse(state, _holder(descriptor))


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> int | None:
    """Return the process that took the lock, None where it has not written itself down yet."""
    written = os.pread(descriptor, 20, 0).decode().strip()
    return int(written) if written.isdecimal() else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to somebody else
        pass
    return True
