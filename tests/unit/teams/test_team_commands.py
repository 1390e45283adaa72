"""Commands of criteria: their own files are found beside the team file."""

import json
from pathlib import Path

import pytest

from interlock.protocol.criteria import CommandCriterion
from interlock.runtime.source_errors import SourceMissing
from interlock.runtime.sources import freeze
from interlock.runtime.teamfile import parse_team


def frozen_command(folder: Path, *command: str) -> tuple[str, ...]:
    """Return what a command of a team in ``folder`` becomes when a job is submitted from elsewhere."""
    step = {"step": "s", "agent": "w", "do": "x", "verify": {"criteria": [{"command": command}]}}
    team = {
        "interlock": 1,
        "team": "t",
        "agents": {"w": {"kind": "worker"}, "v": {"kind": "verifier"}},
        "plan": [step],
    }
    job = freeze(parse_team(json.dumps(team), folder / "team.yaml"), {}, folder / "elsewhere")
    (criterion,) = job.team.plan[0].verify.criteria
    assert isinstance(criterion, CommandCriterion)
    return criterion.command


def test_files_beside_the_team_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``./`` and ``../`` are relative to the team file, also where that is named relatively; other words stay."""
    (tmp_path / "check.py").touch()
    (tmp_path / "team").mkdir()
    monkeypatch.chdir(tmp_path)
    words = ("python3", "../check.py", "./", "check.py", "--out=./x", "./{{ goal }}.txt")
    program, script, folder, *rest, templated = frozen_command(Path("team"), *words)
    assert (program, rest) == ("python3", ["check.py", "--out=./x"])
    assert (Path(script).is_absolute(), Path(script).resolve()) == (True, (tmp_path / "check.py").resolve())
    assert Path(folder) == tmp_path / "team"
    assert Path(templated) == tmp_path / "team" / "{{ goal }}.txt"


def test_a_missing_file_is_told_before_anything_runs(tmp_path: Path) -> None:
    """A script that is not there is a mistake of the team, not of the worker whose answer it would refuse."""
    with pytest.raises(SourceMissing, match=r"step 's': there is no file .*chekc\.py"):
        frozen_command(tmp_path, "python3", "./chekc.py")
