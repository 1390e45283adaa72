"""What holds of every example: it is whole, it is a team without mistakes, and its README tells the truth."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tests.cli import interlock
from tests.integration.examples.standins import EXAMPLES, FOLDER, answers_of, code_lines

from interlock.runtime.cli import parser
from interlock.runtime.sources import freeze, parse_inputs
from interlock.runtime.teamfile import load_team, team_json_schema
from interlock.runtime.yaml_positions import parse_yaml

ROOT = FOLDER.parent
READMES = [FOLDER / "README.md", *(example / "README.md" for example in EXAMPLES)]

by_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
by_readme = pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)


def commands(readme: Path, words: str) -> list[list[str]]:
    """Return the arguments of the commands in a README that begin with ``words``."""
    lines = [line for line in code_lines(readme) if line.startswith(f"{words} ")]
    return [shlex.split(line, comments=True)[len(words.split()) :] for line in lines]


def test_there_are_examples() -> None:
    """The folder of examples is found, and each example has its stand-in and its README."""
    assert {"brief", "desk", "digest", "triage"} <= {example.name for example in EXAMPLES}
    assert [one for one in EXAMPLES if not (one / "README.md").is_file() or not callable(answers_of(one.name))] == []


@by_example
def test_an_editor_has_nothing_against_it(example: Path) -> None:
    """Each team file is valid against the JSON Schema that editors use."""
    validator: Any = Draft202012Validator(team_json_schema())
    document = parse_yaml((example / "team.yaml").read_text()).value
    assert [error.message for error in validator.iter_errors(document)] == []


async def test_check_finds_no_mistake() -> None:
    """``interlock check`` takes all of them and says a line about each."""
    done = await interlock("check", *(str(example / "team.yaml") for example in EXAMPLES))
    assert (done.status, done.err) == (0, "")
    assert len(done.out.splitlines()) == len(EXAMPLES)


@by_example
def test_its_data_is_there(example: Path, tmp_path: Path) -> None:
    """With the defaults of its inputs a job can be made of each team, from any folder."""
    job = freeze(load_team(example / "team.yaml"), {}, tmp_path)
    assert all(job.inputs.values())


@by_readme
def test_its_commands_are_commands(readme: Path) -> None:
    """Every ``interlock`` command of a README can be typed: its words, its team file and its inputs exist."""
    found = commands(readme, "interlock")
    assert any(arguments[0] == "run" for arguments in found)
    for arguments in found:
        options = parser().parse_args(arguments)
        if not hasattr(options, "team"):
            continue
        teams = options.team if isinstance(options.team, list) else [options.team]
        declared = [load_team(ROOT / team).team.inputs for team in teams]
        assert set(parse_inputs(getattr(options, "input", []))) <= set(declared[0])


@by_readme
def test_its_stand_in_is_there(readme: Path) -> None:
    """The stand-in that a README starts is a function of a file, on the port that the run is pointed to."""
    (arguments,) = commands(readme, "python -m interlock.testing")
    flag, script, port_flag, port = arguments
    path, _, name = script.partition(":")
    assert (flag, port_flag, name) == ("--script", "--port", "answer")
    assert (ROOT / path).is_file()
    assert f"export INTERLOCK_MODEL_URL=http://127.0.0.1:{port}/v1" in code_lines(readme)


@by_readme
def test_links_lead_somewhere(readme: Path) -> None:
    """Every relative link of a README names a file or folder."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", readme.read_text())
    assert [link for link in links if not (readme.parent / link).exists()] == []
