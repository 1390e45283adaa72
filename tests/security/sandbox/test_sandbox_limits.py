"""How much a command in a sandbox can use: each of these would go on, or take much more, without a limit."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.security.sandbox.conftest import SHORT, Attempts

from interlock.agents.tools.isolation import Mount, SandboxLimits

MIB = 1024 * 1024

FORK_BOMB = """
import os, sys
file = os.open(sys.argv[1] + "/count", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
while True:
    try:
        if os.fork() == 0: os.write(file, b".")
    except OSError: pass
"""


async def test_a_fork_bomb_is_ended(
    attempts: Attempts, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Processes that only multiply never are more than the limit, and soon all gone."""
    before = time.monotonic()
    result = await attempts.run(
        FORK_BOMB, tmp_path, mounts=(Mount(tmp_path, writable=True),), limits=SandboxLimits(seconds=5)
    )
    seconds, made = time.monotonic() - before, (tmp_path / "count").stat().st_size
    record_property("processes", made)
    record_property("seconds", round(seconds, 2))
    assert 8 < made < 80  # as root, two that were allowed at the same time may be one too many
    if os.geteuid() == 0:  # the kernel stops others at the limit, until their time is up
        assert (result.exceeded, result.exit_status) == ("processes", None)
        assert seconds < 3


THREADS = """
import threading, time
threading.stack_size(65536)
for number in range(500):
    try: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    except RuntimeError: print("refused", flush=True); break
time.sleep(60)
"""


async def test_threads_count_as_processes(attempts: Attempts) -> None:
    """Threads beyond the limit end the run where the kernel does not refuse them."""
    result = await attempts.run(THREADS, limits=replace(SHORT, seconds=3))
    assert result.exceeded == "processes" or result.stdout == b"refused\n"


SIXTEEN = """
import os, time
for _ in range(15):
    if os.fork() == 0: time.sleep(0.2); os._exit(0)
for _ in range(15): os.wait()
"""


async def test_as_many_processes_as_allowed_can_run(attempts: Attempts) -> None:
    """A command may have as many processes as the limit says."""
    assert (await attempts.run(SIXTEEN, limits=replace(SHORT, processes=16))).exit_status == 0
    too_many = await attempts.run(SIXTEEN, limits=replace(SHORT, processes=8))
    assert too_many.exceeded == "processes" or too_many.exit_status == 1


PRIVATE = """
try: bytearray(600 << 20); print("had it")
except MemoryError: print("refused")
"""
GROWING = "kept = []\nwhile True: kept.append(bytearray(1 << 20))"
SHARED = "import mmap\nwith mmap.mmap(-1, 4 << 30) as all:\n    for at in range(0, 4 << 30, 4096): all[at] = 1"
MANY = """
import os
for _ in range(20):
    if os.fork() == 0: break
kept = bytearray(b"x" * (60 << 20))
while True: pass
"""
FILES = """
while True:
    for name in ("/tmp/a", "/dev/shm/a"):
        try: open(name, "ab").write(bytes(1 << 20))
        except OSError: pass
"""
INODES = """
number = 0
while True:
    number += 1
    open(f"/tmp/{number}", "w").close()
"""


async def test_one_process_gets_no_more_memory_than_allowed(attempts: Attempts) -> None:
    """An allocation beyond the limit fails, as one of Python's own errors; outside it does not."""
    assert await attempts.outside(PRIVATE) == "had it"
    assert await attempts.inside(PRIVATE) == "refused"
    assert b"MemoryError" in (await attempts.run(GROWING)).stderr


@pytest.mark.parametrize("program", [SHARED, MANY, FILES, INODES], ids=["shared", "many processes", "files", "inodes"])
async def test_all_together_hold_no_more_memory_than_allowed(attempts: Attempts, program: str) -> None:
    """Memory that no limit of one process counts ends the run when all of it is too much."""
    limits = SandboxLimits(seconds=15, memory_bytes=100 * MIB, disk_bytes=80 * MIB)
    result = await attempts.run(program, limits=limits)
    assert (result.exceeded, result.exit_status) == ("memory", None)


HIDDEN = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
try: os.memfd_create("hidden"); print("file")
except OSError: pass
if libc.shmget(0, ctypes.c_size_t(1 << 20), 0o1600) >= 0: print("segment")
"""


async def test_there_is_no_memory_that_is_not_seen(attempts: Attempts) -> None:
    """Memory that belongs to no process, and so would not be counted, cannot be had."""
    assert (await attempts.outside(HIDDEN)).split() == ["file", "segment"]
    assert await attempts.inside(HIDDEN) == ""


ONE_FILE = """
import sys
try:
    with open(sys.argv[1] + "/big", "wb") as file:
        for _ in range(100): file.write(bytes(1 << 20))
except OSError as error: print(error.errno)
"""


async def test_a_file_grows_to_its_limit(attempts: Attempts, tmp_path: Path) -> None:
    """A file stops growing at the limit, in a mount and in the private /tmp."""
    limits = replace(SHORT, file_bytes=10 * MIB)
    result = await attempts.run(ONE_FILE, tmp_path, mounts=(Mount(tmp_path, writable=True),), limits=limits)
    assert result.stdout == b"27\n"
    assert (tmp_path / "big").stat().st_size <= 10 * MIB
    assert (await attempts.run(ONE_FILE, "/tmp", limits=limits)).stdout == b"27\n"  # noqa: S108 -- the private one


MANY_FILES = """
import os, sys, time
for number in range(60):
    with open(sys.argv[1] + "/" + str(number), "wb") as file:
        file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())
    {then}
