"""What a command in a sandbox can reach by network and by sockets."""

import socket
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.security.sandbox.conftest import Attempts

from interlock.agents.tools.isolation import Mount

SEND = """
import socket, sys
family, kind, host, port = sys.argv[1:]
address = (host, int(port)) if int(port) else host.replace("@", chr(0))
try:
    with socket.socket(getattr(socket, family), getattr(socket, kind)) as connection:
        connection.settimeout(5)
        connection.connect(address)
        connection.send(b"hello")
        print("sent")
except OSError as error: print("refused", type(error).__name__)
"""


def _server(family: int, kind: int, address: object) -> Iterator[socket.socket]:
    with closing(socket.socket(family, kind)) as server:
        server.bind(address)  # type: ignore[arg-type]
        server.settimeout(5)
        if kind == socket.SOCK_STREAM:
            server.listen()
        yield server


def _received(server: socket.socket) -> bytes:
    if server.type != socket.SOCK_STREAM:
        return server.recv(10)
    connection, _ = server.accept()
    with connection:
        return connection.recv(10)


def _is_silent(server: socket.socket) -> bool:
    """Whether nothing came; everything that could have been sent was sent before."""
    server.setblocking(False)
    try:
        _received(server)
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
@pytest.mark.parametrize(("family", "host"), [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")])
async def test_servers_of_this_machine_are_not_reached(attempts: Attempts, family: str, kind: str, host: str) -> None:
    """No TCP connection and no UDP datagram reaches a server on this machine's loopback."""
    for server in _server(getattr(socket, family), getattr(socket, kind), (host, 0)):
        port = server.getsockname()[1]
        assert await attempts.outside(SEND, family, kind, host, port) == "sent"
        assert _received(server) == b"hello"
        await attempts.inside(SEND, family, kind, host, port)  # a datagram is sent, to nobody
        assert _is_silent(server)


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
@pytest.mark.parametrize("host", ["192.0.2.1", "10.0.0.1", "169.254.169.254"])
async def test_nothing_else_is_reached(attempts: Attempts, kind: str, host: str) -> None:
    """There is no way to any other address: the kernel says so at once."""
    assert (await attempts.inside(SEND, "AF_INET", kind, host, 53)).startswith("refused")


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
async def test_abstract_sockets_are_not_reached(attempts: Attempts, kind: str) -> None:
    """A Unix socket of this machine without a path is not reached."""
    name = f"interlock-{uuid.uuid4().hex}"
    for server in _server(socket.AF_UNIX, getattr(socket, kind), f"\0{name}"):
        assert await attempts.outside(SEND, "AF_UNIX", kind, f"@{name}", 0) == "sent"
        assert _received(server) == b"hello"
        assert (await attempts.inside(SEND, "AF_UNIX", kind, f"@{name}", 0)).startswith("refused")
        assert _is_silent(server)


@pytest.mark.parametrize("shown", [None, False, True], ids=["elsewhere", "mounted", "mounted writable"])
async def test_sockets_in_folders_are_not_reached(attempts: Attempts, tmp_path: Path, shown: bool | None) -> None:
    """A Unix socket of this machine is not reached, not even in a folder that is mounted."""
    path = tmp_path / "s"
    mounts = () if shown is None else (Mount(tmp_path, writable=shown),)
    for server in _server(socket.AF_UNIX, socket.SOCK_STREAM, str(path)):
        path.chmod(0o777)
        assert await attempts.outside(SEND, "AF_UNIX", "SOCK_STREAM", path, 0) == "sent"
        assert _received(server) == b"hello"
        assert (await attempts.inside(SEND, "AF_UNIX", "SOCK_STREAM", path, 0, mounts=mounts)).startswith("refused")
        assert _is_silent(server)


FAMILIES = """
import socket
for family in range(1, 46):
    for kind in (1, 2, 3, 5):
        try: socket.socket(family, kind).close(); print(family, kind)
        except OSError: pass
"""


async def test_other_families_do_not_exist(attempts: Attempts) -> None:
    """There are TCP and UDP alone: no AF_VSOCK to the machine below this one, nothing raw, no netlink."""
    assert {"1 1", "16 3"} <= set((await attempts.outside(FAMILIES)).splitlines())
    assert (await attempts.inside(FAMILIES)).splitlines() == ["2 1", "2 2", "10 1", "10 2"]


OWN = """
import asyncio, socket
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
a, b = socket.socketpair()
asyncio.run(asyncio.sleep(0))
print("works")
"""


async def test_a_command_has_a_loopback_of_its_own(attempts: Attempts) -> None:
    """Inside, a server and its client find each other, socket pairs work, and so does an event loop."""
    assert await attempts.inside(OWN) == "works"
