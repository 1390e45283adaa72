"""Tools' names on the wire: the API takes letters, digits, ``_`` and ``-``, at most 64; ours have dots. Pure."""

import re
from collections.abc import Iterable
from hashlib import sha256

_LONGEST = 64
_DOT = "__"
_HASHED = "___"
"""Never stands in a name whose parts are joined by ``_DOT``, so the two kinds of names cannot collide."""
_DIGEST = 12
_PART = re.compile(r"[A-Za-z0-9-]+(?:_[A-Za-z0-9-]+)*")
"""Parts without ``__`` and without ``_`` at their ends: joined by ``__``, they can be told apart again."""


def api_name(name: str) -> str:
    """Return the name by which the API knows the tool ``name``: the same for the same name, another for another.

    ``files.read`` becomes ``files__read``. What cannot be written so keeps its beginning and gets a hash of the whole.
    """
    parts = name.split(".")
    plain = _DOT.join(parts)
    if len(plain) <= _LONGEST and all(_PART.fullmatch(part) for part in parts):
        return plain
    digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    readable = re.sub(r"[^A-Za-z0-9-]+", "_", name)[: _LONGEST - len(_HASHED) - _DIGEST]
    return f"{readable}{_HASHED}{digest}"


def own_name(name: str, offered: Iterable[str]) -> str:
    """Return which of the tools ``offered`` the API's ``name`` means; of none of them, the likeliest spelling."""
    for own in offered:
        if api_name(own) == name:
            return own
    return name if _HASHED in name else name.replace(_DOT, ".")
