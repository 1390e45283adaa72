"""Hosts of their own: network namespaces on one switch, made without a privilege, gone with the processes in them.

All of them belong to one user namespace, in which this process may lay cables. Nothing of it is seen outside, so hosts
are reached through carriers: small processes inside that hand bytes on over sockets of the file system.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import AnyByteStream, Process, SocketAttribute
from tests.waiting import eventually

from interlock.backends import _tether

__all__ = ["Network", "why_not"]

_CARRIER = Path(__file__).with_name("carrier.py")


def why_not() -> str | None:
    """Return what this machine lacks for hosts of their own, None where it has all."""
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            return f"there is no command {tool}"
    made = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "ip", "link", "add", "x", "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return made.stderr.strip() or None if made.returncode else None


@dataclass
class Network:
    """A switch and the hosts at it."""

    folder: Path
    """For sockets: its path is short."""
    _switch: int = 0
    _hosts: dict[str, int] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @classmethod
    @asynccontextmanager
    async def of(cls, names: Sequence[str], folder: Path) -> "AsyncIterator[Network]":
        """Have a host for each name while the block runs."""
        network = cls(folder)
        async with network._stack:
            made = ["unshare", "--user", "--map-root-user", "--net"]
            network._switch = await network._held(made)
            await network._do("ip link add name switch type bridge && ip link set switch up")
            for name in names:
                await network._add(name)
            yield network

    def address(self, name: str) -> str:
        """Return the address of a host."""
        return f"10.77.0.{10 + list(self._hosts).index(name)}"

    def on(self, name: str) -> list[str]:
        """Return what a command begins with that runs on a host."""
        target = f"--target={self._hosts[name]}"
        return ["nsenter", target, "--user", "--net", "--preserve-credentials", "--"]

    async def cut(self, name: str) -> None:
        """Take the host's cable out of the switch: nothing gets through, and nobody is told."""
        await self._do(f"ip link set port-{name} nomaster")

    async def heal(self, name: str) -> None:
        """Put it back in."""
        await self._do(f"ip link set port-{name} master switch")

    async def start(self, name: str, command: Sequence[str], log: Path, env: dict[str, str] | None = None) -> Process:
        """Start a command on a host, with its output in ``log``; it dies with this process, and with the network."""
        with log.open("ab") as file:
            process = await anyio.open_process(
                [*self.on(name), *_tethered(), *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=env,
                start_new_session=True,
            )
        self._stack.push_async_callback(_end, process)
        return process

    @asynccontextmanager
    async def serving(self, name: str, port: int, target: int) -> AsyncIterator[None]:
        """Have what connects to a host's port reach a port of this process's own network."""
        socket = self.folder / f"out-{name}-{port}"
        async with await anyio.create_unix_listener(socket) as listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, lambda inside: _carry(inside, target))
            await self._carrier(name, "tcp", f"{port}", str(socket))
            yield
            group.cancel_scope.cancel()

    @asynccontextmanager
    async def reaching(self, name: str, host: str, port: int) -> AsyncIterator[int]:
        """Yield a port of this process's own network whose connections go from a host to ``host`` and ``port``."""
        socket = self.folder / f"in-{name}-{port}"
        await self._carrier(name, "unix", str(socket), f"{host}:{port}")
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, lambda outside: _carry(outside, socket))
            yield listener.extra(SocketAttribute.local_port)  # noqa: S610 -- anyio's, not Django's
            group.cancel_scope.cancel()

    async def _carrier(self, name: str, kind: str, here: str, there: str) -> None:
        ready = self.folder / f"ready-{name}-{kind}-{len(list(self.folder.iterdir()))}"
        command = [sys.executable, "-I", "-S", str(_CARRIER), kind, here, there, str(ready)]
        await self.start(name, command, self.folder / "carriers.log")
        await eventually(ready.exists, 30)

    async def _add(self, name: str) -> None:
        inside = ["nsenter", f"--target={self._switch}", "--user", "--net", "--preserve-credentials", "--"]
        self._hosts[name] = pid = await self._held([*inside, "unshare", "--net"])
        await self._do(f"ip link add port-{name} type veth peer name eth0 netns {pid}")
        await self._do(f"ip link set port-{name} master switch up")
        up = f"ip link set lo up && ip addr add {self.address(name)}/24 dev eth0 && ip link set eth0 up"
        await anyio.run_process([*self.on(name), "sh", "-c", up])

    async def _held(self, command: Sequence[str]) -> int:
        """Start a process that does nothing but hold a namespace; return its id."""
        process = await anyio.open_process(
            [*command, *_tethered(), "sh", "-c", "echo here; exec sleep infinity"], stdin=subprocess.DEVNULL
        )
        self._stack.push_async_callback(_end, process)
        assert process.stdout is not None
        assert await process.stdout.receive() == b"here\n"
        return process.pid

    async def _do(self, command: str) -> None:
        inside = ["nsenter", f"--target={self._switch}", "--user", "--net", "--preserve-credentials", "--"]
        await anyio.run_process([*inside, "sh", "-c", command])


def _tethered() -> list[str]:
    return [sys.executable, "-I", "-S", str(_tether.__file__), str(os.getpid())]


async def _end(process: Process) -> None:
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        await process.aclose()


async def _carry(here: AnyByteStream, target: int | Path) -> None:
    with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        there: AnyByteStream = (
            await anyio.connect_tcp("127.0.0.1", target)
            if isinstance(target, int)
            else await anyio.connect_unix(target)
        )
        async with here, there, anyio.create_task_group() as group:
            group.start_soon(_pump, here, there)
            group.start_soon(_pump, there, here)


async def _pump(source: AnyByteStream, sink: AnyByteStream) -> None:
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        while True:
            await sink.send(await source.receive())
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        await sink.aclose()
