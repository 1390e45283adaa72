"""Rules of paths against the real file system: what is allowed and then opened is inside; tricks lead nowhere."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.security.rules.harness import READ, call_of, decide, layer

from interlock.agents.tools.normal import PathUnclear, normal_path
from interlock.protocol.permissions import judge_call

NAMES = (
    "open",
    "secret",
    "in",
    "out",
    "file",
    "loop",
    "up",
    "abs",
    "deep",
    "Open",
    "é",
    "e\u0301",
    "%2e%2e",
    "~",
    "*",
    "-",
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with links of all kinds, in and out of the folder that is allowed."""
    root = tmp_path_factory.mktemp("tree").resolve()
    for folder in ("open/in/deep", "open/secret", "secret", "out", "open/%2e%2e", "open/~", "open/é", "Open"):
        (root / folder).mkdir(parents=True)
    for folder in ("open", "open/in", "open/in/deep", "open/secret", "secret", "out", "open/%2e%2e", "open/~", "Open"):
        (root / folder / "file").write_text(folder)
    links = {
        "open/up": "..",
        "open/out": "../out",
        "open/abs": str(root / "secret"),
        "open/loop": "loop",
        "in": "open/in",
        "open/in/out": "../../secret/file",
        "open/in/up": "../..",
        "up": "open/up",
        "secret/in": "../open/in",
        "open/deep": "in/deep/../..",
        "open/in/loop": "../loop/x",
    }
    for link, target in links.items():
        (root / link).symlink_to(target)
    return root


segments = st.one_of(
    st.sampled_from(NAMES), st.sampled_from(["..", ".", "", "...", ".. ", "..%2f", "%2e%2e", "..\\", "\u2025"])
)


@st.composite
def paths(draw: st.DrawFn) -> str:
    """Paths through the tree, with every trick of spelling."""
    start = draw(
        st.sampled_from(["", "", "open/", "./", "/", "//", "ROOT/", "ROOT/open/", "/proc/self/cwd/", "open//"])
    )
    return start + "/".join(draw(st.lists(segments, min_size=1, max_size=6)))


bounded = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@bounded
@given(path=paths())
def test_what_is_allowed_is_inside(tree: Path, path: str) -> None:
    """A path that the rules allow, opened as the tool gets it, is inside the folder and not in what is denied."""
    rules = layer(tree, allow=("files.read(./open/**)",), deny=("files.read(./open/secret/**)",))
    try:
        call = call_of(READ, path.replace("ROOT", str(tree)), tree)
    except PathUnclear:
        return
    if judge_call([rules], call).outcome != "allow":
        return
    got = str(call.arguments["path"])
    real = os.path.realpath(got)
    assert real == got, "what the tool gets goes through no link"
    assert real == str(tree / "open") or real.startswith(f"{tree}/open/")
    assert not real.startswith(f"{tree}/open/secret")
    if Path(got).exists():
        inode = Path(got).stat().st_ino
        assert inode in {
            one.stat().st_ino for one in [tree / "open", *(tree / "open").rglob("*")] if not one.is_symlink()
        }


@bounded
@given(path=paths())
def test_what_leads_to_a_denied_folder_is_denied(tree: Path, path: str) -> None:
    """However a file of a denied folder is reached, it is denied, also where the rule itself goes over a link."""
    rules = layer(tree, allow=("files.read(/**)",), deny=("files.read(./open/abs/**)",))
    try:
        call = call_of(READ, path.replace("ROOT", str(tree)), tree)
    except PathUnclear:
        return
    real = os.path.realpath(tree / path.replace("ROOT", str(tree)))
    if real == str(tree / "secret") or real.startswith(f"{tree}/secret/"):
        assert judge_call([rules], call).outcome == "deny"


