"""The keys that parties log in to the broker with: made, told apart and signed with. Ed25519, in the form of nkeys.

The library is imported where a key is used: what needs none starts without it.
"""

import base64
import secrets
from typing import Any


def new_seed() -> str:
    """Return the seed of a new key for a user of the broker."""
    nkeys = _library()
    return str(nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER), "ascii")


def public_key(seed: str) -> str:
    """Return the public key of a user's seed.

    :raises ValueError: it is none; the text does not repeat it
    """
    return str(_pair(seed).public_key, "ascii")


def signed(seed: str, nonce: str) -> str:
    """Return the signature of the broker's ``nonce`` in the form that a login has.

    :raises ValueError: the seed is none; the text does not repeat it
    """
    return base64.urlsafe_b64encode(_pair(seed).sign(nonce.encode())).decode().rstrip("=")


def _library() -> Any:
    import nkeys  # type: ignore[import-untyped]  # noqa: PLC0415 -- see above

    return nkeys


def _pair(seed: str) -> Any:
    try:
        pair = _library().from_seed(bytearray(seed.encode()))
        is_user = pair.public_key.startswith(b"U")
    except Exception as error:  # noqa: BLE001 -- whatever the library makes of something else, it may tell the seed
        raise ValueError(f"not the seed of a key ({type(error).__name__})") from None
    if not is_user:
        raise ValueError("the seed of a key, but not of a user's")
    return pair
