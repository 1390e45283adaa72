"""Twelve machines on a network of their own work on one job, and one of them is cut off in the middle of it."""

import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from tests.chaos.network import Network, why_not
from tests.cli import environment, read_log
from tests.oracle import account_of
from tests.teams import digest_team, summary, write_items, write_team
from tests.waiting import eventually

from interlock.protocol.messages import JobClosed, JobSubmitted, TaskVerdict
from interlock.protocol.state import Entry
from interlock.runtime._nats_server import find_binary
from interlock.runtime.address import BrokerAddress
from interlock.runtime.brokerconfig import ServerSettings, broker_config
from interlock.runtime.brokernodes import Member, Node
from interlock.runtime.credentials import Party, parties_of
from interlock.runtime.keyring import Keyring
from interlock.runtime.place import NAMESPACE
from interlock.runtime.teamfile import load_team
from interlock.testing import Answer, Call, ScriptedServer

_LACK = why_not()

pytestmark = [pytest.mark.chaos, pytest.mark.skipif(_LACK is not None, reason=f"no networks of their own: {_LACK}")]

_ITEMS = 200
_BROKERS = ("broker1", "broker2", "broker3")
_MANAGERS = ("manager1", "manager2")
_WORKERS = ("worker1", "worker2", "worker3", "worker4")
_VERIFIERS = ("verifier1", "verifier2")
_DESK = "desk"
"""Where the person and the model are."""

_HOSTS = (*_BROKERS, *_MANAGERS, *_WORKERS, *_VERIFIERS, _DESK)
_ROLES = {
    **dict.fromkeys(_MANAGERS, "manager"),
    **dict.fromkeys(_WORKERS, "reader@digest"),
    **dict.fromkeys(_VERIFIERS, "checker@digest"),
}
_MODEL_PORT = 8000


@dataclass
class _Machines:
    """Everything that runs: a cluster of brokers, managers, workers, verifiers."""

    network: Network
    folder: Path
    team: Path
    broker: BrokerAddress
    """As this process reaches it."""

    @property
    def nats(self) -> str:
        """The cluster as the machines reach it."""
        return ",".join(f"nats://{self.network.address(name)}:4222" for name in _BROKERS)

    @property
    def env(self) -> dict[str, str]:
        """What commands on the machines are told."""
        model = f"http://{self.network.address(_DESK)}:{_MODEL_PORT}/v1"
        given = {"INTERLOCK_MODEL_URL": model, "INTERLOCK_NATS": self.nats}
        return environment({**given, "INTERLOCK_NATS_KEYS": str(self.folder / "keys")})

    async def run(self, name: str, *words: str) -> str:
        """Run a command of Interlock on a machine to its end and return what it printed."""
        command = [*self.network.on(name), sys.executable, "-m", "interlock.runtime.cli", *words]
        done = await anyio.run_process(command, env=self.env, cwd=self.folder, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    async def up(self) -> None:
        """Wait until each of them says that it is up.

        :raises AssertionError: one is not; with what it and the brokers said instead
        """
        try:
            await eventually(lambda: all(self._is_up(name) for name in _ROLES), 120)
        except TimeoutError:
            late = [name for name in _ROLES if not self._is_up(name)]
            said = "\n".join(f"== {name}\n{self.said(name)[-4000:]}" for name in (*late, *_BROKERS))
            pytest.fail(f"{', '.join(late)} did not come up\n{said}")

    def _is_up(self, name: str) -> bool:
        return f"node {name} is up" in self.said(name)

    def said(self, name: str) -> str:
        """Return what a machine wrote."""
        return (self.folder / f"{name}.log").read_text()


@asynccontextmanager
async def _machines(folder: Path, model: ScriptedServer) -> AsyncIterator[_Machines]:
    """Have all of them up and ready."""
    write_items(folder, _ITEMS)
    team = write_team(folder, digest_team(parallel=16))
    sockets = folder / "s"
    sockets.mkdir()
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(Network.of(_HOSTS, sockets))
        await stack.enter_async_context(network.serving(_DESK, _MODEL_PORT, _port(model.url)))
        keyring = await _brokers(network, folder, team)
        ports = [
            await stack.enter_async_context(network.reaching(_DESK, network.address(name), 4222)) for name in _BROKERS
        ]
        login = keyring.login(",".join(f"nats://127.0.0.1:{port}" for port in ports), Party("operator"))
        machines = _Machines(network, folder, team, login)
        for name, role in _ROLES.items():
            words = ["worker", str(team), "--role", role, "--name", name, "--workers", "1", "--drain", "5"]
            command = [sys.executable, "-m", "interlock.runtime.cli", *words]
            await network.start(name, command, folder / f"{name}.log", machines.env)
        await machines.up()
        yield machines


async def _brokers(network: Network, folder: Path, team: Path) -> Keyring:
    keyring = Keyring(folder / "keys")
    keyring.make(parties_of([load_team(team).team]))
    nodes = [Node(name, network.address(name)) for name in _BROKERS]
    for node in nodes:
        home = folder / node.name
        home.mkdir()
        config = home / "nats-server.conf"
        settings = broker_config(
            keyring.public(), NAMESPACE, home / "store", ServerSettings(), Member(node, nodes, "secret")
        )
        config.write_text(json.dumps(settings))
        await network.start(node.name, [str(find_binary()), "--config", str(config)], folder / f"{node.name}.log")
    return keyring


def _port(url: str) -> int:
    return int(url.removesuffix("/v1").rpartition(":")[2])


def _slowly(call: Call) -> Answer:
    return summary(call, delay=1.0)


@pytest.mark.timeout(420)
@pytest.mark.parametrize("cut", ["worker1", "verifier1", "manager1", "broker1"])
async def test_a_machine_that_is_cut_off_loses_nothing(tmp_path: Path, cut: str) -> None:
    """The job ends with one answer to every item while one machine is cut off, and its return changes nothing."""
    async with ScriptedServer(_slowly) as model, _machines(tmp_path, model) as machines:
        await machines.run(_DESK, "submit", str(machines.team), "go", "--id", "j")
        await model.until(lambda seen: len(seen.calls) >= _ITEMS // 4)
        await machines.network.cut(cut)
        began = time.monotonic()
        report = json.loads(await machines.run(_DESK, "watch", "j", "--json"))
        ended = time.monotonic() - began
        entries = await read_log(machines.broker)
        await machines.network.heal(cut)
        await anyio.sleep(8)  # whatever the machine still wants to say, it says now
        later = await read_log(machines.broker)
    print(f"{cut} cut off: the job ended {ended:.0f} s later; {_standstill(entries):.1f} s without a verdict at most")  # noqa: T201
    assert report["status"] == "succeeded"
    outputs = [task["output"] for task in report["tasks"] if task["step"] == "summarise"]
    assert outputs == [{"summary": f"item {n}"} for n in range(_ITEMS)]
    account = account_of(entries, "summarise")
    assert len(account.accepted) == _ITEMS
    assert not account.doubled
    assert len([entry for entry in entries if isinstance(entry.message, JobSubmitted | JobClosed)]) == 2
    assert [entry.seq for entry in later] == [entry.seq for entry in entries]


def _standstill(entries: list[Entry]) -> float:
    """Return the longest time between two verdicts."""
    times = [entry.message.at for entry in entries if isinstance(entry.message, TaskVerdict)]
    return max((after - before).total_seconds() for before, after in pairwise(times))
