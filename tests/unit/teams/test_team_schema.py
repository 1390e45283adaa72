"""The JSON Schema of team files, as editors use it."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from interlock.protocol.criteria import CHECK_NAMES
from interlock.runtime.teamfile import load_team, team_json_schema
from interlock.runtime.yaml_positions import parse_yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TEAMS = sorted([HERE / "valid.yaml", *ROOT.glob("examples/**/team*.yaml")])
OF_SHAPE = (
    *("bad_kind", "bad_name", "below_minimum", "misspelt_key", "misspelt_required_key", "missing_key"),
    *("no_criterion_kind", "not_a_mapping", "unknown_check", "wrong_type", "wrong_version", "many"),
)
"""The broken files whose mistake an editor can see."""


def errors_of(path: Path) -> list[str]:
    validator: Any = Draft202012Validator(team_json_schema())
    return [error.message for error in validator.iter_errors(parse_yaml(path.read_text()).value)]


def test_it_is_a_schema() -> None:
    """It is valid against its own meta schema, and plain JSON."""
    Draft202012Validator.check_schema(team_json_schema())
    assert json.loads(json.dumps(team_json_schema())) == team_json_schema()


@pytest.mark.parametrize("path", TEAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_team_that_loads_fits(path: Path) -> None:
    """A team file of ours loads, and an editor has nothing against it."""
    assert load_team(path).team.team
    assert errors_of(path) == []


@pytest.mark.parametrize("name", OF_SHAPE)
def test_mistakes_of_shape_show_in_an_editor(name: str) -> None:
    """A broken file whose shape is wrong is wrong for the schema too."""
    assert errors_of(HERE / "broken" / f"{name}.yaml") != []


def test_each_check_can_be_completed() -> None:
    """A criterion is one of a flat list, and each check is told apart by its one name."""
    schema = team_json_schema()
    branches = schema["$defs"]["Verify"]["properties"]["criteria"]["items"]["oneOf"]
    models = [schema["$defs"][branch["$ref"].removeprefix("#/$defs/")] for branch in branches]
    checks = [model["properties"]["check"]["const"] for model in models if "check" in model["properties"]]
    assert sorted(checks) == sorted(CHECK_NAMES)
    assert len(models) == len(CHECK_NAMES) + 3
    assert all(model["additionalProperties"] is False for model in models)


def test_fields_are_explained() -> None:
    """What the source says about a field is what an editor shows."""
    step = team_json_schema()["$defs"]["Step"]["properties"]
    assert step["attempts"]["description"] == "How often the step's agent may try before `on_failure`."
    words = team_json_schema()["$defs"]["WordsCheck"]["properties"]
    assert "The property of the output" in words["field"]["description"]
