"""The nodes of a cluster of NATS servers, and what the configuration of each says of the others."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interlock.runtime.failures import Mistake

__all__ = ["CLIENT_PORT", "ROUTE_PORT", "Member", "Node", "NodeInvalid", "parse_node"]

CLIENT_PORT = 4222
"""Where a server listens for clients, unless another port is named."""

ROUTE_PORT = 6222
"""Where it listens for the other nodes of its cluster."""

_CLUSTER = "interlock"
_NODE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9_-]{0,62})=(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)"
    r"(:(?P<port>[0-9]{1,5})(:(?P<routes>[0-9]{1,5}))?)?"
)
_LAST_PORT = 65535


class NodeInvalid(Mistake):
    """A node of a cluster that is not written as one."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"{text!r} is no node: write NAME=HOST, or NAME=HOST:PORT:ROUTE_PORT where the ports differ")


@dataclass(frozen=True, slots=True)
class Node:
    """One server of a cluster."""

    name: str
    host: str
    """As clients and the other nodes reach it."""
    port: int = CLIENT_PORT
    routes: int = ROUTE_PORT
    """The port for the other nodes."""

    @property
    def is_local(self) -> bool:
        """Whether nobody but this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Member:
    """One node of a cluster as its own configuration sees it."""

    node: Node
    nodes: Sequence[Node]
    """All of them, this one too: how many there are tells each when it may begin."""
    secret: str
    """What nodes prove with to each other that they belong together."""

    def settings(self, bind: str, tls: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return what the configuration of the node says besides that of a single server.

        ``bind`` is where it listens for the others, ``tls`` are the files that it proves with who it is.
        """
        login = f"{_CLUSTER}:{self.secret}"
        secured = {"tls": {**tls, "verify": True}} if tls else {}
        return {
            "server_name": self.node.name,
            "client_advertise": f"{self.node.host}:{self.node.port}",
            "cluster": {
                "name": _CLUSTER,
                "host": bind,
                "port": self.node.routes,
                "authorization": {"user": _CLUSTER, "password": self.secret, "timeout": 5},
                **secured,
                "routes": [f"nats-route://{login}@{node.host}:{node.routes}" for node in self.nodes],
            },
        }


def parse_node(text: str) -> Node:
    """Return the node that ``NAME=HOST[:PORT[:ROUTE_PORT]]`` writes out.

    :raises NodeInvalid: it writes out none
    """
    match = _NODE.fullmatch(text)
    if match is None:
        raise NodeInvalid(text)
    port, routes = int(match["port"] or CLIENT_PORT), int(match["routes"] or ROUTE_PORT)
    if not (0 < port <= _LAST_PORT and 0 < routes <= _LAST_PORT) or port == routes:
        raise NodeInvalid(text)
    return Node(match["name"], match["host"], port, routes)
