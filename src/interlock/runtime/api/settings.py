"""What a server of the HTTP API is told when it starts."""

from ipaddress import ip_address

from pydantic import Field

from interlock.protocol.base import Strict

__all__ = ["ApiSettings", "HttpSetup", "is_loopback"]


class ApiSettings(Strict):
    """What can be tuned. The defaults suit one machine."""

    body_bytes: int = Field(default=8 * 1024 * 1024, ge=1)
    """The most bytes of a request's body."""
    body_seconds: float = Field(default=30, gt=0)
    """How long a request's body may take to come."""
    per_second: float = Field(default=200, gt=0)
    """Requests a second of one key, or of one address where there is none; kills have a rate of their own."""
    burst: int = Field(default=400, ge=1)
    """How many of them may come at once."""
    at_once: int = Field(default=64, ge=1)
    """Requests that are answered at once; those that stream and those that kill do not count."""
    streams: int = Field(default=1000, ge=1)
    """Answers that are streamed at once."""
    heartbeat: float = Field(default=15, gt=0)
    """Seconds after which a stream in which nothing happens says that it is still there."""


class HttpSetup(Strict):
    """Where a server listens, and who may ask it."""

    host: str
    port: int = Field(ge=0, le=65535)
    keys: str | None
    """The file of keys; None: it answers anybody, on the loopback interface only."""
    settings: ApiSettings = ApiSettings()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address is of this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
