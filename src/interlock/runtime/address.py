"""Where a broker is and how to log in to it."""

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

__all__ = ["AddressInvalid", "BrokerAddress"]

_SCHEMES = ("nats", "tls", "ws", "wss")


class AddressInvalid(ValueError):
    """A broker's URL that cannot be one. The text never repeats a password."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the broker's URL must be like nats://HOST:PORT or nats://USER:PASSWORD@HOST:PORT: {reason}")


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A broker's URL and credentials; ``repr`` and ``str`` hide the secrets."""

    url: str
    """``nats://HOST:PORT``, without credentials."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> "BrokerAddress":
        """Return the address that ``url`` writes out, its credentials taken out of it.

        :raises AddressInvalid: no such scheme, no host, or a port that is none
        """
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        if parts.scheme not in _SCHEMES:
            raise AddressInvalid(f"the scheme {parts.scheme!r} is none of {', '.join(_SCHEMES)}")
        try:
            port = parts.port
        except ValueError as error:
            raise AddressInvalid(str(error)) from None
        if not parts.hostname:
            raise AddressInvalid("the host is missing")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        address = f"{parts.scheme}://{host}:{port or 4222}{parts.path}"
        user, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
        return cls(address, user, password) if password is not None else cls(address, token=user)

    def __str__(self) -> str:
        return self.url
