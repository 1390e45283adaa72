"""Where no sandbox works, nothing runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from interlock.agents.tools.isolation import SandboxFailed, SandboxMissing
from interlock.runtime.doctor import sandbox_finding
from interlock.runtime.sandbox import TIERS, open_sandbox, probe
from interlock.runtime.sandbox import _bubblewrap as bubblewrap_module

ASK = """
import anyio
from interlock.agents.tools.isolation import SandboxMissing
from interlock.runtime.sandbox import open_sandbox

async def main():
    try: print("opened", (await open_sandbox()).tier)
    except SandboxMissing as error: print("missing", *error.reasons); print(error)

anyio.run(main)
"""


async def test_a_sandbox_is_opened_here(tier: str) -> None:
    """Each tier works on this machine when it is asked for, and is probed once in a process."""
    opened = await open_sandbox([tier])
    assert opened.tier == tier
    assert await open_sandbox([tier]) is opened


async def test_no_tier_no_run() -> None:
    """Without a tier there is no sandbox, and so nothing to run with."""
    with pytest.raises(SandboxMissing, match="apt-get install bubblewrap"):
        await open_sandbox([])
    with pytest.raises(SandboxFailed, match="no such sandbox"):
        await probe("none")


async def test_without_bubblewrap_the_other_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where bubblewrap is not installed its tier says so, and the namespaces are taken."""
    monkeypatch.setattr(bubblewrap_module, "_SEARCHED", str(tmp_path))
    with pytest.raises(SandboxFailed, match="bwrap is not installed"):
        await probe("bubblewrap")
    assert (await open_sandbox((*TIERS, "anew"))).tier == "namespaces"


async def test_a_bubblewrap_that_does_not_isolate_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program named bwrap that just runs the command is found out by the probe."""
    fake = tmp_path / "bwrap"
    fake.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setattr(bubblewrap_module, "_SEARCHED", str(tmp_path))
    with pytest.raises(SandboxFailed):
        await probe("bubblewrap")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root to take namespaces away")
def test_where_namespaces_are_not_allowed_nothing_runs() -> None:
    """On a machine whose kernel allows no user namespaces, both tiers fail and the message says what to do."""
    limit = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh", sys.executable, "-c", ASK]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert said[0] == "missing bubblewrap namespaces"
    assert "sysctl user.max_user_namespaces" in said[1]


async def test_doctor_says_which_sandbox_works() -> None:
    """The finding names the tier, and is fine."""
    found = await sandbox_finding()
    assert found.fine
    assert any(tier in found.text for tier in TIERS)
