"""The filter of system calls, run here as the kernel would run it."""

import struct
from errno import EAFNOSUPPORT, ENOSYS, EPERM

import pytest

from interlock.runtime.sandbox._seccomp import fork_program, seccomp_program

ALLOW, ERRNO, ASK, KILL = 0x7FFF0000, 0x00050000, 0x7FC00000, 0x80000000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CALLS = {
    "x86_64": {
        "read": 0,
        "clone": 56,
        "fork": 57,
        "socket": 41,
        "ioctl": 16,
        "unshare": 272,
        "mount": 165,
        "clone3": 435,
    },
    "aarch64": {"read": 63, "clone": 220, "socket": 198, "ioctl": 29, "unshare": 97, "mount": 40, "clone3": 435},
}

both = pytest.mark.parametrize("machine", ARCHITECTURES)


def verdict(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """Run the program as classic BPF over one system call and return what it answers."""
    data = struct.pack("=iIQ6Q", number, arch, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = loaded = 0
    while True:
        code, then, otherwise, value = steps[at]
        at += 1
        match code:
            case 0x20:
                loaded = struct.unpack_from("=I", data, value)[0]
            case 0x06:
                return int(value)
            case _:
                holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[code]
                at += then if holds else otherwise


def asked(machine: str, call: str, *arguments: int) -> int:
    """Return what the filter of a machine answers to one of its calls."""
    program = seccomp_program(machine)
    assert program is not None
    return verdict(program, ARCHITECTURES[machine], CALLS[machine][call], *arguments)


@both
def test_what_is_refused(machine: str) -> None:
    """Namespaces and mounts are refused, clone3 does not exist, and reading a file is allowed."""
    assert asked(machine, "read") == ALLOW
    assert {asked(machine, call) for call in ("unshare", "mount")} == {ERRNO | EPERM}
    assert asked(machine, "clone3") == ERRNO | ENOSYS


@both
def test_processes_may_be_started_but_not_in_namespaces(machine: str) -> None:
    """Threads and forks are allowed, each flag that makes a namespace is not."""
    assert asked(machine, "clone", 0x003D0F00) == ALLOW
    assert asked(machine, "clone", 0x01200011) == ALLOW
    for bit in (0x00020000, *(1 << number for number in range(25, 31))):
        assert asked(machine, "clone", bit | 17) == ERRNO | EPERM


@both
def test_only_internet_sockets_are_made(machine: str) -> None:
    """Of all families AF_INET and AF_INET6 are allowed."""
    allowed = [family for family in range(64) if asked(machine, "socket", family) == ALLOW]
    assert allowed == [2, 10]
    assert asked(machine, "socket", 40) == ERRNO | EAFNOSUPPORT


@both
def test_nothing_is_typed_whatever_the_upper_bits_say(machine: str) -> None:
    """TIOCSTI and TIOCLINUX are refused also with bits set that the kernel does not read."""
    assert asked(machine, "ioctl", 1, 0x5401) == ALLOW
    for command in (0x5412, 0x541C, 0x1_0000_5412, 0xFFFF_FFFF_0000_541C):
        assert asked(machine, "ioctl", 1, command) == ERRNO | EPERM


@both
def test_other_abis_are_no_way_around(machine: str) -> None:
    """A call by another architecture's numbers kills, and the second ABI of x86-64 does not exist."""
    program = seccomp_program(machine)
    assert program is not None
    assert verdict(program, 0x40000003, 0) == KILL
    assert verdict(program, ARCHITECTURES[machine], 0x40000000 + CALLS[machine]["read"]) == ERRNO | ENOSYS


@both
def test_who_starts_a_process_asks(machine: str) -> None:
    """Of all calls, those that start a process or thread wait for an answer."""
    program = fork_program(machine)
    starting = {number for number in range(500) if verdict(program, ARCHITECTURES[machine], number) == ASK}
    assert starting == ({56, 57, 58} if machine == "x86_64" else {220})


def test_an_unknown_machine_has_no_filter() -> None:
    """Where the numbers of the calls are not known there is no filter, and so no sandbox."""
    assert seccomp_program("riscv64") is None
