"""What a check found, and how to put it into words that a person and a model can act on."""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Finding", "counted", "failed", "held", "listed", "quoted", "undecided", "writable"]

_QUOTE = 120
_LISTED = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether something holds, and why."""

    holds: bool | None
    """None: it could not be decided, which is never a pass."""
    evidence: str
    change: str = ""
    """What to do differently; empty where it holds or could not be decided."""


def held(evidence: str) -> Finding:
    """Return a finding that holds."""
    return Finding(True, evidence)


def failed(evidence: str, change: str) -> Finding:
    """Return a finding that does not hold, and what to change."""
    return Finding(False, evidence, change)


def undecided(evidence: str) -> Finding:
    """Return a finding that says why it could not be decided."""
    return Finding(None, evidence)


def writable(text: str) -> str:
    """Return ``text`` with what UTF-8 cannot hold (lone surrogates) replaced, so that any message can carry it."""
    return text.encode("utf-8", "replace").decode("utf-8")


def quoted(text: str, limit: int = _QUOTE) -> str:
    """Return ``text`` on one line in quotation marks, cut to ``limit`` characters."""
    line = " ".join(writable(text[: 4 * limit]).split())
    cut = len(text) > 4 * limit or len(line) > limit
    return f'"{line[:limit]}..."' if cut else f'"{line}"'


def listed(texts: Iterable[str], limit: int = _LISTED) -> str:
    """Return ``texts`` quoted and joined by commas; of more than ``limit``, how many are left out."""
    every = list(texts)
    shown = ", ".join(quoted(text, 40) for text in every[:limit])
    return f"{shown} and {len(every) - limit} more" if len(every) > limit else shown


def counted(number: int, noun: str) -> str:
    """Return ``number`` with ``noun`` in the singular or the plural: ``1 word``, ``2 words``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
