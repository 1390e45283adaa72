"""What ``interlock broker-config`` does: the configuration of a nats-server for teams, and a key for each party."""

import argparse
import json
import secrets
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interlock.protocol.team import Team
from interlock.runtime._nats_server import MAX_PAYLOAD
from interlock.runtime.brokernodes import CLIENT_PORT, Member, Node, parse_node
from interlock.runtime.credentials import Party, accounts, parties_of
from interlock.runtime.keyring import Keyring, write_private
from interlock.runtime.show import print_out
from interlock.runtime.teamfile import load_team

__all__ = ["BrokerConfigInvalid", "ServerSettings", "Tls", "Written", "broker_config", "run", "write_broker_config"]

_FIRST_LINE = "# Written by `interlock broker-config`, which writes it anew when it is run again for this folder."
_ABOUT = f"""{_FIRST_LINE}
# It knows every party that has a file in the folder of keys: to shut one out, delete its file and run that again.
# A running server reads this again on SIGHUP; send it twice, since accounts that are new are connected by the second.
# Needs nats-server 2.12 or later.
"""
_CONFIG = "nats-server.conf"
_FEWEST = 3
"""Nodes of a cluster: with fewer, one that is lost takes the log away."""


class BrokerConfigInvalid(ValueError):
    """What the command was told does not fit together."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}: {remedy}")


@dataclass(frozen=True, slots=True)
class Tls:
    """The files that a server proves with who it is, absolute."""

    cert: Path
    key: Path
    ca: Path | None = None
    """What clients trust; None: what their systems trust."""
    at: Path | None = None
    """The folder where these files are on the servers; None: where they are here."""

    @property
    def settings(self) -> dict[str, Any]:
        """What a server is told of them, as clients see it."""
        return {"cert_file": self._there(self.cert), "key_file": self._there(self.key), "timeout": 5}

    @property
    def trusted(self) -> dict[str, Any]:
        """What a server is told besides of whom it trusts."""
        return {} if self.ca is None else {"ca_file": self._there(self.ca)}

    def _there(self, path: Path) -> str:
        return str(path if self.at is None else self.at / path.name)

    def check(self) -> None:
        """Look whether a server could use them.

        :raises BrokerConfigInvalid: a file is not there or not what it should be
        """
        for path, what in ((self.cert, "certificate"), (self.key, "key"), (self.ca, "certificate of a CA")):
            if path is not None and not path.is_file():
                raise BrokerConfigInvalid(f"there is no file {path}", f"name the PEM file of the {what}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert, self.key, password="")
        except (OSError, ValueError) as error:
            raise BrokerConfigInvalid(
                f"{self.cert} and {self.key} are no certificate with its key ({error})", "both must be PEM files"
            ) from None
        try:
            context.load_verify_locations(self.ca) if self.ca else None
        except (OSError, ValueError) as error:
            raise BrokerConfigInvalid(f"{self.ca} has no certificate ({error})", "it must be a PEM file") from None


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What a server does beyond who may do what."""

    tls: Tls | None = None
    """None: it listens on this machine alone."""
    durable: bool = False
    """Whether it syncs to the disk before it acknowledges."""
    store: Path | None = None
    """Where it keeps its streams, on its own machine; None: beside its configuration."""
    nodes: Sequence[Node] = ()
    """Those of a cluster; none: it stands alone."""
    jetstream: Mapping[str, Any] = field(default_factory=dict)
    """What is said to JetStream besides, such as its ``domain``."""

    def check(self) -> None:
        """Look whether this fits together.

        :raises BrokerConfigInvalid: it does not
        """
        if self.tls is not None:
            self.tls.check()
        if not self.nodes:
            return
        if len(self.nodes) < _FEWEST:
            raise BrokerConfigInvalid(
                f"a cluster of {len(self.nodes)} loses its log with one node", f"name {_FEWEST} with --node, or none"
            )
        for what in ("name", "host and port", "host and port for routes"):
            if len({_told_apart(node, what) for node in self.nodes}) < len(self.nodes):
                raise BrokerConfigInvalid(f"two nodes have the same {what}", f"each has a {what} of its own")
        if self.tls is None and not all(node.is_local for node in self.nodes):
            raise BrokerConfigInvalid(
                "nodes on several machines would talk in the open", "give --tls-cert, --tls-key and --tls-ca"
            )


def _told_apart(node: Node, what: str) -> object:
    return {
        "name": node.name,
        "host and port": (node.host, node.port),
        "host and port for routes": (node.host, node.routes),
    }[what]


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    configs: Sequence[Path]
    """One for each node."""
    keys: Path
    parties: Sequence[Party]
    """Everybody whom the server will let in."""
    new: Sequence[Party]
    """Those who got a key just now."""


