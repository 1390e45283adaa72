"""What users install: the wheel, with the source folder out of the way."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.modules import MODULES, ROOT, SOURCE


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout, without a network by the back end that the lock names."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-index"]
    subprocess.run(
        [*command, "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True, timeout=120
    )
    (built,) = folder.glob("interlock-*.whl")
    return built


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every module and the marker of typed packages is in the wheel once; tests and the links at the top are not."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    python = [name for name in names if name.endswith(".py")]
    assert sorted(python) == sorted(module.path.relative_to(SOURCE.parent).as_posix() for module in MODULES)
    assert "interlock/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"interlock"}


def test_wheel_says_what_it_is(wheel: Path) -> None:
    """The metadata names the version, the licence and its text, and the command."""
    with zipfile.ZipFile(wheel) as archive:
        texts = {name.partition(".dist-info/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        metadata = archive.read(texts["METADATA"]).decode()
        commands = archive.read(texts["entry_points.txt"]).decode()
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
    assert "licenses/LICENSE" in texts
    assert "interlock = interlock.runtime.cli:main" in commands


def test_wheel_works_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """The package in the wheel runs where no checkout is in sight."""
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    script = (
        "import interlock, interlock.protocol.schema as s; print(interlock.__file__, len(s.asyncapi()['channels']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=empty,
        env={"PATH": os.defpath, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    where, channels = ran.stdout.split()
    assert Path(where) == site / "interlock" / "__init__.py"
    assert int(channels) > len({"task.assigned", "task.result", "task.verdict"})
    assert list(empty.iterdir()) == []
