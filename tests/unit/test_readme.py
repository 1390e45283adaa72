"""The README's own team is a team, and every file that it names is there."""

import re
from pathlib import Path

from interlock.runtime.teamfile import parse_team

_ROOT = Path(__file__).parents[2]
_README = (_ROOT / "README.md").read_text()


def test_the_readme_s_team_is_free_of_mistakes() -> None:
    """Whoever copies the README's team file gets one that loads."""
    (team,) = re.findall(r"```yaml\n(interlock: 1\n.*?)```", _README, re.DOTALL)
    loaded = parse_team(team, "team.yaml")
    assert loaded.team.team == "sorter"
    assert len(team.splitlines()) <= 60


def test_links_lead_somewhere() -> None:
    """Every relative link of the README names a file or folder of the project."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", _README)
    assert links
    assert [link for link in links if not (_ROOT / link).exists()] == []
