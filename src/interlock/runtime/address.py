"""Where a broker is and how to log in to it."""

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

__all__ = ["AGENT_API", "API", "AddressInvalid", "BrokerAddress", "inbox_of"]

API = "$JS.API"
"""What the subjects of JetStream's API begin with."""

AGENT_API = "il-api"
"""What they begin with for an agent, whose credentials let it into an account of its own."""

_SCHEMES = ("nats", "tls", "ws", "wss")


class AddressInvalid(ValueError):
    """A broker's URL that cannot be one. The text never repeats a password."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            "the broker's URL must be like nats://HOST:PORT or nats://USER:PASSWORD@HOST:PORT, or several of them with "
            f"commas between: {reason}"
        )


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A broker's URL and credentials; ``repr`` and ``str`` hide the secrets."""

    url: str
    """``nats://HOST:PORT``, without credentials; of a cluster those of several nodes, with commas between."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    seed: str | None = field(default=None, repr=False)
    """Of the nkey to log in with."""
    keys: str | None = None
    """The folder with the keys of all parties, for who starts agents; None: they log in as this says."""
    ca: str | None = None
    """The file with the certificates to trust, where the broker talks TLS; None: those of the system."""
    lane: int | None = None
    """Only with an agent's credentials: which of its role's queues it takes from. None: they let it do everything."""

    @property
    def api(self) -> str:
        """What the subjects of JetStream's API begin with for who logs in like this."""
        return API if self.lane is None else AGENT_API

    @property
    def servers(self) -> list[str]:
        """The URL of each node that was named: any of them may be asked, and any may be down."""
        return self.url.split(",")

    @classmethod
    def parse(cls, url: str) -> "BrokerAddress":
        """Return the address that ``url`` writes out, its credentials taken out of it.

        Several URLs with commas between are nodes of one cluster; credentials in one of them hold for all.

        :raises AddressInvalid: no such scheme, no host, a port that is none, or URLs that do not go together
        """
        nodes = [cls._parse_one(one.strip()) for one in url.split(",")]
        if len({node.url.startswith("ws") for node in nodes}) > 1:
            raise AddressInvalid("web sockets and plain connections do not go together")
        logins = {(node.user, node.password, node.token) for node in nodes} - {(None, None, None)}
        if len(logins) > 1:
            raise AddressInvalid("the nodes of one cluster have the same credentials, these have different ones")
        user, password, token = logins.pop() if logins else (None, None, None)
        return cls(",".join(node.url for node in nodes), user, password, token)

    @classmethod
    def _parse_one(cls, url: str) -> "BrokerAddress":
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


def inbox_of(public_key: str) -> str:
    """Return what the inboxes of who logs in with a key begin with; nobody else may listen there."""
    return f"_INBOX.{public_key}"
