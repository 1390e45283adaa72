"""What may stand in the repository's files, and in which form."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.modules import ROOT

from interlock import __version__

# In pieces, so that this file does not break its own rule.
HOSTS = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"))]
HOMES = [f"/{folder}/" for folder in ("root", "home", "Users", "work")]
FORBIDDEN = re.compile("|".join([*map(re.escape, HOSTS), *(rf"(?<![\w.$}}]){home}\w" for home in HOMES)]))

HEADING = re.compile(r"## \[(?P<version>Unreleased|\d+\.\d+\.\d+)\](?: - (?P<date>\d{4}-\d\d-\d\d))?")
SECTIONS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def committed() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [file for file in files if file.is_file() and not file.is_symlink()]


def test_no_file_names_a_registry_or_a_home() -> None:
    """No committed text names a package registry's host or a folder of somebody's machine."""
    found = []
    for file in committed():
        lines = file.read_bytes().decode(errors="ignore").splitlines()
        found += [f"{file.relative_to(ROOT)}:{n}: {line}" for n, line in enumerate(lines, 1) if FORBIDDEN.search(line)]
    assert found == []


@pytest.mark.parametrize("text", [f"https://{HOSTS[0]}/simple", f"open('{HOMES[1]}me/x')", f"cd {HOMES[0]}x"])
def test_forbidden_text_is_seen(text: str) -> None:
    """The rule finds hosts and home folders."""
    assert FORBIDDEN.search(text)


@pytest.mark.parametrize("lock", ["dev.txt", "local.txt", "weights.txt"])
def test_lock_has_a_hash_for_every_pin(lock: str) -> None:
    """Every requirement of a lock is pinned to one version and to the hashes of its files."""
    text = (ROOT / "requirements" / lock).read_text().replace("\\\n", " ")
    pins = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert pins
    assert [
        pin for pin in pins if not re.match(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==\S+ .*--hash=sha256:[0-9a-f]{64}", pin)
    ] == []


@pytest.mark.parametrize("lock", ["dev.txt", "local.txt"])
def test_lock_fits_the_project(lock: str) -> None:
    """Every requirement of pyproject.toml is in the lock, at a version that it allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    more = {
        "dev.txt": project["dependency-groups"]["dev"],
        "local.txt": project["project"]["optional-dependencies"]["local"],
    }
    wanted = [Requirement(text) for text in (*project["project"]["dependencies"], *more[lock])]
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements" / lock).read_text(), re.MULTILINE))
    wrong = [one for one in wanted if pins.get(canonicalize_name(one.name), "0") not in one.specifier]
    assert wrong == [], "run make lock"


def test_changelog_keeps_its_form() -> None:
    """CHANGELOG.md follows Keep a Changelog: Unreleased on top, dated releases, newest first, its kinds of change."""
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    assert lines[0] == "# Changelog"
    headings = [HEADING.fullmatch(line) for line in lines if line.startswith("## ")]
    assert all(headings), "each heading must be [Unreleased] or [x.y.z] - yyyy-mm-dd"
    versions = [heading["version"] for heading in headings if heading]
    assert versions[0] == "Unreleased"
    released = [tuple(map(int, version.split("."))) for version in versions[1:]]
    assert released == sorted(released, reverse=True)
    assert [heading["version"] for heading in headings[1:] if heading and not heading["date"]] == []
    assert {line.removeprefix("### ") for line in lines if line.startswith("### ")} <= set(SECTIONS)


def test_changelog_knows_the_version() -> None:
    """The version of the package is released, or is named as the one to come."""
    assert __version__ in (ROOT / "CHANGELOG.md").read_text()
