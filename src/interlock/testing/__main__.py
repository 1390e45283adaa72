"""``python -m interlock.testing``: the scripted model as a process of its own."""

import argparse
import asyncio
import runpy
import signal
import sys
from pathlib import Path

import anyio

from interlock.testing._script import Answer, Script
from interlock.testing._server import ScriptedServer


def main() -> None:
    """Serve until SIGTERM or SIGINT; the first line of the output is the URL."""
    parser = argparse.ArgumentParser(prog="python -m interlock.testing", description="A scripted model.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--script",
        metavar="FILE",
        help="FILE.py:NAME, a function of the call or a list of rules; or a list of rules in FILE.yaml or FILE.json",
    )
    what.add_argument("--answer", metavar="TEXT", help="one answer to everything")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="before the one answer")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    options = parser.parse_args()
    try:
        script = _load(options.script) if options.script else Answer(options.answer, delay=options.delay)
    except _NoScript as problem:
        parser.error(str(problem))
    try:
        anyio.run(_serve, script, options.port, backend_options={"use_uvloop": sys.platform != "win32"})
    except OSError as problem:
        parser.error(f"port {options.port}: {problem.strerror or problem}")


class _NoScript(ValueError):
    """A reference leads to no script."""


def _load(reference: str) -> Script:
    if Path(reference).suffix in {".yaml", ".yml", ".json"}:
        return _load_rules(Path(reference))
    path, colon, name = reference.rpartition(":")
    if not (colon and Path(path).is_file()):
        raise _NoScript(f"--script {reference}: expected FILE.py:NAME, FILE.yaml or FILE.json, a file that is there")
    found = runpy.run_path(path)
    if name not in found:
        raise _NoScript(f"--script {reference}: {path} has no {name!r}")
    script: Script = found[name]
    return script


def _load_rules(path: Path) -> Script:
    # Late: most scripts are Python, and reading YAML takes a tenth of a second to load.
    from interlock.testing._script_file import ScriptUnreadable, load_script  # noqa: PLC0415

    try:
        return load_script(path)
    except (ScriptUnreadable, OSError) as problem:
        raise _NoScript(f"--script {problem}") from None


async def _serve(script: Script, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with ScriptedServer(script, port=port) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    main()
