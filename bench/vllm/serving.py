"""Servers of the real vLLM, started as Interlock starts them, and what they say of themselves."""

import math
import os
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from interlock.backends.engines import VLLM_KEY_ENV, Endpoint
from interlock.backends.vllm import VllmSettings, vllm_server
from interlock.protocol.base import Json
from interlock.protocol.team import ModelSettings

__all__ = ["FOLDER_ENV", "MODEL", "OPTIONS", "Meters", "environment", "folder", "meters", "serving", "settings"]

FOLDER_ENV = "INTERLOCK_VLLM_FOLDER"
"""What ``requirements/vllm-engine.sh`` has built; left out, it is asked for it."""
MODEL = "smollm2"
OPTIONS: dict[str, Json] = {
    "dtype": "bfloat16",
    "max-model-len": 4096,
    "enforce-eager": True,  # compiling takes longer than all that is asked of the model
    "block-size": 32,  # the smallest there is on a CPU: what begins a prompt is kept in whole blocks
    "served-model-name": MODEL,
    # A small model likes to go on with blanks and new lines for ever, where a schema leaves it room for them.
    "structured-outputs-config": {"backend": "guidance", "disable_any_whitespace": True},
}
_ROOT = Path(__file__).parents[2]
_START_SECONDS = 300.0
_NEVER = 3600.0


@dataclass(frozen=True, slots=True)
class Meters:
    """What a server counts."""

    running: float = 0
    """Requests that it works on now."""
    waiting: float = 0
    prompt_tokens: float = 0
    generated: float = 0
    """Tokens that it answered with so far."""
    looked_up: float = 0
    """Tokens of prompts that it looked for in its prefix cache."""
    hit: float = 0
    """How many of these were there."""


_NAMES = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "generated": "vllm:generation_tokens_total",
    "looked_up": "vllm:prefix_cache_queries_total",
    "hit": "vllm:prefix_cache_hits_total",
}


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder with vLLM's environment and the model; builds it if it is not there (minutes)."""
    if named := environ.get(FOLDER_ENV):
        return Path(named)
    script = _ROOT / "requirements" / "vllm-engine.sh"
    return Path(subprocess.run(["sh", script], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())  # noqa: S607


def settings(built: Path, **of_model: Json) -> ModelSettings:
    """Return the settings with which Interlock serves the model."""
    return ModelSettings.model_validate(
        {"engine": "vllm", "name": str(built / "model"), "options": OPTIONS, **of_model}
    )


def environment(built: Path, *, core: int | None = None) -> dict[str, str]:
    """Return the variables with which vLLM runs here; ``core`` is the only one that the model computes on.

    Left out, the model gets all cores but one, as vLLM chooses by itself.
    """
    bound = {} if core is None else {"VLLM_CPU_OMP_THREADS_BIND": str(core)}
    return {
        "INTERLOCK_VLLM": str(built / "venv" / "bin" / "python"),
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB: room for 46,000 tokens
        "HF_HUB_OFFLINE": "1",
        **bound,
    }


@asynccontextmanager
async def serving(
    built: Path, *, core: int | None = None, again: bool = True, key: str | None = None
) -> AsyncIterator[Endpoint]:
    """Run a server while the context is open; with ``again`` False, one that dies is not started again.

    ``key`` is what callers have to know; left out, the server gets one of its own.
    """
    how = VllmSettings(start_timeout=_START_SECONDS, first_wait=1 if again else _NEVER, longest_wait=_NEVER)
    environ = {**os.environ, **environment(built, core=core)} | ({VLLM_KEY_ENV: key} if key else {})
    async with vllm_server(settings(built), environ, how=how) as endpoint:
        yield endpoint


def meters(url: str) -> Meters:
    """Return what the server with the base URL ``url`` counts now; blocks for some milliseconds."""
    address = urlsplit(url)
    with urllib.request.urlopen(f"http://{address.netloc}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    series = [line.rsplit(" ", 1) for line in lines if line.startswith("vllm:")]
    return Meters(
        **{
            field: math.fsum(float(value) for one, value in series if one.partition("{")[0] == name)
            for field, name in _NAMES.items()
        }
    )
