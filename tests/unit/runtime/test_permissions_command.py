"""``interlock permissions``: it says which rule decides, with the arguments that the tool would get."""

import json
from pathlib import Path

import pytest

from interlock.runtime.cli import main

TEAM = """\
interlock: 1
team: guarded
agents:
  clerk: {kind: worker, tools: [files.read, shell.run], permissions: {deny: ["web.fetch(https://x.example.org/**)"]}}
  checker: {kind: verifier}
tools: {files: {read: [docs]}}
permissions:
  allow: ["files.read(./docs/**)", "web.fetch(https://*.example.org/**)", "shell.run(git log *)", "shell.run(head *)"]
  ask: ["shell.run(git push *)"]
principles: ["never web.fetch(https://never.example.org/**)"]
plan:
  - {step: look, agent: clerk, do: go, output: {x: string}}
"""


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """Return a team file on disk."""
    (tmp_path / "docs").mkdir()
    path = tmp_path / "team.yaml"
    path.write_text(TEAM)
    return path


@pytest.mark.parametrize(
    ("call", "options", "status", "said"),
    [
        ('files.read("docs/../docs/a.md")', (), 0, "files.read(./docs/**)"),
        ('files.read(path="/etc/passwd")', (), 1, "no rule that allows"),
        ('web.fetch("http://0x7f.1/")', (), 1, "http://127.0.0.1/"),
        ('web.fetch("https://X.example.org/a")', (), 0, "https://x.example.org/a"),
        ('web.fetch("https://X.example.org/a")', ("--agent", "clerk"), 1, "agent clerk"),
        ('web.fetch("https://x.example.org/a")', ("--step", "look"), 1, "not granted: step look"),
        ('web.fetch("https://a.example.org/")', ("--tainted",), 3, "text from outside"),
        ('web.fetch("https://never.example.org/")', (), 1, "principles"),
        ('shell.run("git log | head; rm x")', (), 1, "'rm x'"),
        ('shell.run("git push")', (), 3, "shell.run(git push *)"),
        ('shell.run("eval x")', (), 1, "cannot be judged"),
        ('files.read("docs/a", nope=1)', (), 1, "there is no argument 'nope'"),
        ('fils.read("docs/a")', (), 2, "did you mean 'files.read'?"),
        ("files.read(docs)", (), 2, "plain values"),
        ('files.read("a") + 1', (), 2, "is no call"),
        ("files.read", (), 2, "is no call"),
        ('files.read("a", path="b")', (), 2, "given twice"),
        ('files.read("a")', ("--step", "lok"), 2, "did you mean 'look'?"),
        ('files.read("a")', ("--agent", "clrk"), 2, "did you mean 'clerk'?"),
    ],
)
def test_explain(
    team: Path, capsys: pytest.CaptureFixture[str], call: str, options: tuple[str, ...], status: int, said: str
) -> None:
    """The exit status is the decision, and the output names the rule, the layer and the normal arguments."""
    assert main(["permissions", str(team), "--explain", call, *options]) == status
    out, err = capsys.readouterr()
    assert said in out + err
    assert bool(out) is (status != 2)


def test_an_operator_can_only_narrow(team: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the operator's file, what the team allows can be denied; and not the other way round."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("permissions: {deny: ['files.read(./docs/secret/**)'], allow: ['files.*', 'web.*']}\n")
    options = ["--policy", str(policy)]
    for call, status in (("docs/a", 0), ("docs/secret/a", 1), ("other", 1)):
        assert main(["permissions", str(team), "--explain", f"files.read('{call}')", *options]) == status
    capsys.readouterr()
    policy.write_text("permissions: {deny: ['((']}\n")
    assert main(["permissions", str(team), *options]) == 2
    assert f"{policy}:1:" in capsys.readouterr().err


def test_json(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same as one JSON object, for programs."""
    assert main(["permissions", str(team), "--json", "--explain", "shell.run('git log|head -3')"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["outcome"], told["layer"]) == ("allow", "team guarded")
    assert told["arguments"] == {"command": "git log | head -3"}
    assert told["commands"] == [["git", "log"], ["head", "-3"]]


def test_without_a_call_all_rules_are_listed(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Layers with their rules, and what each step may call."""
    assert main(["permissions", str(team)]) == 0
    out = capsys.readouterr().out
    assert "agent clerk\n  deny" in out
    assert "step look: files.read (read), shell.run" in out
    assert main(["permissions", str(team), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["layers"]) == {"team guarded", "agent clerk"}
    assert set(told["steps"]["look"]) == {"files.read", "shell.run"}


def test_a_bad_team_is_told_as_by_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mistakes of the team file come with their places, and exit status 2."""
    path = tmp_path / "team.yaml"
    path.write_text(TEAM.replace("files.read(./docs/**)", "files.raed(./docs/**)"))
    assert main(["permissions", str(path)]) == 2
    assert f"{path}:8:" in capsys.readouterr().err
