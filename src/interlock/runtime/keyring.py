"""The keys of a namespace's parties in a folder: a file for each, named for its party, that only its owner can read."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from interlock.runtime._keys import new_seed, public_key
from interlock.runtime.address import BrokerAddress
from interlock.runtime.broker_errors import KeyMissing, KeysUnusable
from interlock.runtime.credentials import Party

__all__ = ["Keyring", "login_of", "reach", "with_keys", "write_private"]

_SUFFIX = ".nk"
_CA = "ca.pem"


class Keyring:
    """A folder of keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, parties: Iterable[Party], *, anew: bool = False) -> list[Party]:
        """Make a key for each of ``parties`` that has none, or with ``anew`` for all; return those that got one.

        :raises KeysUnusable: the folder cannot be written
        """
        made = [party for party in parties if anew or not self._file(party).exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self.folder / ".gitignore").write_text("*\n")  # nobody commits a key by mistake
            for party in made:
                write_private(self._file(party), f"{new_seed()}\n")
        except OSError as error:
            raise KeysUnusable(self.folder, error.strerror or str(error)) from None
        return made

    def parties(self) -> list[Party]:
        """Return who has a key, sorted."""
        named = (Party.named(path.stem) for path in self.folder.glob(f"*{_SUFFIX}"))
        return sorted(party for party in named if party is not None)

    def public(self) -> dict[Party, str]:
        """Return the public key of each party.

        :raises KeysUnusable: a file cannot be read, or has no key
        """
        return {party: public_key(self.seed(party)) for party in self.parties()}

    def seed(self, party: Party) -> str:
        """Return the seed of a party's key.

        :raises KeyMissing: it has none
        :raises KeysUnusable: its file cannot be read, or has no key
        """
        path = self._file(party)
        if not path.exists():
            raise KeyMissing(self.folder, party.name)
        return _read_seed(path)

    def login(self, url: str, party: Party) -> BrokerAddress:
        """Return how ``party`` logs in to the broker at ``url``; an operator is also told where the other keys are.

        :raises KeyMissing: the party has none
        :raises KeysUnusable: its file cannot be read, or has no key
        """
        ca = self.folder / _CA
        keys = str(self.folder) if party.kind == "operator" else None
        return BrokerAddress(url, seed=self.seed(party), keys=keys, ca=str(ca) if ca.exists() else None)

    def keep_ca(self, pem: bytes) -> None:
        """Put the certificates that clients are to trust beside the keys.

        :raises OSError: that is not possible
        """
        (self.folder / _CA).write_bytes(pem)

    def _file(self, party: Party) -> Path:
        return self.folder / f"{party.name}{_SUFFIX}"


def reach(url: str, keys: Path | None, ca: Path | None) -> BrokerAddress:
    """Return the address that a person names: ``url``, the ``keys`` to log in with, the ``ca`` to trust.

    :raises AddressInvalid: the URL is none
    :raises KeyMissing: there is none for an operator in the folder of keys
    :raises KeysUnusable: the keys or the certificates cannot be read
    """
    address = BrokerAddress.parse(url)
    if ca is not None:
        if not ca.is_file():
            raise KeysUnusable(ca, "there is no such file of certificates")
        address = replace(address, ca=str(ca.absolute()))
    return address if keys is None else with_keys(address, keys.absolute())


def login_of(address: BrokerAddress, party: Party, lane: int | None) -> BrokerAddress:
    """Return how ``party`` logs in to the broker that an operator reaches at ``address``.

    Where the operator has no keys of others, as with a broker of one user, it is the operator's own login.

    :raises KeyMissing: the party has none
    :raises KeysUnusable: its file cannot be read, or has no key
    """
    if address.keys is None:
        return address
    login = Keyring(Path(address.keys)).login(address.url, party)
    return replace(login, ca=address.ca, lane=lane or 0)


def with_keys(address: BrokerAddress, path: Path) -> BrokerAddress:
    """Return the address with the login that ``path`` is for: the operator's of a folder of keys, or one key's file.

    :raises KeyMissing: the folder has none for an operator
    :raises KeysUnusable: it is no folder of keys, or cannot be read
    """
    if path.is_dir():
        login = Keyring(path).login(address.url, Party("operator"))
        return replace(login, ca=address.ca or login.ca)
    party = Party.named(path.stem)
    lane = None if party is None or party.kind == "operator" else 0
    ca = path.parent / _CA
    found = str(ca) if ca.exists() else None
    return BrokerAddress(address.url, seed=_read_seed(path), ca=address.ca or found, lane=lane)


def write_private(path: Path, text: str) -> None:
    """Write ``text`` to a file that only this user can read, also where the file was there before.

    :raises OSError: it cannot be written
    """
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _read_seed(path: Path) -> str:
    try:
        seed = path.read_text(encoding="ascii").strip()
        public_key(seed)
    except OSError as error:
        raise KeysUnusable(path, error.strerror or str(error)) from None
    except ValueError as error:
        raise KeysUnusable(path, str(error) if not isinstance(error, UnicodeError) else "it is no text") from None
    return seed
