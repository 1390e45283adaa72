"""What each process below one takes in CPU time, read again and again while it works."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_LOOK = 0.05
"""Seconds between two looks: what a process took in between is spread over them evenly."""


class CpuWatch:
    """CPU seconds over time of all processes below one. Linux only."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._seen: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self._names: dict[int, str] = {}
        self._over = threading.Event()

    @contextmanager
    def watching(self) -> Iterator["CpuWatch"]:
        """Watch while the block runs."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()

    def spent(self, begin: float, end: float) -> Mapping[str, float]:
        """Return the CPU seconds of each kind of process between two times (seconds since 1970)."""
        kinds: dict[str, float] = defaultdict(float)
        for pid, looks in self._seen.items():
            kinds[self._names[pid]] += _at(looks, end) - _at(looks, begin)
        return kinds

    def _watch(self) -> None:
        while not self._over.wait(_LOOK):
            self._look()

    def _look(self) -> None:
        parents: dict[int, int] = {}
        taken: dict[int, float] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (fields := _stat(entry)):
                parents[int(entry.name)] = int(fields[1])
                taken[int(entry.name)] = (int(fields[11]) + int(fields[12])) * _TICK
        now = time.time()
        for pid in _below(self._root, parents):
            if kind := _kind(pid):  # looked at each time: a child has its parent's name before it has its own
                self._names[pid] = kind
                self._seen[pid].append((now, taken[pid]))


def _stat(process: Path) -> list[str]:
    """Return the fields of ``stat`` after the name; nothing where the process is gone."""
    try:
        return (process / "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def _below(root: int, parents: Mapping[int, int]) -> Iterator[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for pid, parent in parents.items():
        children[parent].append(pid)
    waiting = [root] if root in parents else []
    while waiting:
        yield (pid := waiting.pop())
        waiting += children[pid]


def _kind(pid: int) -> str:
    """Return what the benchmark calls a process; empty where that is not known yet."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return ""
    if "interlock.testing" in words:
        return "model_server"
    if "interlock.runtime.cli" in words:
        return "client"
    if any("nats-server" in word for word in words):
        return "broker"
    if "interlock.runtime.process" in words:
        name = words[words.index("interlock.runtime.process") + 1]
        return {"manager": "manager", "reader": "workers", "checker": "verifiers"}[name.partition("-")[0]]
    return ""


def _at(looks: list[tuple[float, float]], moment: float) -> float:
    """Return the CPU seconds at a moment, from the looks before and after it."""
    earlier = [look for look in looks if look[0] <= moment]
    later = [look for look in looks if look[0] > moment]
    if not earlier or not later:
        return looks[0][1] if not earlier else looks[-1][1]
    (begin, low), (end, high) = earlier[-1], later[0]
    return low + (high - low) * (moment - begin) / (end - begin)
