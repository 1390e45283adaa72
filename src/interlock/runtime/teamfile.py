"""Team files: read, checked as a whole, and every mistake shown with its place.

``load_team`` gives a team in which everything fits together, or says all that is wrong with the file at once.
"""

import ast
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from interlock.agents.children import inner_teams
from interlock.protocol import criteria, permissions, principles, team
from interlock.protocol.team import Team
from interlock.runtime.config import Toolkit
from interlock.runtime.team_checks import check_team
from interlock.runtime.team_nesting import Nesting, Reading
from interlock.runtime.team_shape import read_shape
from interlock.runtime.yaml_positions import Position, Problem, YamlInvalid, parse_yaml, read_text

__all__ = ["LoadedTeam", "TeamFileInvalid", "known_team", "load_team", "parse_team", "team_json_schema"]


class TeamFileInvalid(ValueError):
    """A team file with mistakes: ``problems`` are all of them, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True)
class LoadedTeam:
    """A team that can run, and what was found out about it."""

    team: Team
    path: Path
    """The file; paths in it are relative to its folder."""
    needs: Mapping[str, tuple[str, ...]]
    """For each step the steps that must be over before it, those that its templates name included."""
    result_steps: tuple[str, ...]
    """The steps that the job's result is made of."""
    inputs_used: frozenset[str]
    """The inputs that templates name."""
    inner: Mapping[str, "LoadedTeam"] = field(default_factory=dict[str, "LoadedTeam"])
    """The agents that are teams; ``team`` has them in it."""


def load_team(path: str | Path) -> LoadedTeam:
    """Return the team of a file.

    :raises TeamFileInvalid: the file cannot be read, is no YAML, or is no team in which everything fits together; so
        it is with the file of a team within it.
    """
    return _load(Path(path), Reading(_load))


def _load(path: Path, reading: Reading[LoadedTeam]) -> LoadedTeam:
    try:
        text = read_text(path)
    except YamlInvalid as error:
        raise _invalid(path, [(error.position, str(error))]) from error
    return _parse(text, path, reading)


def parse_team(text: str, path: str | Path) -> LoadedTeam:
    """Return the team of a text that was read from, or belongs to, ``path``.

    :raises TeamFileInvalid: as ``load_team``.
    """
    return _parse(text, Path(path), Reading(_load))


def _parse(text: str, path: Path, reading: Reading[LoadedTeam]) -> LoadedTeam:
    try:
        document = parse_yaml(text)
    except YamlInvalid as error:
        raise _invalid(path, [(error.position, str(error))]) from error
    shape = read_shape(document)
    problems = document.problems + shape.problems
    if shape.team is None:
        raise _invalid(path, problems)
    home = path.resolve().parent
    nesting = Nesting.of(shape.team, home, reading.within(path), TeamFileInvalid)
    checked = check_team(nesting.team, document, shape, home)
    own = [(document.at(at), message) for at, message in nesting.problems if not shape.is_mended(*at)]
    problems = problems + own + checked.problems
    elsewhere = [
        problem for error in nesting.failures if isinstance(error, TeamFileInvalid) for problem in error.problems
    ]
    if problems or elsewhere:
        raise TeamFileInvalid(dict.fromkeys((*_invalid(path, problems).problems, *elsewhere)))
    return LoadedTeam(nesting.team, path, checked.needs, checked.result_steps, checked.inputs_used, nesting.inner)


def known_team(team: Team, toolkit: Toolkit, inputs_used: frozenset[str] = frozenset()) -> LoadedTeam:
    """Return a team that was loaded before, on this machine or another, with the folders that its files were in."""
    inner = {name: known_team(one, toolkit.of(one.team)) for name, one in inner_teams(team)}
    return LoadedTeam(team, Path(toolkit.base) / "team.yaml", {}, (), inputs_used, inner)


def team_json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a team file's shape, for editors: keys, types and what they mean.

    What it accepts can still be refused by ``load_team``, which knows what fits together.
    """
    schema = Team.model_json_schema()
    for model in (schema, *schema.get("$defs", {}).values()):
        _describe(model, _notes().get(model.get("title", ""), {}))
    _tidy(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Interlock team file"}


def _tidy(node: Any) -> None:
    """Say what pydantic leaves unsaid, and leave out what is OpenAPI and no JSON Schema."""
    match node:
        case dict():
            node.pop("discriminator", None)
            if "patternProperties" in node:
                node["additionalProperties"] = False
            if "oneOf" in node:
                node["oneOf"] = [one for branch in node["oneOf"] for one in branch.get("oneOf", [branch])]
            for inner in node.values():
                _tidy(inner)
        case list():
            for inner in node:
                _tidy(inner)
        case _:
            pass


def _describe(model: dict[str, Any], notes: Mapping[str, str]) -> None:
    """Put what the source says about a model and its fields where an editor shows it, as Markdown."""
    if "description" in model:
        model["description"] = _markdown(model["description"])
    for name, told in model.get("properties", {}).items():
        told.pop("title", None)
        if name in notes:
            told["description"] = notes[name]


@cache
def _notes() -> dict[str, dict[str, str]]:
    """Return for each class of a team the docstrings of its fields, by their names in YAML."""
    classes: dict[str, ast.ClassDef] = {}
    for module in (team, criteria, permissions, principles):
        tree = ast.parse(inspect.getsource(module))
        classes |= {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    notes: dict[str, dict[str, str]] = {}
    for name, node in classes.items():  # a base stands before what is made of it
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        notes[name] = {key: text for base in bases for key, text in notes.get(base, {}).items()} | _own_notes(node)
    return notes


def _own_notes(node: ast.ClassDef) -> dict[str, str]:
    notes: dict[str, str] = {}
    for before, after in pairwise(node.body):
        match before, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                notes[name.rstrip("_")] = _markdown(text)
            case _:
                pass
    return notes


def _markdown(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


def _invalid(path: str | Path, problems: Iterable[tuple[Position, str]]) -> TeamFileInvalid:
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: problem[0])
    return TeamFileInvalid(Problem(str(path), at.line, at.column, message) for at, message in ordered)