def write_broker_config(
    teams: Sequence[Team], folder: Path, *, ns: str, settings: ServerSettings | None = None, force: bool = False
) -> Written:
    """Write the configuration of each server for ``teams`` into ``folder``, and a key for each party without one there.

    ``force`` makes every key anew, which shuts out whoever has an old one, and takes the place of a file that somebody
    else wrote.

    :raises BrokerConfigInvalid: there is a configuration that this did not write, or what it should say does not fit
    :raises KeysUnusable: the keys cannot be read or written
    :raises OSError: the folder cannot be written
    """
    folder, settings = folder.absolute(), settings or ServerSettings()
    settings.check()
    homes = {node.name: folder / node.name for node in settings.nodes} or {"": folder}
    for home in homes.values():
        _refuse_foreign(home / _CONFIG, force=force)
    keyring = Keyring(folder / "keys")
    if not force:
        keyring.public()  # so that a key that is none is told before anything is written
    wanted = parties_of(teams)
    new = keyring.make({*wanted, *keyring.parties()} if force else wanted, anew=force)
    if settings.tls is not None and settings.tls.ca is not None:
        keyring.keep_ca(settings.tls.ca.read_bytes())
    known = keyring.public()
    secret = _route_secret(folder, anew=force) if settings.nodes else ""
    for node in settings.nodes or (None,):
        home = folder / node.name if node else folder
        home.mkdir(exist_ok=True)
        member = Member(node, settings.nodes, secret) if node else None
        config = broker_config(known, ns, settings.store or home / "jetstream", settings, member)
        write_private(home / _CONFIG, f"{_ABOUT}{json.dumps(config, ensure_ascii=False, indent=1)}\n")
    return Written([home / _CONFIG for home in homes.values()], keyring.folder, sorted(known), sorted(new))


def broker_config(
    keys: dict[Party, str], ns: str, store: Path, settings: ServerSettings, member: Member | None = None
) -> dict[str, Any]:
    """Return the configuration of a nats-server that lets in the parties with these public keys.

    Without TLS it listens on this machine alone, or where the others of its cluster expect it, since everything that it
    is told could be read on the way. ``member`` is its place in a cluster.
    """
    tls = settings.tls
    open_bind = "0.0.0.0" if tls else "127.0.0.1"  # noqa: S104 -- only with TLS and keys
    bind = member.node.host.strip("[]") if member and not tls else open_bind
    return {
        "server_name": "interlock",
        "host": bind,
        "port": member.node.port if member else CLIENT_PORT,
        "max_payload": MAX_PAYLOAD,
        "max_connections": 4096,
        "max_subscriptions": 4096,
        "max_control_line": 4096,
        "write_deadline": "10s",
        "ping_interval": "2s",  # who is cut off, a node too, is noticed within seconds
        "ping_max": 2,
        **({"tls": tls.settings} if tls else {}),
        **(member.settings(bind, {**tls.settings, **tls.trusted} if tls else None) if member else {}),
        "jetstream": {
            "store_dir": str(store),
            "sync_interval": "always" if settings.durable else "2m",
            **settings.jetstream,
        },
        "accounts": accounts(keys, ns),
    }


def _refuse_foreign(config: Path, *, force: bool) -> None:
    """See that ``config`` is not there, or was written by this command.

    :raises BrokerConfigInvalid: somebody else wrote it
    """
    if config.exists() and not force and not config.read_text(encoding="utf-8").startswith(_FIRST_LINE):
        raise BrokerConfigInvalid(
            f"{config} was not written by this command", "name another folder with --out, or overwrite it with --force"
        )


def _route_secret(folder: Path, *, anew: bool) -> str:
    """Return what the nodes prove with to each other that they belong together, made once."""
    path = folder / "routes.secret"
    if anew or not path.exists():
        write_private(path, f"{secrets.token_hex(24)}\n")
    return path.read_text(encoding="ascii").strip()


def run(options: argparse.Namespace) -> int:
    """Write what the command line asks for, say what was written, and return the exit status.

    :raises TeamFileInvalid: a team file has mistakes
    :raises BrokerConfigInvalid: what was asked for does not fit together
    :raises KeysUnusable: the keys cannot be read or written
    :raises OSError: the folder cannot be written
    """
    teams = [load_team(path).team for path in options.team]
    settings = _settings(options)
    written = write_broker_config(teams, options.out, ns=options.namespace, settings=settings, force=options.force)
    for config in written.configs:
        print_out(f"{config}: the configuration; start it with `nats-server --config {config}`")
    print_out(f"{written.keys}: the keys, to be kept secret")
    for party in written.parties:
        print_out(f"  {party.name}{' (new)' if party in written.new else ''}")
    scheme = "tls" if settings.tls else "nats"
    places = [f"{node.host}:{node.port}" for node in settings.nodes] or [f"HOST:{CLIENT_PORT}"]
    print_out(f"use them with --nats {','.join(f'{scheme}://{one}' for one in places)} --nats-keys {written.keys}")
    return 0


def _settings(options: argparse.Namespace) -> ServerSettings:
    said = {"domain": options.domain, "max_file_store": options.max_store}
    return ServerSettings(
        tls=_tls(options),
        durable=options.durable,
        store=options.store,
        nodes=tuple(parse_node(text) for text in options.node),
        jetstream={name: value for name, value in said.items() if value is not None},
    )


def _tls(options: argparse.Namespace) -> Tls | None:
    cert, key, ca = (path.absolute() if path else None for path in (options.tls_cert, options.tls_key, options.tls_ca))
    if cert and key:
        return Tls(cert, key, ca, options.tls_at)
    if cert or key or ca or options.tls_at:
        raise BrokerConfigInvalid("TLS takes a certificate and its key", "give --tls-cert and --tls-key together")
    return None
