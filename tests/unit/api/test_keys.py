"""Keys of the HTTP API and files of them."""

import json
import stat
from pathlib import Path

import pytest

from interlock.runtime.api.keyfile import KeyRecord, KeysInvalid, digest_of, new_key, read_keys, write_keys
from interlock.runtime.api.keys import Keys


def test_a_key_is_known_by_its_hash() -> None:
    """Whoever has a key is found by it, and by nothing else; the hash itself is no key."""
    key = new_key()
    keys = Keys([KeyRecord(name="me", sha256=digest_of(key), scopes=("read",), teams=("digest",))])
    caller = keys.caller(key)
    assert caller is not None
    assert (caller.name, caller.scopes) == ("me", frozenset({"read"}))
    assert (caller.may_see("digest"), caller.may_see("other")) == (True, False)
    assert [keys.caller(other) for other in (key[:-1], key + "x", digest_of(key), "", "\udcff")] == [None] * 5
    assert new_key() != key


def test_a_file_of_keys_is_private_and_has_no_key(tmp_path: Path) -> None:
    """Only its owner can read the file, and it says of a key no more than its hash."""
    path, key = tmp_path / "state" / "keys.json", new_key()
    record = KeyRecord(name="me", sha256=digest_of(key), scopes=("read", "kill"))
    write_keys(path, [record])
    assert read_keys(path) == (record,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key not in path.read_text()
    assert [one.name for one in path.parent.iterdir()] == ["keys.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"keys": [{"name": "me"}]}',
        json.dumps({"keys": [{"name": "me", "sha256": "0" * 64, "scopes": []}]}),
        json.dumps({"keys": [{"name": "me", "sha256": "0" * 64, "scopes": ["all"]}]}),
        json.dumps({"keys": [{"name": "me", "sha256": "0" * 64, "scopes": ["read"], "team": ["x"]}]}),
    ],
)
def test_what_is_no_file_of_keys_is_told(tmp_path: Path, text: str) -> None:
    """A mistake in the file never lets anybody in who should not be."""
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(KeysInvalid, match="is no file of keys"):
        read_keys(path)
