"""What an import costs and does: nothing that a caller did not ask for."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.modules import MODULES, SOURCE, Module

HEAVY = {
    "aiohttp",
    "jinja2",
    "nats",
    "openai",
    "opentelemetry.sdk",
    "pydantic",
    "rich",
    "ruamel",
    "ruamel.yaml",
    "uvloop",
}
"""What ``import interlock`` alone has no need of."""

PROBE = """
import importlib, json, sys, threading, time

done = []
def watch(event, args):
    if event == "open":
        path, mode, flags = args
        if isinstance(mode, str) and set(mode) & set("wax+") or isinstance(flags, int) and flags & 0o3:
            done.append(f"opened {path} to write")
    elif event.startswith(("os.mkdir", "os.rename", "os.remove", "os.putenv", "os.system", "os.fork", "os.posix_spawn",
                           "subprocess.Popen", "_thread.start_new_thread", "socket.connect", "socket.getaddrinfo")):
        done.append(event)

sys.addaudithook(watch)
began = time.perf_counter()
for name in sys.argv[1:]:
    importlib.import_module(name)
took = time.perf_counter() - began
import logging, signal
print(json.dumps({
    "seconds": took,
    "done": done,
    "threads": threading.active_count(),
    "handlers": len(logging.getLogger().handlers),
    "terminate": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
    "modules": sorted(sys.modules),
}))
"""


def probe(home: Path, *names: str) -> dict[str, Any]:
    """Import modules in a new interpreter in an empty folder and return what it saw."""
    environment = {
        "HOME": str(home),
        "PATH": os.defpath,
        "PYTHONDONTWRITEBYTECODE": "1",  # a .pyc is the interpreter's, not ours
        "PYTHONPATH": str(SOURCE.parent),
    }
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE, *names],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.stderr == ""
    assert ran.returncode == 0
    assert list(home.iterdir()) == []
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_import_is_quick_and_small(tmp_path: Path) -> None:
    """``import interlock`` takes under a second and loads none of what only some uses need."""
    found = [probe(tmp_path, "interlock") for _ in range(3)]
    assert HEAVY.intersection(found[0]["modules"]) == set()
    assert min(one["seconds"] for one in found) < 1


def can_be_imported(module: Module) -> bool:
    """Tell programs and what needs the extra ``local`` from the rest."""
    return not module.name.endswith("__main__") and all(
        not name.startswith("llama_cpp") for _, name in module.imports()
    )


@pytest.mark.parametrize(
    "names", [["interlock"], [module.name for module in MODULES if can_be_imported(module)]], ids=["package", "modules"]
)
def test_import_has_no_side_effects(tmp_path: Path, names: list[str]) -> None:
    """Importing the package, or all of its modules, prints, writes, starts, connects and configures nothing."""
    found = probe(tmp_path, *names)
    assert found["done"] == []
    assert found["threads"] == 1
    assert found["handlers"] == 0
    assert found["terminate"]