time.sleep(10)
"""


async def test_many_files_do_not_fill_the_disk(attempts: Attempts, tmp_path: Path) -> None:
    """A run that writes more files to a mount than its limit allows is ended."""
    limits = SandboxLimits(seconds=15, disk_bytes=20 * MIB)
    mounts = (Mount(tmp_path, writable=True),)
    result = await attempts.run(MANY_FILES.format(then=""), tmp_path, mounts=mounts, limits=limits)
    assert (result.exceeded, result.exit_status) == ("disk", None)


async def test_deleted_files_do_not_fill_the_disk(attempts: Attempts, tmp_path: Path) -> None:
    """Files that were deleted but are still open count too, if later."""
    program = MANY_FILES.format(then="os.dup(os.open(file.name, os.O_RDONLY)); os.unlink(file.name)")
    limits = SandboxLimits(seconds=15, disk_bytes=5 * MIB)
    result = await attempts.run(program, tmp_path, mounts=(Mount(tmp_path, writable=True),), limits=limits)
    assert (result.exceeded, result.exit_status) == ("disk", None)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_output_is_bounded(attempts: Attempts, stream: str) -> None:
    """A program that prints without end is ended as soon as it printed what is kept."""
    program = f"import sys\nwhile True: sys.{stream}.write('x' * 65536)"
    before = time.monotonic()
    result = await attempts.run(program, limits=replace(SHORT, output_bytes=100_000))
    assert time.monotonic() - before < 5
    assert getattr(result, stream) == b"x" * 100_000
    assert (result.truncated, result.exit_status, result.timed_out) == (True, None, False)


async def test_output_up_to_the_limit_is_whole(attempts: Attempts) -> None:
    """A program that prints exactly what is kept is not cut."""
    result = await attempts.run("print('x' * 99_999)", limits=replace(SHORT, output_bytes=100_000))
    assert (len(result.stdout), result.truncated, result.exit_status) == (100_000, False, 0)


async def test_processor_time_is_bounded(attempts: Attempts) -> None:
    """A process that computes longer than allowed is killed by the kernel."""
    result = await attempts.run("while True: pass", limits=replace(SHORT, cpu_seconds=1))
    assert (result.exit_status, result.timed_out) == (-9, False)
