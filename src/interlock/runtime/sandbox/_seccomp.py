"""Which system calls a command in a sandbox may not make, as a classic BPF program for the kernel.

Nothing here is needed to keep a command inside its namespaces; it takes away what could be used to get out by a fault
of the kernel (nested namespaces, mounts, BPF, io_uring, keys), what namespaces do not cover (``AF_VSOCK``, the
terminal), and memory that no limit counts (memory files, System V shared memory).
"""

import platform
import struct
from collections.abc import Mapping
from errno import EAFNOSUPPORT, ENOSYS, EPERM

_ALLOW, _ERRNO, _ASK, _KILL = 0x7FFF0000, 0x00050000, 0x7FC00000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24
_X32 = 0x40000000
"""Where the numbers of a second ABI begin on x86-64: the same calls again, which no list of numbers would match."""

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMN = {"x86_64": 0, "aarch64": 1}

_REFUSED = {
    # namespaces and mounts: x86-64, aarch64
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    # wide doors into the kernel
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "fanotify_init": (300, 262), "personality": (135, 92),
    "modify_ldt": (154, None), "iopl": (172, None), "ioperm": (173, None), "uselib": (134, None),
    # the machine's state
    "syslog": (103, 116), "acct": (163, 89), "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "vhangup": (153, 58),
}  # fmt: skip
"""Answered with EPERM."""

_ABSENT = {
    "clone3": (435, 435),  # its flags are behind a pointer, where BPF cannot look; libraries then use clone
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180),
}  # fmt: skip
"""Answered with ENOSYS, so that libraries look for another way."""

_FORKS = ((57, None), (58, None))
_CLONE, _SOCKET, _IOCTL = (56, 220), (41, 198), (16, 29)
_NEW_NAMESPACES = 0x7E020080
_FAMILIES = (2, 10)
"""AF_INET and AF_INET6: a network of its own with nothing but loopback. No AF_UNIX, which would reach a socket in a
mounted folder (``socketpair`` works), no AF_VSOCK, which no network namespace holds back, nor any other."""
_TERMINAL = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX: typing into a terminal. The kernel reads the lower 32 bits only, and so does the program."""


def seccomp_program(machine: str = "") -> bytes | None:
    """Return the filter for ``machine`` (``platform.machine()``); None where its numbers are not known."""
    machine = machine or platform.machine()
    if machine not in _COLUMN:
        return None
    column = _COLUMN[machine]
    return b"".join([
        *_only(_AUDIT_ARCH[machine]),
        *_refused(_REFUSED, column, EPERM),
        *_refused(_ABSENT, column, ENOSYS),
        *_clone(_CLONE[column]),
        *_arguments(_SOCKET[column], _ARG0, _FAMILIES, inside=_ALLOW, outside=_ERRNO | EAFNOSUPPORT),
        *_arguments(_IOCTL[column], _ARG1, _TERMINAL, inside=_ERRNO | EPERM, outside=_ALLOW),
        _step(_RETURN, _ALLOW),
    ])  # fmt: skip


def fork_program(machine: str = "") -> bytes:
    """Return the filter that makes whoever wants to start a process or thread wait for an answer."""
    machine = machine or platform.machine()
    column = _COLUMN[machine]
    asked = [number for pair in (_CLONE, *_FORKS) if (number := pair[column]) is not None]
    steps = [step for number in asked for step in (_step(_EQUAL, number, otherwise=1), _step(_RETURN, _ASK))]
    return b"".join([*_only(_AUDIT_ARCH[machine]), *steps, _step(_RETURN, _ALLOW)])


def _step(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """Return one instruction; ``then`` and ``otherwise`` are how many are skipped after a comparison."""
    return struct.pack("=HBBI", code, then, otherwise, value)


def _only(arch: int) -> list[bytes]:
    """Kill what comes by another ABI, whose numbers mean other calls, and leave the call's number loaded."""
    return [
        _step(_LOAD, _ARCH),
        _step(_EQUAL, arch, then=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32, otherwise=1),
        _step(_RETURN, _ERRNO | ENOSYS),
    ]


def _refused(calls: Mapping[str, tuple[int, int | None]], column: int, errno: int) -> list[bytes]:
    numbers = [number for pair in calls.values() if (number := pair[column]) is not None]
    return [step for number in numbers for step in (_step(_EQUAL, number, otherwise=1), _step(_RETURN, _ERRNO | errno))]


def _clone(number: int) -> list[bytes]:
    """Refuse processes in namespaces of their own."""
    return [
        _step(_EQUAL, number, otherwise=4),
        _step(_LOAD, _ARG0),
        _step(_ANY_BIT, _NEW_NAMESPACES, otherwise=1),
        _step(_RETURN, _ERRNO | EPERM),
        _step(_RETURN, _ALLOW),
    ]


def _arguments(number: int, argument: int, values: tuple[int, ...], *, inside: int, outside: int) -> list[bytes]:
    """Answer the call ``number`` by whether its argument is one of ``values``."""
    compared = [step for value in values for step in (_step(_EQUAL, value, otherwise=1), _step(_RETURN, inside))]
    body = [_step(_LOAD, argument), *compared, _step(_RETURN, outside)]
    return [_step(_EQUAL, number, otherwise=len(body)), *body]
