"""What the tests of rules share: tools, layers, and a shell whose commands only write down that they were called."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from interlock.agents.tools.normal import normalise, resolved
from interlock.protocol.base import Json
from interlock.protocol.permissions import Call, Decision, Layer, PermissionRule, Permissions, judge_call
from interlock.protocol.tools import ArgumentKind, EffectClass, ToolSpec

__all__ = ["FETCH", "READ", "RUN", "SEND", "STUBS", "Recorder", "call_of", "decide", "layer", "spec_of"]


def spec_of(
    name: str,
    arguments: Mapping[str, ArgumentKind],
    effect: EffectClass = "read",
    *,
    network: bool = False,
    required: tuple[str, ...] = (),
) -> ToolSpec:
    """Return a tool whose arguments are texts, or lists of texts, of these kinds; the first is the primary one."""
    return ToolSpec(
        name=name,
        parameters={
            "type": "object",
            "properties": {one: {} for one in arguments},
            "required": list(required),
            "additionalProperties": False,
        },
        effect=effect,
        network=network,
        kinds=dict(arguments),
        primary=next(iter(arguments), None),
    )


READ = spec_of("files.read", {"path": "path"})
FETCH = spec_of("web.fetch", {"url": "url"}, network=True)
RUN = spec_of("shell.run", {"command": "command"}, "once")
SEND = spec_of("mail.send", {"to": "text", "subject": "text", "body": "text"}, "irreversible", network=True)


def layer(
    base: Path | str = "/",
    *,
    allow: tuple[PermissionRule, ...] = (),
    ask: tuple[PermissionRule, ...] = (),
    deny: tuple[PermissionRule, ...] = (),
    name: str = "team",
) -> Layer:
    """Return a layer as the gateway makes it."""
    return resolved(Layer(name, Permissions(allow=allow, ask=ask, deny=deny), str(base)))


def call_of(spec: ToolSpec, value: Json, base: Path | str = "/") -> Call:
    """Return the normal call of a tool with its primary argument."""
    assert spec.primary is not None
    return normalise(spec, {spec.primary: value}, Path(base))


def decide(spec: ToolSpec, value: Json, *layers: Layer, base: Path | str = "/") -> Decision:
    """Return what the rules say of a call that has one form."""
    return judge_call(layers, call_of(spec, value, base))


STUBS = ("git", "ls", "head", "grep", "rm", "curl", "cat", "cp", "mv", "wc", "id", "dd", "sudo", "nc", "if", "then")
"""The programs that there are in a recorder's folder, besides the real ones that run others."""

_REAL = ("xargs", "find", "env", "timeout", "nice", "nohup", "bash", "sh")

_STUB = """#!/bin/bash
trap '' PIPE
printf '%s\\0' {name} "$@" $'\\1' >> {log}
echo rm; echo -exec
exit 0
"""
"""Writes itself down in one go, and succeeds whether anybody listens or not; prints what would be a command, or an
option, if anybody took it for one."""


class Recorder:
    """A folder of programs that only write down that they were called, and bash to call them."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "bin"
        self._log = folder / "log"
        self._work = folder / "work"
        for place in (self._bin, self._work):
            place.mkdir(parents=True)
        for name in STUBS:
            stub = self._bin / name
            stub.write_text(_STUB.format(name=name, log=self._log))
            stub.chmod(0o755)
        for name in _REAL:
            real = shutil.which(name)
            assert real is not None, f"the test needs {name}"
            (self._bin / name).symlink_to(real)

    def run(self, line: str, seconds: float = 2) -> list[tuple[str, ...]]:
        """Run a line by bash and return the words of each stub that was called, in order."""
        self._log.unlink(missing_ok=True)
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(exist_ok=True)
        for name in ("a.txt", "b.txt", "-rf", "rm"):
            (self._work / name).write_text("rm\n")
        shell = subprocess.Popen(
            ["/bin/bash", "-c", f"{line}\nwait"],
            cwd=self._work,
            env={"PATH": str(self._bin), "HOME": str(self._work)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with shell, suppress(subprocess.TimeoutExpired):
            try:
                shell.communicate(timeout=seconds)  # read to its end, so that what runs in the background is waited for
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGKILL)  # a loop that never ends has shown what it runs
        found = self._log.read_text(errors="replace").split("\1\0") if self._log.exists() else []
        return [tuple(one.split("\0")[:-1]) for one in found if one]
