"""What works on this machine and what is missing: each finding says what to do about it."""

import importlib.util
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from interlock._version import __version__
from interlock.agents.tools.isolation import SandboxMissing
from interlock.backends.chat import ChatMessage, ChatRequest
from interlock.backends.engines import MODEL_URL_ENV, open_chat, resolve_endpoint
from interlock.backends.errors import ModelError, VllmMissing
from interlock.backends.local import find_weights
from interlock.backends.vllm_command import find_vllm, sees_gpu
from interlock.observability.settings import TraceSettings
from interlock.protocol.team import ModelSettings
from interlock.runtime._streams import Copies
from interlock.runtime.broker_errors import BrokerError
from interlock.runtime.bus_errors import BusError
from interlock.runtime.place import Place, open_bus
from interlock.runtime.sandbox import open_sandbox

__all__ = ["Finding", "examine", "sandbox_finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    text: str
    fine: bool
    needed: bool = True
    """Whether nothing works without it."""


async def examine(place: Place) -> list[Finding]:
    """Look at everything that a job may need; nothing that was there before is changed."""
    python = Finding(
        f"interlock {__version__} on Python {platform.python_version()}, {os.cpu_count()} cores", fine=True
    )
    return [python, await _broker(place), await _endpoint(), _local(), _vllm(), await sandbox_finding(), _tracing()]


async def _broker(place: Place) -> Finding:
    """Start a broker of our own in a folder of its own, or reach the one that was named."""
    with tempfile.TemporaryDirectory(prefix="interlock-doctor-") as folder:
        try:
            async with open_bus(Place(Path(folder), place.nats, replicas=place.replicas), "doctor") as (bus, address):
                return _copies(f"the broker at {address.url} answers", await bus.copies())
        except (BrokerError, BusError) as error:
            return Finding(f"no broker: {error}", fine=False)


def _copies(text: str, copies: Sequence[Copies]) -> Finding:
    """Say of a broker that answers whether it keeps as many copies of the log as it should."""
    few = [one.stream for one in copies if one.kept < one.wished]
    if few:
        wished = copies[0].wished
        few_text = f"{text}, but keeps fewer than {wished} copies of {', '.join(few)}: say --replicas {wished} once"
        return Finding(few_text, fine=False, needed=False)
    lagging = [one.stream for one in copies if one.current < one.kept]
    if lagging:
        return Finding(f"{text}, but not all copies of {', '.join(lagging)} are whole", fine=False, needed=False)
    return Finding(f"{text}, with {copies[0].kept} copies of the log" if copies[0].kept > 1 else text, fine=True)


async def _endpoint() -> Finding:
    if not os.environ.get(MODEL_URL_ENV):
        text = f"{MODEL_URL_ENV} is not set: each team uses the model that its file names"
        return Finding(text, fine=False, needed=False)
    try:
        model = open_chat(resolve_endpoint(ModelSettings(timeout=20)))
        try:
            reply = await model.chat(ChatRequest((ChatMessage("user", "Say yes."),), temperature=0, max_tokens=8))
        finally:
            await model.aclose()
    except ModelError as error:
        return Finding(f"the model does not answer: {error}", fine=False)
    return Finding(f"the model {reply.model} at {model.url} answers", fine=True)


def _local() -> Finding:
    if importlib.util.find_spec("llama_cpp") is None:
        return Finding("engine local: pip install 'interlock[local]' compiles it once", fine=False, needed=False)
    try:
        weights = find_weights()
    except ModelError as error:
        return Finding(f"engine local: {error}", fine=False, needed=False)
    return Finding(f"engine local with {weights.name}", fine=True)


def _vllm() -> Finding:
    try:
        command = find_vllm()
    except VllmMissing as error:
        return Finding(f"engine vllm: {error}", fine=False, needed=False)
    where = "a GPU" if sees_gpu() else "the CPU, since no GPU is seen"
    return Finding(f"engine vllm by {' '.join(command[:3])} on {where}", fine=True)


async def sandbox_finding() -> Finding:
    """Look which sandbox isolates on this machine, by running something in it."""
    try:
        sandbox = await open_sandbox()
    except SandboxMissing as error:
        return Finding(str(error), fine=False, needed=False)
    return Finding(f"commands and code run in the sandbox {sandbox.tier}", fine=True)


def _tracing() -> Finding:
    exporters = TraceSettings.read(os.environ).exporters
    if not exporters:
        text = "tracing is off: set OTEL_EXPORTER_OTLP_ENDPOINT, for example to http://localhost:4318"
        return Finding(text, fine=False, needed=False)
    return Finding(f"tracing goes to {', '.join(sorted(exporters))}", fine=True)
