"""``interlock broker-config``: what it writes runs, over TLS too; what does not fit is told."""

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from tests.cli import interlock
from tests.security.broker.servers import served
from tests.teams import digest_team, summary, write_items, write_team

from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BrokerRefused, BrokerUnreachable
from interlock.runtime.credentials import STREAMS, Party
from interlock.runtime.keyring import Keyring, login_of, reach
from interlock.testing import ScriptedServer

_SEEDS = {"operator.nk", "manager.nk", "worker-reader@digest.nk", "verifier-checker@digest.nk"}


def _certificates(folder: Path) -> list[str]:
    """Make a CA and a certificate of its for localhost; return the arguments that name them."""
    ca = trustme.CA()
    leaf = ca.issue_cert("localhost")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return ["--tls-cert", "cert.pem", "--tls-key", "key.pem", "--tls-ca", "ca.pem"]


async def test_a_job_runs_over_tls_with_the_keys_of_its_roles(tmp_path: Path) -> None:
    """A server with the generated configuration serves a real job, every process with its own key, over TLS alone."""
    write_items(tmp_path, 5)
    team = str(write_team(tmp_path, digest_team(parallel=4)))
    wrote = await interlock("broker-config", team, "--out", "made", *_certificates(tmp_path), cwd=tmp_path)
    assert wrote.status == 0, wrote.err
    keys = tmp_path / "made" / "keys"
    assert {path.name for path in keys.glob("*.nk")} == _SEEDS
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in keys.glob("*.nk"))
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    config = (tmp_path / "made" / "nats-server.conf").read_text()
    assert not [path for path in keys.glob("*.nk") if path.read_text().strip() in config + wrote.out + wrote.err]
    async with (
        served(tmp_path / "made" / "nats-server.conf") as server,
        ScriptedServer(summary) as model,
    ):
        url = f"tls://localhost:{server.port}"
        place = ["--nats", url, "--nats-keys", str(keys)]
        env = {"INTERLOCK_MODEL_URL": model.url}
        done = await interlock("run", team, "go", "--json", *place, env=env, cwd=tmp_path)
        assert done.status == 0, done.err
        assert len([task for task in done.report["tasks"] if task["status"] == "accepted"]) == 6
        killed = await interlock("kill", "--team", "digest", *place, cwd=tmp_path)
        assert killed.status == 0, killed.err
        distrusting = BrokerAddress(url, seed=Keyring(keys).seed(Party("operator")))
        with pytest.raises(BrokerUnreachable):
            async with Bus.connect(distrusting, "main", "who trusts the system's certificates"):
                pass
        plain = reach(f"nats://localhost:{server.port}", keys / "operator.nk", None)
        async with Bus.connect(plain, "main", "who was told to trust ca.pem") as bus:
            assert await bus.jobs() == [done.report["job_id"]]
    assert "Violation" not in server.log.read_text()


async def test_a_team_is_added_while_the_server_runs(tmp_path: Path) -> None:
    """Running the command again keeps every key, adds the new roles', and after two reloads these can do their part."""
    first = str(write_team(tmp_path, digest_team()))
    (tmp_path / "second").mkdir()
    second = str(write_team(tmp_path / "second", {**digest_team(), "team": "other"}))
    await interlock("broker-config", first, "--out", "made", cwd=tmp_path)
    keyring = Keyring(tmp_path / "made" / "keys")
    before = {party: keyring.seed(party) for party in keyring.parties()}
    async with served(tmp_path / "made" / "nats-server.conf") as server:
        operator = keyring.login(f"nats://127.0.0.1:{server.port}", Party("operator"))
        async with Bus.connect(operator, "main", "who stays") as bus:
            added = await interlock("broker-config", second, "--out", "made", cwd=tmp_path)
            assert "worker-reader@other (new)" in added.out
            assert "worker-reader@digest\n" in added.out
            new = login_of(operator, Party("worker", "reader@other"), 0)
            with pytest.raises(BrokerRefused):
                async with Bus.connect(new, "main", "too early"):
                    pass
            await server.reload()
            await server.reload()  # the first one makes new accounts, the second one connects them
            for role in ("reader@other", "reader@digest"):
                login = login_of(operator, Party("worker", role), 0)
                async with Bus.connect(login, "main", role) as worker:
                    assert await worker.orders.standing() == {}
            assert await bus.jobs() == []
    assert {party: keyring.seed(party) for party in before} == before


