"""Each test here runs once in each sandbox that this machine must have."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
import pytest_asyncio

from interlock.agents.tools.isolation import Mount, Sandbox, SandboxLimits, SandboxResult
from interlock.runtime.sandbox import TIERS, probe

SHORT = SandboxLimits(seconds=20)


@dataclass(frozen=True)
class Attempts:
    """Runs a program, inside the sandbox and outside, where it must show that it can do what it tries."""

    sandbox: Sandbox

    async def run(
        self,
        program: str,
        *arguments: object,
        mounts: tuple[Mount, ...] = (),
        folder: Path | None = None,
        stdin: bytes = b"",
        limits: SandboxLimits = SHORT,
    ) -> SandboxResult:
        """Run Python code inside."""
        return await self.sandbox.run(
            _command(program, arguments), mounts=mounts, folder=folder, stdin=stdin, limits=limits
        )

    async def inside(self, program: str, *arguments: object, mounts: tuple[Mount, ...] = ()) -> str:
        """Return what Python code prints inside, which must not fail in a way that it did not foresee."""
        result = await self.run(program, *arguments, mounts=mounts)
        assert result.exit_status == 0, result
        return result.stdout.decode().strip()

    async def outside(self, program: str, *arguments: object) -> str:
        """Return what the same code prints as an ordinary child of this process, which hands on what it has open."""

        def run() -> str:
            done = subprocess.run(_command(program, arguments), stdout=-1, check=True, close_fds=False)
            return done.stdout.decode().strip()

        return await anyio.to_thread.run_sync(run)


def _command(program: str, arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", program, *map(str, arguments)]


@pytest.fixture(params=TIERS)
def tier(request: pytest.FixtureRequest) -> str:
    """Return each tier; one may be missing on a person's machine, none where changes are checked."""
    if request.param == "bubblewrap" and shutil.which("bwrap") is None and not os.environ.get("CI"):
        pytest.skip("bubblewrap is not installed")
    return str(request.param)


@pytest_asyncio.fixture
async def sandbox(tier: str) -> Sandbox:
    """Open the sandbox of the tier."""
    return await probe(tier)


@pytest.fixture
def attempts(sandbox: Sandbox) -> Attempts:
    """Return what runs programs in the sandbox, and outside."""
    return Attempts(sandbox)
