"""``interlock broker-config`` for clusters: what it writes is valid, runs, and serves jobs while nodes die."""

import json
import re
import stat
import subprocess
from pathlib import Path

import pytest
import trustme
from tests.cli import interlock, read_log, running
from tests.cluster import NAMES, Cluster, free_ports
from tests.oracle import account_of
from tests.teams import digest_team, summary, write_items, write_team

from interlock.runtime._nats_server import find_binary
from interlock.runtime.brokernodes import Node, NodeInvalid, parse_node
from interlock.runtime.keyring import reach
from interlock.testing import ScriptedServer

pytestmark = pytest.mark.timeout(150)


def _nodes(host: str) -> list[str]:
    """Return the arguments that name three nodes on free ports of this machine."""
    ports = free_ports(2 * len(NAMES))
    return [
        word
        for at, name in enumerate(NAMES)
        for word in ("--node", f"{name}={host}:{ports[2 * at]}:{ports[2 * at + 1]}")
    ]


def _certificates(folder: Path) -> list[str]:
    ca = trustme.CA()
    leaf = ca.issue_cert("localhost")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return ["--tls-cert", "cert.pem", "--tls-key", "key.pem", "--tls-ca", "ca.pem"]


def _urls(told: str) -> str:
    found = re.search(r"--nats (\S+)", told)
    assert found is not None
    return found[1]


def _read(config: Path) -> dict[str, object]:
    text = config.read_text()
    read: dict[str, object] = json.loads("".join(line for line in text.splitlines() if not line.startswith("#")))
    return read


async def test_a_job_runs_on_a_cluster_over_tls_while_a_node_dies(tmp_path: Path) -> None:
    """Three nodes that prove who they are to each other serve a job to its end, by roles' keys, one of them killed."""
    write_items(tmp_path, 40)
    team = str(write_team(tmp_path, digest_team(parallel=4)))
    options = [*_nodes("localhost"), *_certificates(tmp_path), "--durable", "--max-store", "1G"]
    wrote = await interlock("broker-config", team, "--out", "made", *options, cwd=tmp_path)
    assert wrote.status == 0, wrote.err
    keys, url = tmp_path / "made" / "keys", _urls(wrote.out)
    configs = {name: tmp_path / "made" / name / "nats-server.conf" for name in NAMES}
    async with (
        Cluster.of(reach(url, keys, None), configs) as cluster,
        ScriptedServer(lambda call: summary(call, delay=0.1)) as model,
    ):
        place = ["--nats", url, "--nats-keys", str(keys)]
        env = {"INTERLOCK_MODEL_URL": model.url}
        async with running("run", team, "go", "--json", *place, env=env, cwd=tmp_path) as command:
            await model.until(lambda seen: len(seen.calls) >= 10)
            await cluster.kill(await cluster.log_leader("main"))
            done = await command.finish()
        assert done.status == 0, done.err
        log = await read_log(cluster.address)
    account = account_of(log, "summarise")
    assert len(account.accepted) == 40
    assert not account.doubled


async def test_each_node_has_a_configuration_that_is_valid(tmp_path: Path) -> None:
    """nats-server finds each of them valid; they differ in the node, share the secret, and nobody else reads it."""
    team = str(write_team(tmp_path, digest_team()))
    options = [*_nodes("127.0.0.1"), "--domain", "hub", "--store", "/data/jetstream"]
    wrote = await interlock("broker-config", team, "--out", "made", *options, cwd=tmp_path)
    assert wrote.status == 0, wrote.err
    secret = (tmp_path / "made" / "routes.secret").read_text().strip()
    assert secret not in wrote.out + wrote.err
    for name in NAMES:
        config = tmp_path / "made" / name / "nats-server.conf"
        checked = subprocess.run(  # noqa: ASYNC221 -- it takes milliseconds
            [str(find_binary()), "-t", "-c", str(config)], capture_output=True, text=True, check=False, timeout=30
        )
        assert "is valid" in checked.stderr, checked.stderr
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        read = _read(config)
        assert read["server_name"] == name
        assert read["host"] == "127.0.0.1"
        assert read["jetstream"] == {"store_dir": "/data/jetstream", "sync_interval": "2m", "domain": "hub"}
        assert config.read_text().count(secret) == 4
    again = await interlock("broker-config", team, "--out", "made", *options, cwd=tmp_path)
    assert again.status == 0, again.err
    assert (tmp_path / "made" / "routes.secret").read_text().strip() == secret


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a=127.0.0.1"], "loses its log with one node"),
        (["a=127.0.0.1", "a=127.0.0.2", "b=127.0.0.3"], "two nodes have the same name"),
        (["a=127.0.0.1", "b=127.0.0.1", "c=127.0.0.3"], "two nodes have the same host and port"),
        (["a=10.0.0.1", "b=10.0.0.2", "c=10.0.0.3"], "give --tls-cert, --tls-key and --tls-ca"),
        (["a", "b=127.0.0.2", "c=127.0.0.3"], "NAME=HOST"),
    ],
    ids=["one", "same name", "same place", "in the open", "no node"],
)
async def test_nodes_that_do_not_go_together_are_told(tmp_path: Path, arguments: list[str], told: str) -> None:
    """The command ends with 2, says what would be right, and writes nothing."""
    team = str(write_team(tmp_path, digest_team()))
    named = [word for one in arguments for word in ("--node", one)]
    done = await interlock("broker-config", team, *named, cwd=tmp_path)
    assert done.status == 2, done.err
    assert told in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "broker").exists()


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("a=nats-0.nats", Node("a", "nats-0.nats")),
        ("a=10.1.2.3:5222:7222", Node("a", "10.1.2.3", 5222, 7222)),
        ("n-1=[fd00::1]:5222", Node("n-1", "[fd00::1]", 5222)),
    ],
)
def test_nodes_are_read(text: str, node: Node) -> None:
    """A name, a host, and ports where they are not the usual ones."""
    assert parse_node(text) == node


@pytest.mark.parametrize("text", ["", "a=", "=h", "a=h:0", "a=h:70000", "a=h:6222", "a b=h", "a=h/x", "a=h:1:2:3"])
def test_what_is_no_node_is_refused(text: str) -> None:
    """Anything else is told with what would be right."""
    with pytest.raises(NodeInvalid, match="NAME=HOST"):
        parse_node(text)
