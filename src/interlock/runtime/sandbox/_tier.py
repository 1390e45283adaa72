"""A sandbox of one tier: turns a command and its mounts into a run."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from interlock.agents.tools.isolation import Mount, SandboxLimits, SandboxResult
from interlock.runtime.sandbox._run import Job, run
from interlock.runtime.sandbox._seccomp import fork_program
from interlock.runtime.sandbox._view import (
    INSIDE,
    SHARED_MEMORY,
    TMP,
    Step,
    environment,
    start_folder,
    view,
)

Start: TypeAlias = Callable[[Sequence[Step], Sequence[int]], list[str]]
"""From what is seen and the numbers of the files SPEC, LIFE and REPORT to the command line that goes inside."""

_DEFAULTS = SandboxLimits()


@dataclass(frozen=True, slots=True)
class Tier:
    """A sandbox (:class:`interlock.agents.tools.isolation.Sandbox`)."""

    tier: str
    start: Start
    seccomp: bytes

    async def run(
        self,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        mounts: Sequence[Mount] = (),
        folder: Path | None = None,
        limits: SandboxLimits = _DEFAULTS,
    ) -> SandboxResult:
        """Run ``command``; see :meth:`interlock.agents.tools.isolation.Sandbox.run`."""
        if not command:
            raise ValueError("there is no command: it needs a program at least")
        steps = view(mounts, limits)
        spec = {
            "command": list(command),
            "folder": start_folder(folder, mounts),
            "environment": environment(),
            "limits": asdict(limits),
            "seccomp": self.seccomp,
            # The kernel counts everybody's processes but those of the machine's root: those have to ask.
            "seccomp_forks": fork_program() if os.geteuid() == 0 else b"",
            "view": steps,
            "inside": INSIDE,
            "memory_folders": [TMP, SHARED_MEMORY],
            "disks": [str(mount.path) for mount in mounts if mount.writable],
        }
        return await run(Job(self.tier, spec, lambda files: self.start(steps, files), stdin, limits))


def namespaces(_: Sequence[Step], files: Sequence[int]) -> list[str]:
    """Return the command line of the sandbox without bubblewrap; what is seen stands in the spec."""
    program = Path(__file__).with_name("_enter.py")
    return [sys.executable, "-I", "-S", str(program), *map(str, files), str(os.getpid())]
