"""Teams that act on a box outside of the system, and the account of what was really done to it."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interlock.protocol.machine import fold
from interlock.protocol.state import Effect, EffectStatus, Entry, JobState

__all__ = ["Account", "account_of", "box_team", "lay_out"]

_TOOLS = Path(__file__).parent.parent / "integration" / "tools" / "box_tools.py"


def box_team(plan: Sequence[dict[str, Any]], *, parallel: int) -> dict[str, Any]:
    """Return a team file whose worker may put, send and ship, and is answered by default after a second."""
    return {
        "interlock": 1,
        "team": "box",
        "agents": {
            "w": {"kind": "worker", "tools": ["box.put", "box.send", "box.ship"]},
            "v": {"kind": "verifier"},
        },
        "tools": {"modules": ["box_tools.py"]},
        "permissions": {"allow": ["box.*"]},
        "plan": [{"agent": "w", "verify": {"criteria": [{"check": "words", "max": 9}]}, **step} for step in plan],
        "limits": {"parallel": parallel, "question_seconds": 1},
    }


def lay_out(folder: Path, team: dict[str, Any]) -> Path:
    """Write the team file and its tools and return the path of the file."""
    shutil.copy(_TOOLS, folder)
    path = folder / "team.yaml"
    path.write_text(json.dumps(team))
    return path


@dataclass(frozen=True)
class Account:
    """What the ledger says, beside what was really done."""

    state: JobState
    made: Counter[str]
    """How often the effect with each key was made."""

    def of(self, tool: str) -> list[Effect]:
        """Return the effects of one tool."""
        return [effect for effect in self.state.effects.values() if effect.tool == tool]

    def doubled(self, tool: str) -> list[str]:
        """Return the keys of the effects that were made more than once."""
        return [effect.key for effect in self.of(tool) if self.made[effect.key] > 1]

    def doubtful(self, tool: str) -> list[str]:
        """Return the keys of the effects of which nobody knows."""
        unknown = {EffectStatus.IN_DOUBT, EffectStatus.INTENDED}
        return [effect.key for effect in self.of(tool) if effect.status in unknown]

    def lies(self) -> list[str]:
        """Return where the ledger says that something is done or not done, and it is not so."""
        known = {effect.key: effect.status for effect in self.state.effects.values()}
        unknown = [f"{key} was never meant" for key in self.made if key not in known]
        missing = [f"{key} is not done" for key, status in known.items() if _is(status, "done") and not self.made[key]]
        undone = [f"{key} is done" for key, status in known.items() if _is(status, "failed") and self.made[key]]
        return [*unknown, *missing, *undone]


def _is(status: EffectStatus, name: str) -> bool:
    return status.value == name


def account_of(log: Iterable[Entry], outside: Path) -> Account:
    """Return the account of the one job in ``log``; ``outside`` is the file that the tools write to."""
    lines = outside.read_text().splitlines() if outside.exists() else []
    return Account(fold(log), Counter(json.loads(line)["key"] for line in lines))
