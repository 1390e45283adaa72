"""A NATS cluster of three nodes on the loopback interface whose nodes a test may kill and bring back."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process

from interlock.backends import _tether
from interlock.runtime._jetstream import api
from interlock.runtime._names import log_stream
from interlock.runtime._nats_server import find_binary
from interlock.runtime._wire import Wire
from interlock.runtime.address import BrokerAddress
from interlock.runtime.brokerconfig import ServerSettings, broker_config
from interlock.runtime.brokernodes import Member, Node
from interlock.runtime.bus_errors import BusError
from interlock.runtime.credentials import Party
from interlock.runtime.keyring import Keyring

__all__ = ["NAMES", "Cluster", "free_ports"]

NAMES = ("a", "b", "c")
_READY_SECONDS = 40


@dataclass
class _Server:
    """One node: its configuration, and its process while it runs."""

    config: Path
    process: Process | None = None


@dataclass
class Cluster:
    """Three servers with their stores; ``address`` names all of them."""

    address: BrokerAddress
    servers: Mapping[str, _Server]

    @classmethod
    @asynccontextmanager
    async def run(
        cls, folder: Path, *, ns: str = "main", parties: Iterable[Party] = (), durable: bool = False
    ) -> "AsyncIterator[Cluster]":
        """Run one with its stores and keys in ``folder``, ready to make streams of three replicas."""
        keyring = Keyring(folder / "keys")
        keyring.make([Party("operator"), *parties])
        ports = free_ports(2 * len(NAMES))
        nodes = [Node(name, "127.0.0.1", *ports[2 * at : 2 * at + 2]) for at, name in enumerate(NAMES)]
        servers = {}
        for node in nodes:
            home = folder / node.name
            home.mkdir()
            member = Member(node, nodes, "secret")
            config = broker_config(keyring.public(), ns, home / "store", ServerSettings(durable=durable), member)
            (home / "nats-server.conf").write_text(json.dumps(config))
            servers[node.name] = home / "nats-server.conf"
        url = ",".join(f"nats://127.0.0.1:{node.port}" for node in nodes)
        async with cls.of(keyring.login(url, Party("operator")), servers) as cluster:
            yield cluster

    @classmethod
    @asynccontextmanager
    async def of(cls, address: BrokerAddress, configs: Mapping[str, Path]) -> "AsyncIterator[Cluster]":
        """Run servers with these configurations; ``address`` names them in the same order, for an operator."""
        cluster = cls(address, {name: _Server(config) for name, config in configs.items()})
        try:
            for name in configs:
                await cluster.start(name)
            await cluster.ready()
            yield cluster
        finally:
            with anyio.CancelScope(shield=True):
                for name in configs:
                    await cluster.kill(name)

    def only(self, name: str) -> BrokerAddress:
        """Return the address that names one node alone."""
        return replace(self.address, url=dict(zip(self.servers, self.address.servers, strict=True))[name])

    async def start(self, name: str) -> None:
        """Start a node that does not run, or bring it back with its store."""
        server = self.servers[name]
        command = [str(find_binary()), "--config", str(server.config)]
        with server.config.with_name("log").open("ab") as log:
            server.process = await anyio.open_process(
                [sys.executable, "-I", "-S", str(_tether.__file__), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def kill(self, name: str) -> None:
        """``kill -9`` a node, if it runs, and wait until it is gone."""
        server = self.servers[name]
        if server.process is None:
            return
        if server.process.returncode is None:
            os.kill(server.process.pid, signal.SIGKILL)
        await server.process.wait()
        await server.process.aclose()
        server.process = None

    @contextmanager
    def asleep(self, name: str) -> Iterator[None]:
        """Have a node do nothing while the block runs: it is there and says nothing."""
        process = self.servers[name].process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process.pid, signal.SIGCONT)

    async def ready(self) -> None:
        """Wait until the cluster makes streams of three replicas: once all nodes have found each other."""
        await self._until({"name": "PROBE", "subjects": ["probe"], "num_replicas": 3, "storage": "memory"})

    async def leader(self, stream: str) -> str:
        """Return the node that leads a stream, once there is one."""
        with anyio.fail_after(_READY_SECONDS):
            while True:
                if found := (await self.info(stream)).get("cluster", {}).get("leader"):
                    return str(found)
                await anyio.sleep(0.05)

    async def log_leader(self, ns: str) -> str:
        """Return the node that leads the log of a namespace."""
        return await self.leader(log_stream(ns))

    async def info(self, stream: str) -> dict[str, Any]:
        """Return what the cluster says of a stream, once it says something."""
        return await self._ask(f"STREAM.INFO.{stream}", None)

    async def consumer(self, stream: str, name: str) -> dict[str, Any]:
        """Return what the cluster says of a consumer, once it says something."""
        return await self._ask(f"CONSUMER.INFO.{stream}.{name}", None)

    async def whole(self, stream: str) -> None:
        """Wait until every replica of a stream has all that its leader has."""
        with anyio.fail_after(_READY_SECONDS):
            while True:
                replicas = (await self.info(stream)).get("cluster", {}).get("replicas", [])
                if len(replicas) == 2 and all(one["current"] and not one.get("offline") for one in replicas):
                    return
                await anyio.sleep(0.05)

    async def _until(self, config: dict[str, Any]) -> None:
        await self._ask(f"STREAM.CREATE.{config['name']}", config)
        await self.whole(config["name"])
        await self._ask(f"STREAM.DELETE.{config['name']}", None)

    async def _ask(self, call: str, arguments: dict[str, Any] | None) -> dict[str, Any]:
        """Ask again and again until there is an answer that is no error."""
        with anyio.fail_after(_READY_SECONDS):
            while True:
                try:
                    async with Wire.open(self.address, "test", 2) as wire:
                        while True:
                            with anyio.move_on_after(1):
                                return await api(wire, call, arguments)
                except BusError:
                    await anyio.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on right now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
