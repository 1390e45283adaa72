"""What the tests of the examples share: where the examples are, their stand-in models, and what their READMEs show."""

import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.cli import Finished, interlock

from interlock.testing import Call

__all__ = ["EXAMPLES", "FOLDER", "Script", "answers_of", "code_lines", "run", "shown_but_missing", "tasks_by_label"]

FOLDER = Path(__file__).parents[3] / "examples"

EXAMPLES = sorted(path.parent for path in FOLDER.glob("*/team.yaml"))

Script = Callable[[Call], Any]

_COMMANDS = ("interlock ", "python -m ", "export ", "pip ")


def answers_of(example: str) -> Script:
    """Return the stand-in of an example."""
    script: Script = runpy.run_path(str(FOLDER / example / "model.py"))["answer"]
    return script


async def run(team: Path, url: str, *arguments: str, cwd: Path) -> Finished:
    """Run a team from a folder that is not its own, with the report as its output."""
    return await interlock("run", str(team), *arguments, "--json", env={"INTERLOCK_MODEL_URL": url}, cwd=cwd)


def tasks_by_label(done: Finished, step: str) -> dict[str, dict[str, Any]]:
    """Return the tasks of a step, in their order, by the label of their item."""
    return {task["label"]: task for task in done.report["tasks"] if task["step"] == step}


def code_lines(readme: Path) -> list[str]:
    """Return the indented lines of a README, without their indentation."""
    return [line.removeprefix("    ") for line in readme.read_text().splitlines() if line.startswith("    ")]


def shown_but_missing(example: str, said: str) -> list[str]:
    """Return the lines of output in an example's README that ``said`` has not; a line ends where it has dots."""
    real = [line.strip() for line in said.splitlines()]
    return [shown for shown in _outputs(example) if not any(line.startswith(shown) for line in real)]


def _outputs(example: str) -> Iterator[str]:
    for line in code_lines(FOLDER / example / "README.md"):
        if not line.startswith(_COMMANDS):
            yield re.sub(r"\s*\.\.\.$", "", line).strip()
