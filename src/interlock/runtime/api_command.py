"""What `interlock api-key` does, and where `interlock up --http` listens: keys made and taken back, addresses read."""

import argparse
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from interlock.runtime.api.keyfile import (
    SCOPES,
    KeyRecord,
    KeyScope,
    KeysInvalid,
    digest_of,
    new_key,
    read_keys,
    write_keys,
)
from interlock.runtime.api.settings import HttpSetup, is_loopback
from interlock.runtime.failures import FileUnwritable, Mistake
from interlock.runtime.show import print_out

__all__ = [
    "COMMANDS",
    "HttpAddressInvalid",
    "HttpAddressTaken",
    "HttpKeysMissing",
    "HttpKeysUnusable",
    "HttpOpenForAll",
    "HttpWanted",
    "KeyNameTaken",
    "KeyNameUnknown",
    "http_setup",
]

_KEYS = "api-keys.json"
"""What the file of keys is called in a state folder."""

_LARGEST_PORT = 65535


class HttpAddressInvalid(Mistake):
    """``--http`` names no address."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"--http {text} is no address: write HOST:PORT, such as 127.0.0.1:8080")


class HttpAddressTaken(Mistake):
    """The address that ``--http`` names cannot be listened on."""

    def __init__(self, text: str, reason: str) -> None:
        self.text = text
        super().__init__(f"--http {text} cannot be listened on: {reason}")


class HttpKeysMissing(Mistake):
    """There are no keys for the HTTP API, and it was not said that it needs none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(
            f"there are no keys at {path}: make one with `interlock api-key NAME`, name another file with --http-keys, "
            "or say --http-open, which lets every program on this machine in"
        )


class HttpKeysUnusable(Mistake):
    """The file of keys is none."""

    def __init__(self, error: KeysInvalid) -> None:
        self.path = error.path
        super().__init__(str(error))


class HttpOpenForAll(Mistake):
    """An API without keys is to be served to other machines."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(f"--http-open is for this machine alone, and {host} is not: serve 127.0.0.1, or make keys")


class HttpWanted(Mistake):
    """An option of the HTTP API is given, but it is not to be served."""

    def __init__(self, option: str) -> None:
        self.option = option
        super().__init__(f"{option} needs --http HOST:PORT")


class KeyNameTaken(Mistake):
    """There is a key of this name."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        super().__init__(f"{path} has a key {name} already: take it back first with --revoke, or choose another name")


class KeyNameUnknown(Mistake):
    """There is no key of this name."""

    def __init__(self, name: str, known: Sequence[str], path: Path) -> None:
        self.name = name
        super().__init__(f"{path} has no key {name}; there are {', '.join(known) or 'none'}")


def http_setup(options: argparse.Namespace) -> HttpSetup | None:
    """Return where the HTTP API is to be served, None where it is not.

    :raises HttpAddressInvalid: the address is none
    :raises HttpAddressTaken: it cannot be listened on
    :raises HttpKeysMissing: there are no keys, and it was not said that none are needed
    :raises HttpKeysUnusable: the file of keys is none
    :raises HttpOpenForAll: there are to be none for other machines
    :raises HttpWanted: there are options for it, but no address
    """
    if options.http is None:
        if options.http_open or options.http_keys:
            raise HttpWanted("--http-open" if options.http_open else "--http-keys")
        return None
    host, port = _address(options.http)
    keys = None if options.http_open else options.http_keys or options.state / _KEYS
    if keys is None and not is_loopback(host):
        raise HttpOpenForAll(host)
    if keys is not None:
        _check_keys(keys)
    return HttpSetup(host=host, port=_free(options.http, host, port), keys=keys and str(keys.absolute()))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) <= _LARGEST_PORT):
        raise HttpAddressInvalid(text)
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def _check_keys(path: Path) -> None:
    if not path.exists():
        raise HttpKeysMissing(path)
    try:
        read_keys(path)
    except KeysInvalid as error:
        raise HttpKeysUnusable(error) from None


def _free(text: str, host: str, port: int) -> int:
    """Return the port that can be listened on: the one that is wanted, or a free one where that is 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        raise HttpAddressTaken(text, error.strerror or str(error)) from None


def _api_key(options: argparse.Namespace) -> int:
    """Make a key and print it, take one back, or list those that there are.

    :raises HttpKeysUnusable: the file of keys is none
    :raises KeyNameTaken: there is a key of this name
    :raises KeyNameUnknown: there is none to be taken back
    :raises FileUnwritable: the file cannot be written
    """
    path = options.http_keys or options.state / _KEYS
    try:
        records = read_keys(path) if path.exists() else ()
    except KeysInvalid as error:
        raise HttpKeysUnusable(error) from None
    if options.name is None:
        for record in records:
            print_out(_line(record))
    elif options.revoke:
        _revoke(path, records, options.name)
    else:
        _make(path, records, options)
    return 0


def _make(path: Path, records: Sequence[KeyRecord], options: argparse.Namespace) -> None:
    if options.name in {record.name for record in records}:
        raise KeyNameTaken(options.name, path)
    key = new_key()
    wanted: Sequence[KeyScope] = options.scope or SCOPES
    scopes = tuple(sorted(set(wanted), key=SCOPES.index))
    record = KeyRecord(
        name=options.name, sha256=digest_of(key), scopes=scopes, teams=tuple(options.team) if options.team else None
    )
    _write(path, [*records, record])
    sys.stderr.write(f"interlock: {_line(record)}; it is shown this once, {path} has only its hash\n")
    print_out(key)


def _revoke(path: Path, records: Sequence[KeyRecord], name: str) -> None:
    left = [record for record in records if record.name != name]
    if len(left) == len(records):
        raise KeyNameUnknown(name, [record.name for record in records], path)
    _write(path, left)
    sys.stderr.write(f"interlock: key {name} is taken back; servers that run take it no more\n")


def _write(path: Path, records: Sequence[KeyRecord]) -> None:
    try:
        write_keys(path, records)
    except OSError as error:
        raise FileUnwritable(path, error.strerror or str(error)) from None


def _line(record: KeyRecord) -> str:
    teams = "all teams" if record.teams is None else f"team{'s' * (len(record.teams) > 1)} {', '.join(record.teams)}"
    return f"key {record.name}: {', '.join(record.scopes)} for {teams}"


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"api-key": _api_key}
"""What does each command."""
