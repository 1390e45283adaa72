"""What a command in a sandbox can do to processes of this machine, and what is left of its own."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest
from tests.security.sandbox.conftest import Attempts
from tests.waiting import eventually

from interlock.agents.tools.isolation import Mount, SandboxLimits

CANARY = "canary-5d1f"


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process of this machine with a secret in its environment and on its command line."""
    with subprocess.Popen([sys.executable, "-c", "input()", CANARY], stdin=-1, env={"SECRET": CANARY}) as process:
        yield process
        process.kill()


@pytest.fixture
def token() -> str:
    """Return a word that stands on the command line of all that a test starts inside."""
    return f"token-{uuid.uuid4().hex}"


@contextmanager
def child(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process of this machine, killed at the end."""
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.kill()


def running(word: str) -> list[int]:
    """Return the processes with ``word`` on their command line, except those that only wait to be buried."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if word.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def below(pid: int) -> set[int]:
    """Return all processes below one."""
    found: set[int] = set()
    with suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            found |= {child, *below(child)}
    return found


def lives(pid: int) -> bool:
    """Whether a process does more than wait to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


LOOK = """
import os, sys
pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
seen = b""
for pid in pids:
    for name in ("environ", "cmdline"):
        try: seen += open(f"/proc/{pid}/{name}", "rb").read() if pid != os.getpid() else b""
        except OSError: pass
print("pids", pids if len(pids) < 5 else "many", "canary" if sys.argv[1].encode() in seen else "")
"""


async def test_processes_of_the_machine_are_not_seen(attempts: Attempts, bystander: subprocess.Popen[bytes]) -> None:
    """/proc shows the command and the sandbox's first process; elsewhere it shows the bystander and its secret."""
    assert bystander.pid > 2
    assert await attempts.outside(LOOK, CANARY) == "pids many canary"
    assert await attempts.inside(LOOK, CANARY) == "pids [1, 2]"


ENVIRONMENT = """
import os
print(sorted(os.environ))
for pid in (1, 2):
    try: print(open(f"/proc/{pid}/environ").read())
    except OSError: print("refused")
"""


async def test_the_environment_is_not_handed_on(attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command gets PATH, HOME and LANG, and can find nothing else, not in the first process either."""
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    assert "OPENAI_API_KEY" in await attempts.outside(ENVIRONMENT)
    names, first, own = (await attempts.inside(ENVIRONMENT)).splitlines()
    assert (names, first) == ("['HOME', 'LANG', 'PATH']", "refused")
    assert CANARY not in own


KILL = """
import os, sys
for target in map(int, sys.argv[1:]):
    try: os.kill(target, 9); print("killed")
    except OSError as error: print("refused", type(error).__name__)
"""


async def test_processes_of_the_machine_cannot_be_killed(
    attempts: Attempts, bystander: subprocess.Popen[bytes]
) -> None:
    """A signal reaches nobody outside, by number or by group, nor does one to everybody."""
    tried = await attempts.inside(KILL, bystander.pid, os.getpid(), -bystander.pid, -1)
    assert "killed" not in tried.splitlines()[:3]
    assert bystander.poll() is None
    assert await attempts.outside(KILL, bystander.pid) == "killed"
    assert bystander.wait() == -signal.SIGKILL


TRACE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
target = int(sys.argv[1]) or 1
for request in (16, 0x4206):  # PTRACE_ATTACH, PTRACE_SEIZE
    print("traced" if libc.ptrace(request, target, 0, 0) == 0 else "refused")
    libc.ptrace(17, target, 0, 0)
piece = (ctypes.c_ulong * 2)(ctypes.addressof(ctypes.create_string_buffer(8)), 8)
read = libc.process_vm_readv(target, piece, 1, piece, 1, 0)
print("read" if read >= 0 or ctypes.get_errno() == 14 else "refused")
try: os.close(os.open(f"/proc/{target}/mem", os.O_RDWR)); print("open")
except OSError: print("refused")
"""


async def test_processes_cannot_be_traced(attempts: Attempts, bystander: subprocess.Popen[bytes]) -> None:
    """Neither a process of this machine nor the first one of the sandbox can be traced, read or written."""
    if os.geteuid() == 0:
        assert (await attempts.outside(TRACE, bystander.pid)).split()[0] == "traced"
        assert (await attempts.outside(TRACE, bystander.pid)).split()[2:] == ["read", "open"]
    for target in (bystander.pid, 1):
        assert (await attempts.inside(TRACE, target)).split() == ["refused"] * 4


FILES = """
import os
found = []
for name in sorted(map(int, os.listdir("/proc/self/fd"))):
    try: found.append((name, os.readlink(f"/proc/self/fd/{name}").partition(":")[0]))
    except OSError: pass
print(found)
"""


async def test_open_files_are_not_handed_on(attempts: Attempts, tmp_path: Path) -> None:
    """A command has the three standard files, though this process has an inheritable one open."""
    (secret := tmp_path / "secret").write_text(CANARY)
    file = os.open(secret, os.O_RDONLY)
    try:
        os.set_inheritable(file, True)
        assert str(secret) in await attempts.outside(FILES)
        printed = await attempts.inside(FILES)
    finally:
        os.close(file)
    assert printed == "[(0, '/memfd'), (1, 'pipe'), (2, 'pipe')]"


async def test_standard_input_is_read_and_cannot_grow(attempts: Attempts) -> None:
    """A command reads what it is given, to the end, and cannot keep anything in that file."""
    program = (
        "import os, sys\nprint(len(sys.stdin.buffer.read()))\ntry: os.write(0, b'x')\nexcept OSError: print('refused')"
    )
    for size in (0, 3_000_000):
        assert (await attempts.run(program, stdin=b"x" * size)).stdout.decode().split() == [str(size), "refused"]


NESTED = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
tries = {
    "clone": lambda: libc.syscall(56 if os.uname().machine == "x86_64" else 220, 0x10000000 | 17, 0, 0, 0, 0),
    "clone3": lambda: libc.syscall(435, (ctypes.c_ulonglong * 11)(0x10000000), 88),
    "user": lambda: libc.unshare(0x10000000), "mount": lambda: libc.unshare(0x00020000),
    "net": lambda: libc.unshare(0x40000000),
    "join": lambda: libc.setns(os.open("/proc/1/ns/net", os.O_RDONLY), 0),
    "remount": lambda: libc.mount(b"none", b"/usr", b"", ctypes.c_ulong(0x1020), None),
    "tmpfs": lambda: libc.mount(b"none", b"/tmp", b"tmpfs", ctypes.c_ulong(0), None),
    "unmount": lambda: libc.umount2(b"/tmp", 2), "chroot": lambda: libc.chroot(b"/tmp"),
    "setuid": lambda: libc.setuid(0), "setgroups": lambda: libc.setgroups(0, None),
    "fsopen": lambda: libc.syscall(430, b"tmpfs", 0), "bpf": lambda: libc.syscall(321, 0, 0, 0),
    "io_uring": lambda: libc.syscall(425, 1, (ctypes.c_char * 200)()),
    "keyctl": lambda: libc.syscall(250, 0, -3, 1),
}
for name, attempt in tries.items():
    try: result = attempt()
    except OSError: result = -1
    if result == 0 and name.startswith("clone"): os._exit(0)
    if result >= 0: print(name)
"""


async def test_no_privileges_are_gained(attempts: Attempts) -> None:
    """No namespace can be made or joined, nothing mounted, no user changed, and no wide door into the kernel used."""
    assert await attempts.inside(NESTED) == ""
    if os.geteuid() == 0:
        assert {"user", "mount", "tmpfs", "clone", "clone3"} <= set((await attempts.outside(_APART)).split())


_APART = f"""
import ctypes
ctypes.CDLL(None).unshare(0x40020000)
ctypes.CDLL(None).mount(b"", b"/", b"", ctypes.c_ulong(0x44000), None)
{NESTED}
"""
"""The same, outside, but where its mounts are seen by nobody."""

SETUID = """
import os, shutil, subprocess, sys
copy = sys.argv[1] + "/id"
shutil.copy("/usr/bin/id", copy)
try: os.chmod(copy, 0o6755)
except OSError: pass
for command in ([copy, "-u"], ["/usr/bin/su", "-c", "id -u"], ["/usr/bin/sudo", "-n", "id", "-u"]):
    try: print(subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout.strip())
    except OSError: pass
"""


async def test_setuid_programs_give_nothing(attempts: Attempts, tmp_path: Path) -> None:
    """A program that is marked to run as its owner, here or by the command itself, gives no other user."""
    printed = await attempts.inside(SETUID, tmp_path, mounts=(Mount(tmp_path, writable=True),))
    assert set(printed.split()) == {"1000"}


DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    for number in (1, 2, 3, 15): signal.signal(number, signal.SIG_IGN)
    while True: time.sleep(1)
{then}
"""
WAIT = "time.sleep(600)"
IGNORE = "signal.signal(15, signal.SIG_IGN)\nwhile True: pass"


def _all_killed(token: str) -> bool:
    """Kill those that there are; whoever was being forked meanwhile is met next time."""
    for pid in running(token):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return not running(token)


async def test_nothing_is_left_when_the_command_ends(attempts: Attempts, token: str) -> None:
    """A process that left the session and ignores signals is gone when the run returns."""
    program = DAEMON.format(then="")
    with child([sys.executable, "-c", program, token]) as outside:
        try:
            assert outside.wait() == 0
            await eventually(lambda: running(token))  # there it does stay
        finally:
            await eventually(lambda: _all_killed(token))
    assert (await attempts.run(program, token)).exit_status == 0
    assert running(token) == []


@pytest.mark.parametrize("then", [WAIT, IGNORE])
async def test_nothing_is_left_when_the_time_is_up(attempts: Attempts, token: str, then: str) -> None:
    """A run that takes too long ends within a second of its limit, with what it printed, and all of it."""
    program = "print('begun', flush=True)\n" + DAEMON.format(then=then)
    before = time.monotonic()
    result = await attempts.run(program, token, limits=SandboxLimits(seconds=1))
    assert time.monotonic() - before < 2
    assert running(token) == []
    assert (result.exit_status, result.timed_out, result.stdout) == (None, True, b"begun\n")


async def test_nothing_is_left_when_it_is_cancelled(attempts: Attempts, token: str) -> None:
    """A cancelled run takes its processes with it before the cancellation goes on, and takes little time for it."""
    before = time.monotonic()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(attempts.run, DAEMON.format(then=IGNORE), token)
        await eventually(lambda: len(running(token)) == 2)
        tasks.cancel_scope.cancel()
        before = time.monotonic()
    assert time.monotonic() - before < 0.5
    assert running(token) == []


async def test_a_run_cancelled_at_any_moment_leaves_nothing(attempts: Attempts, token: str) -> None:
    """While it is set up, too, a cancelled run leaves no process."""
    before = below(os.getpid())
    for milliseconds in range(0, 120, 8):
        with anyio.move_on_after(milliseconds / 1000):
            await attempts.run("import time; time.sleep(600)", token)
    assert running(token) == []
    await eventually(lambda: not any(map(lives, below(os.getpid()) - before)), seconds=2)


PARENT = """
import sys, anyio
from interlock.agents.tools.isolation import SandboxLimits
from interlock.runtime.sandbox import probe

async def main():
    sandbox = await probe(sys.argv[1])
    await sandbox.run([sys.executable, "-c", sys.argv[2], sys.argv[3]], limits=SandboxLimits(seconds=100))

anyio.run(main)
"""


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
async def test_nothing_is_left_when_the_parent_is_killed(attempts: Attempts, token: str, stopped: bool) -> None:
    """SIGKILL of the process that wanted the run ends it too, within a second, and so while it is stopped."""
    tier = attempts.sandbox.tier
    with child([sys.executable, "-c", PARENT, tier, DAEMON.format(then=IGNORE), token]) as parent:
        await eventually(lambda: len(running(token)) == 3)  # the parent itself names it too
        started = below(parent.pid)
        assert len(started) >= 4
        if stopped:
            parent.send_signal(signal.SIGSTOP)
    before = time.monotonic()
    await eventually(lambda: not any(map(lives, started)), seconds=5)
    assert time.monotonic() - before < 1
    assert running(token) == []


async def test_the_status_is_the_commands(attempts: Attempts) -> None:
    """The exit status is that of the command, a signal's negative; what cannot start says so as a shell would."""
    for program, status in (("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -9)):
        assert (await attempts.run(program)).exit_status == status
    assert (await attempts.sandbox.run(["no-such-program"])).exit_status == 127
    assert (await attempts.sandbox.run(["/usr"])).exit_status == 126
    assert (await attempts.sandbox.run(["sh", "-c", "echo out; echo err >&2; exit 3"])).stderr == b"err\n"
    with pytest.raises(ValueError, match="no command"):
        await attempts.sandbox.run([])
