"""What the processes of one command use: found by who started them, looked at in ``/proc``."""

from pathlib import Path

__all__ = ["family", "name_of", "rss_mb"]


def family(pid: int) -> list[int]:
    """Return a process and all below it that live now."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            children.setdefault(_parent(path), []).append(int(path.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def name_of(pid: int) -> str:
    """Return what an agent's process, the broker or a command is called; empty for what is gone."""
    words = _read(Path("/proc") / str(pid) / "cmdline").split("\0")
    if "interlock.runtime.process" in words:
        return words[words.index("interlock.runtime.process") + 1]
    return "broker" if words[0].endswith("nats-server") else "command" if "interlock.runtime.cli" in words else ""


def rss_mb(pid: int) -> float:
    """Return how much memory a process has in RAM; 0 for one that is gone."""
    for line in _read(Path("/proc") / str(pid) / "status").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _parent(path: Path) -> int:
    fields = _read(path / "stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # gone meanwhile
        return ""
