"""What a command in a sandbox can read and write of this machine."""

# ruff: noqa: ASYNC240 -- nothing else waits while a test looks at a file

import os
import sys
from pathlib import Path

import pytest
from tests.security.sandbox.conftest import Attempts

from interlock.agents.tools.isolation import Mount, MountRefused, Sandbox

READ = """
import sys
try: print("read", open(sys.argv[1], "rb").read(64))
except OSError as error: print("refused", type(error).__name__)
"""

WRITE = """
import sys
try:
    with open(sys.argv[1], "ab") as file: file.write(b"was here")
    print("written")
except OSError as error: print("refused", type(error).__name__)
"""

OPEN_FOR_WRITING = """
import os, sys
try: os.close(os.open(sys.argv[1], os.O_WRONLY)); print("open")
except OSError as error: print("refused", type(error).__name__)
"""

LIST = """
import os, sys
try: print("listed", sorted(os.listdir(sys.argv[1])))
except OSError as error: print("refused", type(error).__name__)
"""

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Make a file of this machine that is not shown inside."""
    path = tmp_path / "state" / "secret"
    path.parent.mkdir()
    path.write_text("canary")
    return path


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Make a folder that is shown inside."""
    path = tmp_path / "shared"
    path.mkdir()
    return path


async def test_files_outside_the_mounts_are_not_there(attempts: Attempts, secret: Path, shared: Path) -> None:
    """A file beside a mounted folder can be read by anyone here, and by nobody inside."""
    assert await attempts.outside(READ, secret) == "read b'canary'"
    assert await attempts.inside(READ, secret, mounts=(Mount(shared, writable=True),)) == "refused FileNotFoundError"


@pytest.mark.parametrize("path", ["/etc/shadow", "/etc/passwd", "/etc/hostname", "/var/lib/dpkg/status"])
async def test_files_of_the_machine_are_not_there(attempts: Attempts, path: str) -> None:
    """The accounts, the settings and the state of this machine cannot be read inside."""
    if Path(path).exists() and (AS_ROOT or path == "/etc/passwd"):
        assert (await attempts.outside(READ, path)).startswith("read")
    assert (await attempts.inside(READ, path)).startswith("refused")


async def test_the_home_folder_is_empty(attempts: Attempts) -> None:
    """Nothing of the user's home is seen, at most the way to this Python where it is installed there."""
    inside = await attempts.inside(LIST, Path.home())
    assert await attempts.outside(LIST, Path.home()) != inside
    assert inside in ("refused FileNotFoundError", f"listed {_ways_to_python(Path.home())}")


def _ways_to_python(home: Path) -> list[str]:
    paths = [Path(path) for path in (sys.prefix, sys.base_prefix, sys.executable)]
    return sorted({path.relative_to(home).parts[0] for path in paths if path.is_relative_to(home)})


@pytest.mark.parametrize("way", ["/proc/1/root", "/proc/1/cwd", "/proc/self/root", "/proc/self/cwd/../../.."])
async def test_proc_is_no_way_out(attempts: Attempts, secret: Path, way: str) -> None:
    """The links in /proc lead to what is seen inside, or nowhere."""
    assert (await attempts.outside(READ, f"/proc/self/root{secret}")).startswith("read")
    assert (await attempts.inside(READ, f"{way}{secret}")).startswith("refused")


async def test_nothing_is_written_outside_the_mounts(attempts: Attempts, secret: Path, shared: Path) -> None:
    """Writing to a path that this machine has changes nothing here, not even in a read-only mount."""
    mounts = (Mount(shared),)
    (shared / "file").write_text("mine")
    assert await attempts.outside(WRITE, secret) == "written"
    before = secret.read_bytes()
    for path in (secret, secret.parent / "new", shared / "file", shared / "new"):
        assert (await attempts.inside(WRITE, path, mounts=mounts)).startswith("refused")
    assert secret.read_bytes() == before
    assert [path.name for path in shared.iterdir()] == ["file"]
    assert (shared / "file").read_text() == "mine"


@pytest.mark.parametrize("path", ["/new", "/usr/new", "/etc/new", "/dev/new", "/var/new", "/.interlock/inside.py"])
async def test_the_system_cannot_be_changed(attempts: Attempts, path: str) -> None:
    """Everything but /tmp, /dev/shm and the writable mounts is read-only."""
    assert (await attempts.inside(WRITE, path)).startswith("refused")
    assert path.startswith("/.interlock") or not Path(path).exists()


@pytest.mark.parametrize("path", ["/tmp/new", "/dev/shm/new"])  # noqa: S108 -- the private ones, inside
async def test_temporary_files_are_private(attempts: Attempts, path: str) -> None:
    """What is written to /tmp inside is neither here nor in the next run."""
    assert await attempts.inside(WRITE, path) == "written"
    assert not Path(path).exists()
    assert await attempts.inside(READ, path) == "refused FileNotFoundError"


async def test_a_writable_mount_is_written_through(attempts: Attempts, shared: Path) -> None:
    """What is written to a writable mount is here afterwards, and ours."""
    assert await attempts.inside(WRITE, shared / "new", mounts=(Mount(shared, writable=True),)) == "written"
    assert (shared / "new").read_text() == "was here"
    assert (shared / "new").stat().st_uid == os.geteuid()


