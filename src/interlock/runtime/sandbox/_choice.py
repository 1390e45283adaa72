"""Which sandbox is used on this machine: the best of those that show that they isolate."""

import sys
import tempfile
from collections.abc import Sequence
from functools import partial

from interlock.agents.tools.isolation import Sandbox, SandboxError, SandboxFailed, SandboxLimits, SandboxMissing
from interlock.runtime.sandbox._bubblewrap import bubblewrap, command_line
from interlock.runtime.sandbox._probe import PROBE
from interlock.runtime.sandbox._seccomp import seccomp_program
from interlock.runtime.sandbox._tier import Start, Tier, namespaces

TIERS = ("bubblewrap", "namespaces")
"""The sandboxes there are, best first."""

_PROBE_LIMITS = SandboxLimits(seconds=20)
_opened: dict[tuple[str, ...], Sandbox] = {}
"""What was found to work in this process: the machine does not change under it."""


async def open_sandbox(tiers: Sequence[str] = TIERS) -> Sandbox:
    """Return the first of ``tiers`` that isolates here, found by running something in it; once a process.

    :raises SandboxMissing: none does
    """
    names = tuple(tiers)
    if names not in _opened:
        _opened[names] = await _first(names)
    return _opened[names]


async def probe(tier: str) -> Sandbox:
    """Return the sandbox ``tier`` (:data:`TIERS`) if it isolates here: a program run in it finds no way out.

    :raises SandboxFailed: it does not work here, or does not isolate; its ``reason`` says what is missing
    """
    sandbox = Tier(tier, _start(tier), _seccomp(tier))
    with tempfile.NamedTemporaryFile(prefix="interlock-probe-") as marker:
        try:
            said = await sandbox.run([sys.executable, "-I", "-S", "-c", PROBE, marker.name], limits=_PROBE_LIMITS)
        except SandboxError as error:
            raise SandboxFailed(tier, getattr(error, "reason", str(error))) from error
    if (words := said.stdout.decode("utf-8", "replace").strip()) != "isolated":
        problem = words or said.stderr.decode("utf-8", "replace").strip()[-500:]
        raise SandboxFailed(tier, problem or f"its probe ended with {said.exit_status} and said nothing")
    return sandbox


async def _first(tiers: Sequence[str]) -> Sandbox:
    reasons: dict[str, str] = {}
    for tier in tiers:
        try:
            return await probe(tier)
        except SandboxFailed as error:
            reasons[tier] = error.reason
    raise SandboxMissing(reasons)


def _start(tier: str) -> Start:
    if sys.platform != "linux":
        raise SandboxFailed(tier, f"it needs Linux, and this is {sys.platform}")
    if tier == "namespaces":
        return namespaces
    if tier != "bubblewrap":
        raise SandboxFailed(tier, f"there is no such sandbox, only {' and '.join(TIERS)}")
    if (program := bubblewrap()) is None:
        raise SandboxFailed(tier, "the program bwrap is not installed")
    return partial(command_line, program)


def _seccomp(tier: str) -> bytes:
    if (program := seccomp_program()) is None:
        raise SandboxFailed(tier, "no filter of system calls is known for this processor")
    return program
