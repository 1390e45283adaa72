import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.backends._tool_names import api_name, own_name

NAMES = st.one_of(
    st.text(max_size=80),
    st.lists(st.text("ab_-.", max_size=6), max_size=5).map(".".join),
    st.sampled_from(["files.read", "files__read", "files_read", "a._b", "a_.b", "a___b", "a.b.c" * 30]),
)


@pytest.mark.parametrize(
    ("name", "wire"),
    [("files.read", "files__read"), ("mcp.git-hub.list_issues", "mcp__git-hub__list_issues"), ("plain", "plain")],
)
def test_usual_names_stay_readable(name: str, wire: str) -> None:
    """Dots become double underscores, and back, even where the tool is not among those offered."""
    assert api_name(name) == wire
    assert own_name(wire, [name]) == own_name(wire, []) == name


@given(st.lists(NAMES, unique=True, max_size=8))
def test_every_name_goes_there_and_back(names: list[str]) -> None:
    """Whatever the names, the API takes them, no two become one, and each comes back as it was."""
    wire = [api_name(name) for name in names]
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in wire)
    assert len(set(wire)) == len(names)
    assert [own_name(name, names) for name in wire] == names


def test_what_a_model_makes_up_stays_recognisable() -> None:
    """A name that was never offered comes back as it was written, or with its dots."""
    assert own_name("shell__run", ["files.read"]) == "shell.run"
    assert own_name("files.read", ["files.read"]) == "files.read"
    assert own_name("do it!", ["files.read"]) == "do it!"
