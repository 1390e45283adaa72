"""What a vLLM server tells of its queue and its prefix cache at ``/metrics``, in the text format of Prometheus."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import anyio

from interlock.backends.engines import Endpoint

__all__ = ["VllmMetrics", "parse_metrics", "read_metrics"]

_SECONDS = 5.0
_LONGEST = 16 * 1024 * 1024
"""Bytes of a server's metrics that are read."""
_SAMPLE = re.compile(r"^(vllm:[a-z_]+)(?:\{(?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*\})?\s+(\S+)", re.MULTILINE)
_FIELDS = {
    "vllm:prefix_cache_queries": "queries",
    "vllm:prefix_cache_hits": "hits",
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
}


@dataclass(frozen=True, slots=True)
class VllmMetrics:
    """What one or several servers say at one moment, added up."""

    queries: int = 0
    """Tokens of prompts that were looked up in the prefix cache since the server began."""
    hits: int = 0
    """Those of them that were found there."""
    running: int = 0
    """Requests that are being answered."""
    waiting: int = 0
    """Requests that wait for that."""

    def __add__(self, other: Self) -> "VllmMetrics":
        """Return what two servers say together."""
        return VllmMetrics(
            self.queries + other.queries,
            self.hits + other.hits,
            self.running + other.running,
            self.waiting + other.waiting,
        )


def parse_metrics(text: str) -> VllmMetrics | None:
    """Return what ``text`` says, all engines and models of the server added up; None: it is not vLLM's."""
    found: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        field = _FIELDS.get(name.removesuffix("_total"))
        if field is not None:
            found[field] = found.get(field, 0.0) + _number(value)
    return VllmMetrics(**{field: int(value) for field, value in found.items()}) if found else None


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if abs(number) != float("inf") and number == number else 0.0  # noqa: PLR0124 -- NaN


async def read_metrics(endpoints: Iterable[Endpoint]) -> VllmMetrics | None:
    """Return what the servers of ``endpoints`` say, each asked once; None: none of them does."""
    urls = {url for endpoint in endpoints for url in endpoint.urls or (endpoint.url,)}
    found: list[VllmMetrics] = []

    async def ask(url: str) -> None:
        metrics = await anyio.to_thread.run_sync(_ask, url, abandon_on_cancel=True)
        if metrics is not None:
            found.append(metrics)

    async with anyio.create_task_group() as group:
        for url in urls:
            group.start_soon(ask, url)
    return sum(found[1:], found[0]) if found else None


def _ask(url: str) -> VllmMetrics | None:
    """Ask one server; it says nothing where it has no such page, or is away."""
    parts = urlsplit(url)
    page = parts._replace(path=f"{parts.path.removesuffix('/v1').rstrip('/')}/metrics").geturl()
    try:
        with urllib.request.urlopen(page, timeout=_SECONDS) as answer:  # noqa: S310 -- an endpoint's URL is http(s)
            return parse_metrics(answer.read(_LONGEST).decode(errors="replace"))
    except (OSError, ValueError):  # URLError is an OSError; a wrong status line is a ValueError
        return None
