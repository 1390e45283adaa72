"""What ``interlock broker-config`` does: the configuration of a nats-server for teams, and a key for each party."""

import argparse
import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interlock.protocol.team import Team
from interlock.runtime._nats_server import MAX_PAYLOAD
from interlock.runtime.credentials import Party, accounts, parties_of
from interlock.runtime.keyring import Keyring, write_private
from interlock.runtime.show import print_out
from interlock.runtime.teamfile import load_team

__all__ = ["BrokerConfigInvalid", "Tls", "Written", "broker_config", "run", "write_broker_config"]

_FIRST_LINE = "# Written by `interlock broker-config`, which writes it anew when it is run again for this folder."
_ABOUT = f"""{_FIRST_LINE}
# It knows every party that has a file in the folder of keys: to shut one out, delete its file and run that again.
# A running server reads this again on SIGHUP; send it twice, since accounts that are new are connected by the second.
# Needs nats-server 2.12 or later.
"""
_PORT = 4222


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
class Written:
    """What was written."""

    config: Path
    keys: Path
    parties: Sequence[Party]
    """Everybody whom the server will let in."""
    new: Sequence[Party]
    """Those who got a key just now."""


def write_broker_config(
    teams: Sequence[Team], folder: Path, *, ns: str, tls: Tls | None = None, durable: bool = False, force: bool = False
) -> Written:
    """Write the configuration of a server for ``teams`` into ``folder``, and a key for each party that has none there.

    ``force`` makes every key anew, which shuts out whoever has an old one, and takes the place of a file that somebody
    else wrote.

    :raises BrokerConfigInvalid: there is a configuration that this did not write, or the TLS files will not do
    :raises KeysUnusable: the keys cannot be read or written
    :raises OSError: the folder cannot be written
    """
    folder = folder.absolute()
    config = folder / "nats-server.conf"
    if tls is not None:
        tls.check()
    if config.exists() and not force and not config.read_text(encoding="utf-8").startswith(_FIRST_LINE):
        raise BrokerConfigInvalid(
            f"{config} was not written by this command", "name another folder with --out, or overwrite it with --force"
        )
    keyring = Keyring(folder / "keys")
    if not force:
        keyring.public()  # so that a key that is none is told before anything is written
    wanted = parties_of(teams)
    new = keyring.make({*wanted, *keyring.parties()} if force else wanted, anew=force)
    if tls is not None and tls.ca is not None:
        keyring.keep_ca(tls.ca.read_bytes())
    known = keyring.public()
    text = json.dumps(
        broker_config(known, ns, folder / "jetstream", tls, durable=durable), ensure_ascii=False, indent=1
    )
    write_private(config, f"{_ABOUT}{text}\n")
    return Written(config, keyring.folder, sorted(known), sorted(new))


def broker_config(
    keys: dict[Party, str], ns: str, store: Path, tls: Tls | None = None, *, durable: bool = False
) -> dict[str, Any]:
    """Return the configuration of a nats-server that lets in the parties with these public keys.

    Without TLS it listens on this machine alone, since everything that it is told could be read on the way.
    """
    secured = {"tls": {"cert_file": str(tls.cert), "key_file": str(tls.key), "timeout": 5}} if tls else {}
    return {
        "server_name": "interlock",
        "host": "0.0.0.0" if tls else "127.0.0.1",  # noqa: S104 -- only with TLS and keys
        "port": _PORT,
        "max_payload": MAX_PAYLOAD,
        "max_connections": 4096,
        "max_subscriptions": 4096,
        "max_control_line": 4096,
        "write_deadline": "10s",
        **secured,
        "jetstream": {"store_dir": str(store), "sync_interval": "always" if durable else "2m"},
        "accounts": accounts(keys, ns),
    }


def run(options: argparse.Namespace) -> int:
    """Write what the command line asks for, say what was written, and return the exit status.

    :raises TeamFileInvalid: a team file has mistakes
    :raises BrokerConfigInvalid: what was asked for does not fit together
    :raises KeysUnusable: the keys cannot be read or written
    :raises OSError: the folder cannot be written
    """
    teams = [load_team(path).team for path in options.team]
    written = write_broker_config(
        teams, options.out, ns=options.namespace, tls=_tls(options), durable=options.durable, force=options.force
    )
    print_out(f"{written.config}: the configuration; start it with `nats-server --config {written.config}`")
    print_out(f"{written.keys}: the keys, to be kept secret")
    for party in written.parties:
        print_out(f"  {party.name}{' (new)' if party in written.new else ''}")
    print_out(f"use them with --nats {'tls' if options.tls_cert else 'nats'}://HOST:{_PORT} --nats-keys {written.keys}")
    return 0


def _tls(options: argparse.Namespace) -> Tls | None:
    cert, key, ca = (path.absolute() if path else None for path in (options.tls_cert, options.tls_key, options.tls_ca))
    if cert and key:
        return Tls(cert, key, ca)
    if cert or key or ca:
        raise BrokerConfigInvalid("TLS takes a certificate and its key", "give --tls-cert and --tls-key together")
    return None
