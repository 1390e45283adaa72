"""Which addresses of the internet a fetch may reach, and what a name stands for at the moment of asking."""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

import anyio

from interlock.agents.tools.errors import ToolFailed, ToolSettingsInvalid

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a host name. :raises OSError: it has none"""

_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64: an IPv4 address stands in the last 32 bits
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "168.63.129.16/32",  # a cloud's own metadata service, on a public address
        "::/96",
        "64:ff9b:1::/48",
        "2001::/23",
        "2002::/16",  # 6to4: carries any IPv4 address
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
)


def networks(texts: Iterable[str], where: str) -> tuple[Network, ...]:
    """Return networks from their CIDR notation.

    :raises ToolSettingsInvalid: one is none; ``where`` is the setting that holds it
    """
    found: list[Network] = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise ToolSettingsInvalid(where, f"{error}; a network is written like 10.1.0.0/16") from error
    return tuple(found)


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """Ask the system for the addresses of ``host``."""
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Reach:
    """The public internet, and the private networks that a team file opens."""

    def __init__(self, private: tuple[Network, ...], resolve: Resolver = system_resolver) -> None:
        self._private = private
        self._resolve = resolve

    async def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """Return the addresses of ``host``; who connects must use these and not ask again.

        :raises ToolFailed: it has none, or one that may not be reached; then none of them is, whatever the others are
        """
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise ToolFailed(f"the host {host!r} has no address: {error}") from error
        if not found:
            raise ToolFailed(f"the host {host!r} has no address")
        for text in found:
            if not self._open(text):
                raise ToolFailed(
                    f"the host {host!r} is at {text}, which is not on the public internet; "
                    "if it is meant to be reached, name its network in tools.web.private"
                )
        return tuple(found)

    def _open(self, text: str) -> bool:
        try:
            address = _plain(ipaddress.ip_address(text.partition("%")[0]))
        except ValueError:
            return False
        return any(address in network for network in self._private) or _is_public(address)


def _plain(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address only wraps."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _TRANSLATED:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _is_public(address: Address) -> bool:
    special = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local
    return address.is_global and not special and not any(address in network for network in _NOT_PUBLIC)