async def test_keys_are_made_anew_only_by_force(tmp_path: Path) -> None:
    """``--force`` changes every key that there is, also of teams that were not named."""
    team = str(write_team(tmp_path, digest_team()))
    await interlock("broker-config", team, "--out", "made", cwd=tmp_path)
    keyring = Keyring(tmp_path / "made" / "keys")
    keyring.make([Party("worker", "a@b")])
    before = keyring.public()
    await interlock("broker-config", team, "--out", "made", cwd=tmp_path)
    assert keyring.public() == before
    forced = await interlock("broker-config", team, "--out", "made", "--force", cwd=tmp_path)
    assert forced.status == 0, forced.err
    after = keyring.public()
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    text = (tmp_path / "made" / "nats-server.conf").read_text()
    config = json.loads("".join(line for line in text.splitlines() if not line.startswith("#")))
    assert config["accounts"][STREAMS]["users"] == [{"nkey": after[Party("operator")]}]
    assert config["host"] == "127.0.0.1", "without TLS it listens on this machine alone"


def _foreign(folder: Path) -> list[str]:
    (folder / "broker").mkdir()
    (folder / "broker" / "nats-server.conf").write_text("port: 4222\n")
    return []


def _two_pairs(folder: Path) -> list[str]:
    _certificates(folder)
    (folder / "key.pem").rename(folder / "other.pem")
    _certificates(folder)
    return ["--tls-cert", "cert.pem", "--tls-key", "other.pem"]


def _no_key(folder: Path) -> list[str]:
    (folder / "broker" / "keys").mkdir(parents=True)
    (folder / "broker" / "keys" / "operator.nk").write_text("SUANOKEY\n")
    return []


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (lambda _: ["--tls-cert", "cert.pem"], "give --tls-cert and --tls-key together"),
        (lambda _: ["--tls-cert", "no.pem", "--tls-key", "no.pem"], "name the PEM file of the certificate"),
        (_two_pairs, "are no certificate with its key"),
        (lambda _: ["--namespace", "A.B"], "no name of a namespace"),
        (_foreign, "overwrite it with --force"),
        (_no_key, "cannot be used"),
        (lambda folder: [str(folder / "nothing.yaml")], "nothing.yaml"),
    ],
    ids=["half of TLS", "no file", "two pairs", "a namespace", "somebody's file", "no key", "no team"],
)
async def test_what_does_not_fit_is_told(tmp_path: Path, prepare: Callable[[Path], list[str]], told: str) -> None:
    """The command ends with 2 and a line that says what would be right, and leaves what was there."""
    team = str(write_team(tmp_path, digest_team()))
    arguments = prepare(tmp_path)
    before = _contents(tmp_path)
    done = await interlock("broker-config", team, *arguments, cwd=tmp_path)
    assert done.status == 2, done.err
    assert told in done.err
    assert "Traceback" not in done.err
    assert _contents(tmp_path) == before


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_keys_that_are_missing_are_told_before_a_job_begins(tmp_path: Path) -> None:
    """A team that the broker does not know, and a path without keys: exit 2, and no job is left in the log."""
    known = write_team(tmp_path, digest_team())
    (tmp_path / "second").mkdir()
    write_items(tmp_path / "second", 1)
    unknown = str(write_team(tmp_path / "second", {**digest_team(), "team": "other"}))
    await interlock("broker-config", str(known), cwd=tmp_path)
    async with served(tmp_path / "broker" / "nats-server.conf") as server, ScriptedServer(summary) as model:
        env = {"INTERLOCK_MODEL_URL": model.url, "INTERLOCK_NATS": f"nats://127.0.0.1:{server.port}"}
        keys = env | {"INTERLOCK_NATS_KEYS": "broker/keys"}
        refused = await interlock("run", unknown, "go", env=keys, cwd=tmp_path)
        assert refused.status == 2, refused.err
        assert "has no key for" in refused.err
        assert "interlock broker-config" in refused.err
        nowhere = await interlock("jobs", "--nats-keys", "nowhere", env=env, cwd=tmp_path)
        assert nowhere.status == 2
        listed = await interlock("jobs", "--json", env=keys, cwd=tmp_path)
        assert json.loads(listed.out) == []
