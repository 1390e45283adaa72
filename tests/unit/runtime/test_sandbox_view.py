"""What a sandbox shows, as the list of steps that both tiers carry out."""

import sys
from pathlib import Path

import pytest

from interlock.agents.tools.isolation import Mount, MountRefused, SandboxLimits
from interlock.runtime.sandbox._bubblewrap import command_line
from interlock.runtime.sandbox._view import environment, view


def binds(*mounts: Mount) -> dict[str, bool]:
    """Return the paths that are shown, in order, with whether they are writable."""
    shown: dict[str, bool] = {}
    for step in view(mounts, SandboxLimits()):
        match step:
            case ("bind", _, str(path), bool(writable)):
                shown[path] = writable
            case _:
                pass
    return shown


def test_only_writable_mounts_are_writable(tmp_path: Path) -> None:
    """Everything else that is shown is read-only."""
    for name in ("read", "write"):
        (tmp_path / name).mkdir()
    shown = binds(Mount(tmp_path / "read"), Mount(tmp_path / "write", writable=True))
    assert [path for path, writable in shown.items() if writable] == [str(tmp_path / "write")]
    assert str(tmp_path / "read") in shown


def test_what_is_below_comes_after_what_is_above(tmp_path: Path) -> None:
    """A mount inside another one is put on top of it, in whatever order they were named."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    shown = list(binds(Mount(tmp_path / "a" / "b", writable=True), Mount(tmp_path), Mount(tmp_path / "a")))
    named = [path for path in shown if path.startswith(str(tmp_path))]
    assert named == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")]


def test_this_python_is_never_writable() -> None:
    """Naming its own folder, or one above, as writable leaves this Python read-only."""
    prefix = Path(sys.prefix)
    assert binds(Mount(prefix, writable=True)).get(str(prefix), False) is False
    shown = binds(Mount(prefix.parent, writable=True))
    assert shown[str(prefix.parent)]
    assert list(shown).index(str(prefix)) > list(shown).index(str(prefix.parent))


@pytest.mark.parametrize(
    ("path", "why"),
    [("relative", "absolute"), ("/", "machine's own"), ("/proc/1", "machine's own"), ("/nowhere", "cannot be reached")],
)
def test_refusals_say_why(path: str, why: str) -> None:
    """A mount that is refused says what is wrong with it."""
    with pytest.raises(MountRefused, match=why) as refused:
        binds(Mount(Path(path)))
    assert refused.value.path == Path(path)


def test_a_link_is_refused_with_where_it_leads(tmp_path: Path) -> None:
    """A path with a symbolic link on the way is refused, and the message names the path to use if it is meant."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(MountRefused, match=f"name {tmp_path / 'real'}"):
        binds(Mount(tmp_path / "link"))


def test_nothing_of_this_process_stands_on_the_command_line(tmp_path: Path) -> None:
    """The tier bubblewrap is told to clear the environment, and the command itself is not among its words."""
    words = command_line("/usr/bin/bwrap", view([Mount(tmp_path)], SandboxLimits()), [5, 6, 7])
    assert {"--clearenv", "--die-with-parent", "--new-session", "--unshare-net", "--unshare-pid"} <= set(words)
    assert words[-3:] == ["5", "6", "7"]
    assert sorted(environment()) == ["HOME", "LANG", "PATH"]
