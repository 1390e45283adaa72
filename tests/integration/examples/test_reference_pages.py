"""The reference pages say what the code does: every key with its default, every example, every piece of evidence."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter
from tests.integration.examples.standins import FOLDER

from interlock.agents.checks.registry import evaluate
from interlock.agents.template_sandbox import Sandbox
from interlock.protocol import criteria, team
from interlock.protocol.criteria import Criterion
from interlock.runtime.teamfile import parse_team
from interlock.runtime.yaml_positions import parse_yaml

DOCS = FOLDER.parent / "docs"
TEAM_FILES, CHECKS = DOCS / "team-files.md", DOCS / "checks.md"

TABLES: dict[tuple[Path, str], tuple[type[BaseModel], ...]] = {
    (TEAM_FILES, "The team"): (team.Team,),
    (TEAM_FILES, "model"): (team.ModelSettings,),
    (TEAM_FILES, "agents"): (team.Agent,),
    (TEAM_FILES, "inputs"): (team.Input,),
    (TEAM_FILES, "plan"): (team.Step,),
    (TEAM_FILES, "for_each"): (team.Files, team.JsonLines),
    (TEAM_FILES, "verify"): (team.Verify,),
    (TEAM_FILES, "on_failure"): (team.Handover,),
    (TEAM_FILES, "budget"): (team.Budget,),
    (TEAM_FILES, "limits"): (team.Limits,),
    (CHECKS, "Keys of every criterion"): (criteria._Criterion, criteria._FieldCriterion),
    (CHECKS, "words"): (criteria.WordsCheck,),
    (CHECKS, "characters"): (criteria.CharactersCheck,),
    (CHECKS, "regex"): (criteria.RegexCheck,),
    (CHECKS, "one_of"): (criteria.OneOfCheck,),
    (CHECKS, "contains"): (criteria.ContainsCheck,),
    (CHECKS, "no_repetition"): (criteria.NoRepetitionCheck,),
    (CHECKS, "grounded"): (criteria.GroundedCheck,),
    (CHECKS, "json_schema"): (criteria.JsonSchemaCheck,),
    (CHECKS, "command"): (criteria.CommandCriterion,),
    (CHECKS, "schema"): (criteria.SchemaCriterion,),
    (CHECKS, "judge"): (criteria.JudgeCriterion,),
}
"""Which keys stand in which section; those of every criterion stand in one of their own."""

COMMON = {"name", "field"}

REST: dict[str, Any] = {
    "interlock": 1,
    "team": "t",
    "agents": {"clerk": {"kind": "worker"}, "checker": {"kind": "verifier"}},
    "plan": [{"step": "s", "agent": "clerk", "do": "x", "output": {"a": "string"}}],
}
"""What makes a whole team of a piece of one."""

by_section = pytest.mark.parametrize(
    ("page", "title"), TABLES, ids=lambda it: it.stem if isinstance(it, Path) else it.replace(" ", "-")
)


def section(page: Path, title: str) -> str:
    """Return the text below a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", page.read_text(), re.DOTALL | re.MULTILINE)
    assert found, f"{page.name} has no section {title!r}"
    return found[1]


def rows(text: str) -> Iterator[tuple[str, str]]:
    """Yield the key and the default of each row of the tables that have them."""
    for table in re.findall(r"^\| key \| type \| default \| meaning \|\n\|[- |]+\n((?:\|.*\n)+)", text, re.MULTILINE):
        for line in table.splitlines():
            key, _, default, *_ = (cell.strip().strip("`") for cell in line.strip("| ").split(" | "))
            yield key, default


def default_of(model: type[BaseModel], name: str) -> str:
    """Return a field's default as the pages write it: JSON, or bare where it is a word."""
    field = model.model_fields[name]
    if field.is_required():
        return "required"
    value = json.loads(TypeAdapter(Any).dump_json(field.get_default(call_default_factory=True), exclude_defaults=True))
    return value if isinstance(value, str) and value else json.dumps(value)


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@by_section
def test_every_key_stands_there_with_its_default(page: Path, title: str) -> None:
    """A section's tables have the keys of its models, no others, each with the default that the code has."""
    models = TABLES[page, title]
    common = set() if title == "Keys of every criterion" else COMMON if page == CHECKS else set()
    wanted = {
        model.model_fields[name].alias or name: default_of(model, name)
        for model in models
        for name in model.model_fields
        if name not in common
    }
    assert dict(rows(section(page, title))) == wanted


@pytest.mark.parametrize("text", blocks(TEAM_FILES), ids=lambda text: " ".join(text.split()[:3]))
def test_every_piece_of_a_team_fits(text: str) -> None:
    """Each example of the page, made whole, is a team in which everything fits together."""
    piece: Any = parse_yaml(text).value
    agents = {**REST["agents"], **piece.get("agents", {})}
    loaded = parse_team(json.dumps({**REST, **piece, "agents": agents}), "team.yaml")
    assert loaded.team.plan


@by_section
def test_every_key_has_an_example(page: Path, title: str) -> None:
    """Each key of a section is used in an example of the page."""
    examples = "\n".join(blocks(page))
    assert [key for key, _ in rows(section(page, title)) if not re.search(rf"\b{key}:", examples)] == []


def test_templates_have_these_filters() -> None:
    """The page lists exactly the filters that there are."""
    listed = re.search(r"Filters: `([^`]+)`", TEAM_FILES.read_text())
    assert listed
    assert listed[1].split() == sorted(name for name in Sandbox().filters if not name.startswith(" "))


def evidence() -> Iterator[tuple[Any, str, list[str]]]:
    """Yield each criterion of the page with an output and what is said of it."""
    pairs = re.findall(r"^```yaml\n(.*?)^```\n+```text\n(.*?)^```", CHECKS.read_text(), re.DOTALL | re.MULTILINE)
    for text, told in pairs:
        criterion = TypeAdapter(Criterion).validate_json(json.dumps(parse_yaml(text).value), strict=True)
        for output, said in re.findall(r"^(\S.*)\n((?:  .*\n)+)", told, re.MULTILINE):
            yield criterion, output, said.splitlines()


@pytest.mark.parametrize(
    ("criterion", "output", "said"), list(evidence()), ids=lambda it: it if isinstance(it, str) else ""
)
async def test_the_evidence_is_what_the_page_shows(criterion: Any, output: str, said: list[str]) -> None:
    """Each example of a criterion gives the verdict, the evidence and the change that stand below it."""
    found = await evaluate(criterion, json.loads(output))
    state = {True: "holds", False: "fails", None: "undecided"}[found.holds]
    assert said == [f"  {state}: {found.evidence}", *([f"  change: {found.change}"] if found.change else [])]


def test_every_kind_of_criterion_is_shown() -> None:
    """The page has evidence for every check and for commands and schemas, and a judge that can be read."""
    shown = {getattr(criterion, "check", type(criterion).__name__) for criterion, _, _ in evidence()}
    assert shown == {*criteria.CHECK_NAMES, "CommandCriterion", "SchemaCriterion"}
    judge = parse_yaml(blocks(CHECKS)[-1]).value
    assert isinstance(TypeAdapter(Criterion).validate_json(json.dumps(judge), strict=True), criteria.JudgeCriterion)


@pytest.mark.parametrize("page", [TEAM_FILES, CHECKS], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link of a page names a file, and every part after ``#`` a heading of it."""
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [heading.lower().replace(" ", "-") for heading in headings], anchor
