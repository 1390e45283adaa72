"""The types that users see, judged as users see them: by a type checker, over code that uses the package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.modules import ROOT, SOURCE

EXPECTED = re.compile(r"  # type: ignore\[([a-z-]+)\]$")
FOUND = re.compile(r"user_code\.py:(\d+): error: .*\[([a-z-]+)\]$")


@pytest.mark.timeout(300)
def test_type_errors_of_user_code_are_exactly_those_expected(tmp_path: Path) -> None:
    """Right code has no type errors, and each line that must be one is one, of the kind that the line names."""
    lines = (ROOT / "tests" / "typing" / "user_code.py").read_text().splitlines()
    expected = {number: found[1] for number, line in enumerate(lines, 1) if (found := EXPECTED.search(line))}
    user_code = tmp_path / "user_code.py"
    user_code.write_text("\n".join(EXPECTED.sub("", line) for line in lines))
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "--cache-dir", tmp_path, user_code],
        cwd=tmp_path,
        env={"MYPYPATH": str(SOURCE.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    errors = [error for line in checked.stdout.splitlines() if (error := FOUND.search(line))]
    assert len(expected) > 5
    assert {int(error[1]): error[2] for error in errors} == expected, checked.stdout + checked.stderr
