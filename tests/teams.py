"""Small teams for tests, and the scripts of their models."""

import json
import re
from pathlib import Path
from typing import Any

from interlock.testing import Answer, Call

__all__ = ["digest_team", "item_of", "summary", "write_items", "write_team"]


def digest_team(
    *, parallel: int = 64, attempts: int = 3, criteria: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Return a team that answers each item of ``items.jsonl`` and then writes a headline over what was accepted."""
    return {
        "interlock": 1,
        "team": "digest",
        "agents": {"reader": {"kind": "worker"}, "checker": {"kind": "verifier"}},
        "plan": [
            {
                "step": "summarise",
                "for_each": {"jsonl": "items.jsonl"},
                "agent": "reader",
                "do": "Answer item {{ item.n }}.",
                "output": {"summary": "string"},
                "verify": {
                    "by": "checker",
                    "criteria": criteria or [{"check": "contains", "field": "summary", "all": ["item"]}],
                },
                "attempts": attempts,
            },
            {
                "step": "headline",
                "agent": "reader",
                "do": "Headline over {{ steps.summarise.outputs | length }} answers: "
                "{{ steps.summarise.outputs | map(attribute='summary') | join(', ') }}",
                "verify": {"by": "checker", "criteria": [{"check": "words", "max": 20}]},
            },
        ],
        "limits": {"parallel": parallel},
    }


def write_team(folder: Path, team: dict[str, Any]) -> Path:
    """Write a team file (JSON is YAML) and return its path."""
    path = folder / "team.yaml"
    path.write_text(json.dumps(team, indent=1))
    return path


def write_items(folder: Path, count: int) -> None:
    """Write ``items.jsonl`` with the items ``{n: 0}`` to ``{n: count - 1}``."""
    (folder / "items.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(count)))


def item_of(call: Call) -> int | None:
    """Return the number of the item that a call is about, None for the headline."""
    found = re.search(r"Answer item (\d+)\.", call.conversation)
    return int(found[1]) if found else None


def summary(call: Call, *, wrong_first: bool = False, delay: float = 0) -> Answer:
    """Answer a call; with ``wrong_first`` badly unless it carries feedback on an earlier attempt."""
    item = item_of(call)
    if item is None:
        return Answer("All items are answered", delay=delay)
    redo = "was not accepted" in call.conversation
    return Answer({"summary": "nothing" if wrong_first and not redo else f"item {item}"}, delay=delay)