LINKS = """
import os, sys
secret, shared = sys.argv[1:]
os.symlink(secret, shared + "/soft")
for way in (lambda: os.link(secret, shared + "/hard"), lambda: open(shared + "/soft").read(),
            lambda: open(shared + "/soft", "a").write("was here"), lambda: os.listdir(shared + "/planted"),
            lambda: open(shared + "/planted/secret").read()):
    try: way()
    except OSError as error: print(type(error).__name__)
    else: print("escaped")
"""


async def test_links_do_not_lead_out_of_a_mount(attempts: Attempts, secret: Path, shared: Path, tmp_path: Path) -> None:
    """Neither links made inside nor links that stood in the folder lead to files outside of it."""
    (shared / "planted").symlink_to(secret.parent)
    (open_field := tmp_path / "field").mkdir()
    (open_field / "planted").symlink_to(secret.parent)
    assert (await attempts.outside(LINKS, secret, open_field)).split() == ["escaped"] * 5
    before = secret.read_bytes()
    tried = await attempts.inside(LINKS, secret, shared, mounts=(Mount(shared, writable=True),))
    assert tried.split() == ["FileNotFoundError"] * 5
    assert secret.read_bytes() == before


async def test_a_link_left_in_a_mount_opens_nothing_in_the_next_run(
    attempts: Attempts, secret: Path, shared: Path
) -> None:
    """Where a command replaced a folder by a link, the folder is not mounted any more: it would be another one."""
    (shared / "inner").symlink_to(secret.parent)
    for path in (shared / "inner", shared / "inner" / "secret"):
        with pytest.raises(MountRefused, match="symbolic link"):
            await attempts.inside(READ, secret, mounts=(Mount(shared, writable=True), Mount(path)))


@pytest.mark.skipif(Path(sys.prefix) == Path("/usr"), reason="this Python is the system's, which no mount covers")
async def test_python_stays_read_only_below_a_writable_mount(attempts: Attempts) -> None:
    """Mounting the folder above the virtual environment to write to it leaves the environment as it is."""
    probe = Path(sys.prefix) / "new"
    assert (await attempts.inside(WRITE, probe, mounts=(Mount(probe.parents[1], writable=True),))).startswith("refused")
    assert not probe.exists()


@pytest.mark.parametrize("path", ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger"])
async def test_the_kernel_cannot_be_set(attempts: Attempts, path: str) -> None:
    """The kernel's settings, which its root may write without any capability, are not writable inside."""
    if AS_ROOT and Path(path).exists():
        assert await attempts.outside(OPEN_FOR_WRITING, path) == "open"
    assert (await attempts.inside(OPEN_FOR_WRITING, path)).startswith("refused")


WRITABLE = """
import os, stat, sys
for top, folders, files in os.walk("/"):
    if top in ("/usr", sys.prefix, sys.base_prefix): folders[:] = []  # one mount, and large
    if top == "/proc": folders[:] = [name for name in folders if not name.isdigit()]
    for path in [top, *(os.path.join(top, name) for name in files)]:
        mode = os.lstat(path).st_mode
        if not stat.S_ISLNK(mode) and not stat.S_ISCHR(mode) and os.access(path, os.W_OK): print(path)
"""


async def test_only_temporary_folders_are_writable(attempts: Attempts) -> None:
    """Of all that is seen without mounts, beside a process's own settings, /tmp and /dev/shm alone can be written.

    Where the interpreter stands below the host's /tmp, so do the private folders on the way to it.
    """
    found = (await attempts.inside(WRITABLE)).split()
    on_the_way = {str(folder) for prefix in (sys.prefix, sys.base_prefix) for folder in Path(prefix).parents}
    assert sorted(set(found) - on_the_way | {"/tmp"}) == ["/dev/shm", "/tmp"]  # noqa: S108 -- those inside
    assert all(path.startswith(("/tmp", "/dev/shm")) for path in found)  # noqa: S108 -- as above


DEVICES = """
import os, stat, sys
found = sorted(name for name in os.listdir("/dev"))
print(found)
for kind in (stat.S_IFBLK, stat.S_IFCHR):
    try: os.mknod("/tmp/node", kind | 0o600, os.makedev(8 if kind == stat.S_IFBLK else 1, 1)); print("made")
    except OSError: print("refused")
"""


async def test_there_are_no_devices(attempts: Attempts) -> None:
    """There is no disk, memory or terminal in /dev, and none can be made."""
    harmless = ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"]
    assert (await attempts.inside(DEVICES)).splitlines() == [str(harmless), "refused", "refused"]


@pytest.mark.parametrize("path", ["/", "/proc", "/sys", "/dev", "/run", "relative", "/nowhere/at/all", "/dev/null"])
async def test_the_machine_itself_is_not_mounted(sandbox: Sandbox, path: str) -> None:
    """A mount that would show the machine, or that is not there, is refused before anything runs."""
    with pytest.raises(MountRefused):
        await sandbox.run(["true"], mounts=[Mount(Path(path))])


async def test_the_folder_is_one_of_the_mounts(attempts: Attempts, shared: Path, tmp_path: Path) -> None:
    """A command starts in the folder named, which is shown, or in /tmp."""
    (shared / "deep").mkdir()
    where = "import os; print(os.getcwd())"
    mounts = (Mount(shared),)
    assert await attempts.inside(where) == "/tmp"  # noqa: S108 -- the private one
    assert (await attempts.run(where, mounts=mounts, folder=shared / "deep")).stdout.decode() == f"{shared / 'deep'}\n"
    with pytest.raises(MountRefused):
        await attempts.run(where, mounts=mounts, folder=tmp_path)
