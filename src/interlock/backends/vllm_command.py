"""How a vLLM server is called, and how what it prints is read. Pure, but for looking what this machine has."""

import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from interlock.backends.errors import VllmMissing
from interlock.protocol.base import Json

__all__ = [
    "OWN_OPTIONS",
    "VLLM_ENV",
    "cannot_trace",
    "command_line",
    "find_vllm",
    "last_line",
    "plain",
    "sees_gpu",
    "server_environment",
    "tracing_options",
    "with_options",
]

VLLM_ENV = "INTERLOCK_VLLM"
"""The command ``vllm``, or the Python of its environment."""

OWN_OPTIONS = frozenset({"api-key", "host", "model", "port", "uds"})
"""Options that a team cannot set, because they are set here."""

_MODULE = "vllm.entrypoints.openai.api_server"
_LINE = 150
"""Characters of a server's line that a person is told."""
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ORIGIN = re.compile(r"^(\([^)]*\) )?([A-Z]+ [0-9-]+ [0-9:.]+ (\[[^]]*\] )?)?")
"""What stands before the words in a line of vLLM's log: process, level, time, place in the code."""
_TRACING_WORDS = re.compile(r"otlp|opentelemetry", re.IGNORECASE)
_GPUS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg", "/dev/accel*", "/dev/davinci[0-9]*")
"""What there is where a driver found something to compute on: NVIDIA, AMD, WSL, TPU and Gaudi, Ascend."""


def find_vllm(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the beginning of the command line that serves a model, up to where the model's name goes.

    :raises VllmMissing: there is no vLLM on this machine, or not where ``INTERLOCK_VLLM`` says
    """
    named = environ.get(VLLM_ENV, "").strip() or None
    found = shutil.which(named or "vllm", path=environ.get("PATH"))
    if found is None and named is None and (spec := importlib.util.find_spec("vllm")) and spec.origin:
        found = sys.executable  # a mere folder of that name has no origin
    if found is None:
        raise VllmMissing(named)
    is_python = Path(found).name.startswith("python")
    return [found, "-m", _MODULE, "--model"] if is_python else [found, "serve"]


def sees_gpu(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether there is anything but the CPU to compute on, as far as the devices of this machine tell."""
    hidden = environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in {"", "-1"}:
        return False
    return any(next(Path("/").glob(pattern.lstrip("/")), None) for pattern in _GPUS)


def command_line(options: Mapping[str, Json]) -> list[str]:
    """Return options as vLLM takes them, the way its own configuration files are read.

    ``key: value`` becomes ``--key value``, true ``--key``, false ``--no-key``, a list ``--key one two``, an object its
    JSON.
    """
    line: list[str] = []
    for name, value in options.items():
        key = name.replace("_", "-")
        match value:
            case bool():
                line.append(f"--{key}" if value else f"--no-{key}")
            case list():
                line += [f"--{key}", *map(_word, value)]
            case _:
                line += [f"--{key}", _word(value)]
    return line


def _word(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def with_options(defaults: Mapping[str, Json], options: Mapping[str, Json]) -> dict[str, Json]:
    """Return ``defaults`` with a team's ``options`` in their place, by their names as vLLM spells them."""
    return {**defaults, **{name.replace("_", "-"): value for name, value in options.items()}}


def server_environment(environ: Mapping[str, str], key: str, *, tracing: bool) -> dict[str, str]:
    """Return the environment of a server."""
    found = {"VLLM_NO_USAGE_STATS": "1", **environ, "VLLM_API_KEY": key, "PYTHONUNBUFFERED": "1"}
    if not sees_gpu(environ):
        found.setdefault("VLLM_TARGET_DEVICE", "cpu")
    if tracing:
        found.setdefault("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
        found.setdefault("OTEL_SERVICE_NAME", "vllm")
    return found


def tracing_options(environ: Mapping[str, str]) -> dict[str, Json]:
    """Return the option that has a server send its spans where ours go, if ours go anywhere by OTLP."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return {}
    if whole := environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip():
        return {"otlp-traces-endpoint": whole}
    if base := environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip():
        return {"otlp-traces-endpoint": f"{base.rstrip('/')}/v1/traces"}
    return {}


def cannot_trace(output: str) -> bool:
    """Return whether a server ended because it can send no spans, as far as its last words tell."""
    return bool(_TRACING_WORDS.search(output))


def plain(text: str) -> str:
    """Return what a server printed without colours and without what progress bars wrote over."""
    lines = (line.rstrip().rpartition("\r")[2] for line in _COLOURS.sub("", text).split("\n"))
    return "\n".join(lines)


def last_line(text: str) -> str:
    """Return the last line of a server's output that says something, without its time and origin."""
    lines = [words for line in text.splitlines() if (words := _ORIGIN.sub("", line).strip())]
    return lines[-1][:_LINE] if lines else ""
