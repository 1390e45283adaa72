"""What tools know of sandboxes: what to run, what it sees, how much it may use, and what came of it.

::

    SandboxError
    +-- SandboxMissing   no sandbox works on this machine
    +-- SandboxFailed    a sandbox that works could not be set up for this run, or was ended from outside
    +-- MountRefused     a folder that must not, or cannot, be shown inside
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

__all__ = [
    "Mount",
    "MountRefused",
    "Sandbox",
    "SandboxError",
    "SandboxFailed",
    "SandboxLimits",
    "SandboxMissing",
    "SandboxResult",
]

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of this machine that is shown inside, at the same path."""

    path: Path
    """Absolute, and with no symbolic link on the way: resolve it once, before anything untrusted could change it."""
    writable: bool = False
    """Whether it can be changed from inside; what is written there stays, and belongs to this process's user."""


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """How much one run may use. Whichever is reached first ends the run, or fails what the code inside was doing."""

    seconds: float = 30.0
    """Wall-clock seconds, set-up included; then everything inside is killed."""
    cpu_seconds: int = 30
    """CPU seconds of each process, which is then killed."""
    memory_bytes: int = 512 * _MIB
    """What one process may allocate, and what all together may hold, private files in memory included."""
    processes: int = 64
    """Processes and threads at one time."""
    file_bytes: int = 64 * _MIB
    """The largest file that can be written."""
    disk_bytes: int = 256 * _MIB
    """What all files written in one run may hold: ``/tmp`` inside, and the writable mounts."""
    output_bytes: int = _MIB
    """What is kept of standard output, and as much of standard error; a program that writes more is killed."""


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """What came of one run. Nothing that ran is left, whatever it says here."""

    exit_status: int | None
    """Negative: the signal that ended it; 127 or 126 where the program was not found or not executable; None: it was
    killed by the sandbox for its time, its output or what ``exceeded`` says."""
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    """Whether it was killed for ``limits.seconds``."""
    truncated: bool = False
    """Whether it was killed for ``limits.output_bytes``, so that the end of its output is missing."""
    exceeded: Literal["processes", "memory", "disk"] | None = None
    """The limit for which everything was killed, where it was one of these."""


class Sandbox(Protocol):
    """Runs commands that nobody trusts.

    A command sees a read-only system, the mounts, a private ``/tmp`` and its own processes. It reaches no network, no
    other process and no environment of this one, and neither it nor anything it started outlives the call or this
    process.
    """

    @property
    def tier(self) -> str:
        """Its name, for traces: ``bubblewrap`` or ``namespaces``."""
        ...

    async def run(
        self,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        mounts: Sequence[Mount] = (),
        folder: Path | None = None,
        limits: SandboxLimits = SandboxLimits(),
    ) -> SandboxResult:
        """Run ``command`` to its end and return what came of it.

        ``command`` is a program, by path or found on the ``PATH`` inside, and its arguments; no shell reads it.
        ``folder`` is where it starts: one of the mounts, or below one; without it the private ``/tmp``.
        When cancelled, everything inside is dead before the cancellation goes on.

        :raises SandboxFailed: it could not be set up, so the command did not run; or something outside killed it
        :raises MountRefused: a mount or the folder cannot be shown inside
        :raises ValueError: ``command`` is empty
        """
        ...


class SandboxError(Exception):
    """A command was not run, or not to its end, for reasons of the sandbox."""


class SandboxMissing(SandboxError):
    """No sandbox works on this machine, and nothing is run without one."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        """Each tier that was tried, with what stopped it."""
        tried = "; ".join(f"{tier}: {reason}" for tier, reason in reasons.items())
        super().__init__(
            f"no sandbox works here, so commands and code are refused ({tried}). Install bubblewrap (`apt-get install"
            " bubblewrap`) and allow user namespaces (`sysctl user.max_user_namespaces`, and on Ubuntu"
            " `kernel.apparmor_restrict_unprivileged_userns=0`; in a container, a seccomp profile that allows them)"
        )


class SandboxFailed(SandboxError):
    """A sandbox could not be set up for this run, or was ended from outside."""

    def __init__(self, tier: str, reason: str) -> None:
        self.tier = tier
        self.reason = reason
        super().__init__(f"the sandbox {tier} failed: {reason}")


class MountRefused(SandboxError):
    """A file or folder must not, or cannot, be shown inside a sandbox."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path} cannot be shown inside a sandbox: {reason}")
