"""The files in ``deploy/`` for clusters: containers are not started here, what can be checked without them is."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from ruamel.yaml import YAML
from tests.cli import interlock
from tests.teams import digest_team, write_team

from interlock.runtime._nats_server import find_binary
from interlock.runtime.address import BrokerAddress
from interlock.runtime.cli import parser

DEPLOY = Path(__file__).parents[3] / "deploy"
_PINNED = re.compile(r".+:\d+\.\d+\.\d+(-alpine)?")


def _manifests(name: str) -> Iterator[dict[str, Any]]:
    yield from YAML(typ="safe").load_all((DEPLOY / "kubernetes" / name).read_text())


def _one(name: str, kind: str, called: str) -> dict[str, Any]:
    [found] = [one for one in _manifests(name) if (one["kind"], one["metadata"]["name"]) == (kind, called)]
    return found


def _pod(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return found


def _commands() -> list[list[str]]:
    """Return the commands of the page, each in words."""
    text = (DEPLOY / "README.md").read_text()
    lines = re.findall(r"(?m)^    ((?:.*\\\n)*.*)", text)
    return [shlex.split(line.replace("\\\n", " "), comments=True) for line in lines]


def _filled_in(text: str) -> str:
    """Return ``text`` as Compose would pass it on."""
    given = {"INTERLOCK_NATS_PASSWORD": "0123456789", "INTERLOCK_NATS_SYNC": "always"}
    return re.sub(r"\$\{(\w+)[^}]*\}", lambda found: given[found[1]], text)


def _checked(config: Path, given: dict[str, str] | None = None) -> str:
    """Return what nats-server says of a configuration."""
    done = subprocess.run(
        [str(find_binary()), "-t", "-c", str(config)],
        env={**os.environ, **(given or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return done.stderr


def test_the_cluster_of_compose_is_three_nodes_that_know_each_other() -> None:
    """Three pinned images, ports on this machine alone, a volume each, and a configuration that nats-server takes."""
    services = YAML(typ="safe").load((DEPLOY / "compose.cluster.yaml").read_text())["services"]
    assert len(services) == 3
    volumes = set()
    for name, service in services.items():
        assert _PINNED.fullmatch(service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        environ = {key: _filled_in(text) for key, text in service["environment"].items()}
        assert environ["INTERLOCK_NATS_NAME"] == name
        assert re.findall(r"@([\w-]+):6222", environ["INTERLOCK_NATS_ROUTES"]) == list(services)
        [config, data] = service["volumes"]
        volumes.add(data)
        assert "is valid" in _checked(DEPLOY / config.split(":")[0], environ)
    assert len(volumes) == 3


def test_the_servers_of_kubernetes_survive_the_loss_of_one() -> None:
    """Three on three hosts with a disk each; one may be taken away at a time; each is given time to hand over."""
    servers = _one("nats.yaml", "StatefulSet", "nats")
    pod = _pod(servers)
    [container] = pod["containers"]
    assert servers["spec"]["replicas"] == 3
    assert _PINNED.fullmatch(container["image"])
    assert _one("nats.yaml", "PodDisruptionBudget", "nats")["spec"]["maxUnavailable"] == 1
    assert _one("nats.yaml", "Service", servers["spec"]["serviceName"])["spec"]["clusterIP"] == "None"
    [claim] = servers["spec"]["volumeClaimTemplates"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounted) == {claim["metadata"]["name"], *(volume["name"] for volume in pod["volumes"])}
    assert mounted["data"] == "/data"
    [spread] = pod["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["maxSkew"]) == ("kubernetes.io/hostname", 1)
    [*_, asleep] = container["lifecycle"]["preStop"]["exec"]["command"][-1].split()
    assert int(asleep) < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("called", ["interlock-manager", "interlock-worker"])
def test_pods_of_agents_are_given_the_time_to_drain(called: str) -> None:
    """What they are started with is understood, names every server, and ends before Kubernetes loses patience."""
    pod = _pod(_one("interlock.yaml", "Deployment", called))
    [container] = pod["containers"]
    options = parser().parse_args(container["args"])
    assert options.command == "worker"
    assert options.drain + 10 <= pod["terminationGracePeriodSeconds"]
    environ = {one["name"]: one.get("value") for one in container["env"]}
    servers = _one("nats.yaml", "StatefulSet", "nats")["spec"]
    assert BrokerAddress.parse(environ["INTERLOCK_NATS"]).servers == [
        f"tls://nats-{number}.{servers['serviceName']}:4222" for number in range(servers["replicas"])
    ]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {environ["INTERLOCK_NATS_KEYS"], environ["INTERLOCK_STATE"], str(options.teams[0].parent)} <= mounted


async def test_the_page_makes_what_the_manifests_mount(tmp_path: Path) -> None:
    """The commands of the page write valid configurations, and secrets of the names and files that pods look for."""
    write_team(tmp_path, digest_team())
    ca = trustme.CA()
    leaf = ca.issue_cert(*(f"nats-{number}.nats" for number in range(3)))
    ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    leaf.private_key_pem.write_to_path(tmp_path / "tls.key")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    [command] = [words for words in _commands() if words[:2] == ["interlock", "broker-config"] and "--node" in words]
    there = command[command.index("--tls-at") + 1]
    here = [str(tmp_path) if word == there else word for word in command[1:]]
    wrote = await interlock(*["team.yaml" if word.endswith(".yaml") else word for word in here], cwd=tmp_path)
    assert wrote.status == 0, wrote.err
    made = {words[4]: words[5:] for words in _commands() if words[:3] == ["kubectl", "create", "secret"]}
    files = dict(word.removeprefix("--from-file=").split("=") for word in made["nats-config"])
    assert sorted(files) == ["nats-0.conf", "nats-1.conf", "nats-2.conf"]
    for file in files.values():
        assert "is valid" in _checked(tmp_path / file)
    pod = _pod(_one("nats.yaml", "StatefulSet", "nats"))
    assert there in {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    workers = _pod(_one("interlock.yaml", "Deployment", "interlock-worker"))
    secrets = {
        volume["secret"]["secretName"] for one in (pod, workers) for volume in one["volumes"] if "secret" in volume
    }
    assert secrets == set(made)