@given(path=st.text(max_size=80))
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_any_text_has_one_form_or_is_refused(tree: Path, path: str) -> None:
    """Whatever is given becomes an absolute path that is its own one form, or the typed error."""
    try:
        normal = str(call_of(READ, path, tree).arguments["path"])
    except PathUnclear:
        return
    assert normal.startswith("/")
    assert ".." not in normal.split("/")
    assert normal_path(normal, Path("/elsewhere")) == normal


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a\0b",
        "a\nb",
        "a\x1bb",
        "open/loop",
        "open/in/loop",
        "e\u0301",
        "a\u200bb",
        "a\u202eb",
        "x" * 300,
        "y/" * 3000,
        "\ud800",
    ],
)
def test_unclear_paths_are_refused(tree: Path, path: str) -> None:
    """Names that cannot be seen, look like others, or lead in a circle are refused."""
    with pytest.raises(PathUnclear):
        call_of(READ, path, tree)


@pytest.mark.parametrize(
    "path",
    [
        "open/../secret/file",
        "open/up/secret/file",
        "open/abs/file",
        "open/in/out",
        "open/in/up/secret",
        "in/../../secret/file",
        "up/secret/file",
        "open/deep/../secret/file",
        "open/out/file",
        "Open/file",
        "open2/file",
        "/etc/passwd",
        "~/file",
        "%6fpen/file",
        "open\\..\\secret",
    ],
)
def test_what_is_outside_is_not_allowed(tree: Path, path: str) -> None:
    """Each known way out of a folder ends in a denial."""
    (tree / "open2").mkdir(exist_ok=True)
    assert decide(READ, path, layer(tree, allow=("files.read(./open/**)",)), base=tree).outcome == "deny"


def test_a_link_that_is_swapped_later_leads_nowhere(tree: Path, tmp_path: Path) -> None:
    """What was judged holds no link; put in place afterwards, one shows when the path is resolved again."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a").mkdir()
    got = str(call_of(READ, "open/a/file", tmp_path).arguments["path"])
    (tmp_path / "open" / "a").rmdir()
    (tmp_path / "open" / "a").symlink_to(tree / "secret")
    assert os.path.realpath(got) != got
    again = decide(READ, "open/a/file", layer(tmp_path, allow=("files.read(./open/**)",)), base=tmp_path)
    assert again.outcome == "deny"


def test_deny_overlooks_how_names_are_written(tree: Path) -> None:
    """A denied folder is denied in other letters too, since some file systems make no difference; allow is exact."""
    deny = layer(tree, allow=("files.read(/**)",), deny=("files.read(./open/é/**)", "files.read(./SECRET/**)"))
    assert decide(READ, "open/É/x", deny, base=tree).outcome == "deny"
    assert decide(READ, "secret/file", deny, base=tree).outcome == "deny"
    assert decide(READ, "Open/file", layer(tree, allow=("files.read(./open/**)",)), base=tree).outcome == "deny"
    assert unicodedata.is_normalized("NFC", "é")


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("./a/*", "a/b", True), ("./a/*", "a/b/c", False), ("./a/*", "a", False), ("./a/**", "a", True),
        ("./a/**", "a/b/c", True), ("./a/**", "ab", False), ("**/b", "a/b", True), ("**/b", "b", True),
        ("a/**/z", "a/z", True), ("a/**/z", "a/x/y/z", True), ("*.md", "x.md", True), ("*.md", "a/x.md", False),
        ("a/\\*", "a/*", True), ("a/\\*", "a/b", False), ("/**", "x", True), ("a[b]", "a[b]", True),
        ("a?", "ab", False),         ("./a/../b/*", "b/c", True), ("b*d/x", "bcd/x", True), ("b*d/x", "b/d/x", False),
        ("../*/x", "x", True),
    ],
)  # fmt: skip
def test_patterns_of_paths(tmp_path: Path, pattern: str, path: str, fits: bool) -> None:
    """``*`` stays within a name, ``**`` crosses folders, everything else is plain."""
    decision = decide(READ, path, layer(tmp_path, allow=(f"files.read({pattern})",)), base=tmp_path)
    assert (decision.outcome == "allow") is fits


def test_the_folder_of_the_rules_is_no_pattern(tmp_path: Path) -> None:
    """A folder whose own name holds a star or a backslash means itself only."""
    odd = tmp_path / "a*\\b"
    odd.mkdir()
    rules = layer(odd, allow=("files.read(./x)",))
    assert decide(READ, "x", rules, base=odd).outcome == "allow"
    assert decide(READ, str(tmp_path / "aXX\\b" / "x"), rules, base=odd).outcome == "deny"
