"""One nats-server child process: its binary, its configuration, its start and its stop."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process

from interlock.backends import _tether
from interlock.runtime._keys import public_key, signed
from interlock.runtime.address import BrokerAddress
from interlock.runtime.broker_errors import BrokerBinaryMissing, BrokerStartFailed, BrokerTooOld
from interlock.runtime.keyring import write_private

MIN_VERSION = (2, 12)
START_SECONDS = 15.0
STOP_SECONDS = 0.7
POLL_SECONDS = 0.01
LOG_BYTES_SHOWN = 2000
MAX_PAYLOAD = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What a server is started with."""

    binary: Path
    state: Path
    accounts: Mapping[str, Any]
    """The accounts, users and permissions of its configuration."""
    operator: BrokerAddress
    """How its operator logs in; the port in it is none."""
    durable: bool
    port: int
    """-1: any free one."""
    hold: tuple[int, ...] = ()
    """File descriptors that live as long as the server does."""


class NatsServer:
    """A nats-server that runs."""

    def __init__(self, options: ServerOptions, process: Process, port: int) -> None:
        self.options = options
        self.process = process
        self.port = port

    @property
    def address(self) -> BrokerAddress:
        """Where it is."""
        return replace(self.options.operator, url=f"nats://127.0.0.1:{self.port}")

    async def stop(self) -> None:
        """End it: a request first, then, after ``STOP_SECONDS``, by force. Not stopped by a cancellation."""
        with anyio.CancelScope(shield=True):
            await _end(self.process)
            _config_path(self.options.state).unlink(missing_ok=True)


def find_binary(wanted: Path | None = None) -> Path:
    """Return the nats-server to run: the wanted one, the one installed beside this interpreter, or the PATH's.

    :raises BrokerBinaryMissing: there is none
    """
    candidates = [wanted] if wanted else list(_candidates())
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise BrokerBinaryMissing(candidates if wanted else [*candidates, "PATH"])


async def start(options: ServerOptions) -> NatsServer:
    """Start a server and return it once it has let somebody log in.

    :raises BrokerStartFailed: it ended, or was not ready after ``START_SECONDS``
    :raises BrokerTooOld: it is older than ``MIN_VERSION``
    """
    config = _write_config(options)
    command = [str(options.binary), "--config", str(config)]
    with _new_log(options.state).open("wb") as log:
        process = await anyio.open_process(
            [sys.executable, "-I", "-S", str(_tether.__file__), str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=options.hold,
        )
    try:
        return NatsServer(options, process, await _ready_port(options, process))
    except BaseException:
        with anyio.CancelScope(shield=True):
            await _end(process)
        raise


def _candidates() -> Iterator[Path]:
    name = "nats-server.exe" if sys.platform == "win32" else "nats-server"
    yield Path(sys.executable).with_name(name)
    yield Path(sysconfig.get_path("scripts")) / name
    if found := shutil.which(name):
        yield Path(found)


def _config_path(state: Path) -> Path:
    return state / "nats-server.conf"


def _write_config(options: ServerOptions) -> Path:
    config = {
        "server_name": "interlock",
        "host": "127.0.0.1",
        "port": options.port,
        "max_payload": MAX_PAYLOAD,
        "ping_interval": "2s",  # who is cut off is noticed within seconds, so that nobody's work goes to the dead
        "ping_max": 2,
        "ports_file_dir": str(options.state),
        "jetstream": {
            "store_dir": str(options.state / "jetstream"),
            "sync_interval": "always" if options.durable else "2m",
        },
        "accounts": options.accounts,
    }
    path = _config_path(options.state)
    write_private(path, json.dumps(config, ensure_ascii=False, indent=1))
    return path


def _new_log(state: Path) -> Path:
    """Make room for a log, keeping the one before it, and forget the ports of servers that were killed."""
    for stale in state.glob("*.ports"):
        stale.unlink(missing_ok=True)
    log = state / "nats-server.log"
    if log.exists():
        log.replace(state / "nats-server.log.1")
    return log


async def _ready_port(options: ServerOptions, process: Process) -> int:
    """Wait until the server wrote down its port and answers a login there."""
    with anyio.move_on_after(START_SECONDS):
        while process.returncode is None:
            if (port := _written_port(options.state, process.pid)) and await _answers(options, port):
                return port
            await anyio.sleep(POLL_SECONDS)
        raise await _explain(options, f"ended with status {process.returncode} instead of starting")
    raise await _explain(options, f"was not ready after {START_SECONDS:g} s")


def _written_port(state: Path, pid: int) -> int | None:
    for path in state.glob(f"*_{pid}.ports"):
        try:
            [url, *_] = json.loads(path.read_text())["nats"]
        except (ValueError, KeyError):  # half written: look again
            return None
        return int(url.rpartition(":")[2])
    return None


async def _answers(options: ServerOptions, port: int) -> bool:
    """Log in once, as a client would.

    :raises BrokerTooOld: it greets with a version below ``MIN_VERSION``
    """
    try:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            info = json.loads((await stream.receive()).split(b"\r\n")[0].removeprefix(b"INFO "))
            _check_version(options.binary, info["version"])
            seed = options.operator.seed or ""
            login = {"verbose": False, "nkey": public_key(seed), "sig": signed(seed, info["nonce"])}
            await stream.send(f"CONNECT {json.dumps(login)}\r\nPING\r\n".encode())
            return (await stream.receive()).startswith(b"PONG") and bool(info.get("jetstream"))
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError, ValueError):
        return False


def _check_version(binary: Path, version: str) -> None:
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < MIN_VERSION:
        raise BrokerTooOld(binary, version, ".".join(map(str, MIN_VERSION)))


async def _explain(options: ServerOptions, reason: str) -> BrokerStartFailed | BrokerTooOld:
    """Find out why a server did not start: its version, or what it printed."""
    try:
        asked = await anyio.run_process([str(options.binary), "--version"], check=False)
        if found := re.search(rb"nats-server: v(\S+)", asked.stdout):
            _check_version(options.binary, found[1].decode())
    except BrokerTooOld as error:
        return error
    except OSError as error:
        reason = f"cannot be executed ({error.strerror})"
    return BrokerStartFailed(options.binary, reason, _end_of(options.state / "nats-server.log"))


def _end_of(log: Path) -> str:
    return log.read_bytes()[-LOG_BYTES_SHOWN:].decode(errors="replace").strip()


async def _end(process: Process, signals: Sequence[str] = ("terminate", "kill")) -> None:
    for signal in signals:
        if process.returncode is None:
            getattr(process, signal)()
        with anyio.move_on_after(STOP_SECONDS):
            await process.wait()
            break
    await process.aclose()
