"""Inputs and files: read once, typed, and frozen into the job."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from interlock.protocol.base import Json
from interlock.protocol.team import Team
from interlock.runtime import sources
from interlock.runtime.source_errors import (
    ArgumentInvalid,
    InputRepeated,
    InputsMissing,
    InputWrongType,
    JsonLineInvalid,
    NothingMatches,
    SourceError,
    SourceMissing,
    SourceNotText,
    SourcesTooLarge,
    SourceUnreadable,
    UnknownInput,
)
from interlock.runtime.sources import FrozenJob, freeze, freeze_values, parse_inputs
from interlock.runtime.teamfile import LoadedTeam, parse_team


def loaded_team(folder: Path, inputs: Mapping[str, Any], for_each: Json = None, do: str = "x") -> LoadedTeam:
    """Return a team in ``folder`` with these inputs and one step."""
    team = {
        "interlock": 1,
        "team": "t",
        "agents": {"w": {"kind": "worker"}, "v": {"kind": "verifier"}},
        "inputs": inputs,
        "plan": [{"step": "s", "agent": "w", "do": do, "for_each": for_each, "output": {"a": "string"}}],
    }
    return parse_team(json.dumps(team), folder / "team.yaml")


def frozen(folder: Path, inputs: Mapping[str, Any], *arguments: str, cwd: Path | None = None) -> dict[str, Json]:
    return freeze(loaded_team(folder, inputs), parse_inputs(arguments), cwd or folder).inputs


def items_of(job: FrozenJob) -> Any:
    return job.team.plan[0].for_each


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Make a folder with a few texts in it."""
    for name, text in {"b.md": "B", "a.md": "A", "deep/c.md": "C", "deep/.hidden.md": "H", "d.txt": "D"}.items():
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_arguments_are_split_at_the_first_equals_sign() -> None:
    """A value may hold anything; a name that comes again adds a value."""
    assert parse_inputs(["a=1", "b=x=y", "a=", "c =z"]) == {"a": ["1", ""], "b": ["x=y"], "c": ["z"]}
    for wrong in ("a", "=x", ""):
        with pytest.raises(ArgumentInvalid, match="expected NAME=VALUE"):
            parse_inputs([wrong])


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "3", "3"),
        ("integer", "3", 3),
        ("number", "2.5", 2.5),
        ("number", "2", 2),
        ("boolean", "true", True),
        ("object", '{"a": 1}', {"a": 1}),
        ("array", "[1, 2]", [1, 2]),
        ("string", "@@home", "@home"),
    ],
)
def test_values_are_read_as_their_type_says(tmp_path: Path, kind: str, text: str, value: Json) -> None:
    """The command line gives text; the team file says what it means."""
    assert frozen(tmp_path, {"x": {"type": kind}}, f"x={text}") == {"x": value}


@pytest.mark.parametrize(
    ("kind", "text"),
    [("integer", "2.5"), ("integer", "true"), ("number", "NaN"), ("boolean", "yes"), ("object", "[]"), ("array", "x")],
)
def test_a_value_of_another_type_is_refused(tmp_path: Path, kind: str, text: str) -> None:
    """The error names the input, what was expected and what was given."""
    with pytest.raises(InputWrongType, match=r"input 'x': expected .*, got"):
        frozen(tmp_path, {"x": {"type": kind}}, f"x={text}")


def test_a_value_can_come_from_a_file(docs: Path) -> None:
    """``@FILE`` is relative to the working directory, not to the team file."""
    (docs / "n.json").write_text("[1]")
    inputs = {"x": {"type": "array"}, "y": {}}
    assert frozen(docs / "teams", inputs, "x=@n.json", "y=@docs/a.md", cwd=docs) == {"x": [1], "y": "A"}


def test_defaults_fill_in(docs: Path) -> None:
    """What is not given is the default, or None where it is not required."""
    inputs = {"a": {"default": "d"}, "b": {"required": False}, "c": {"type": "files", "default": "docs/a*"}}
    expected = {"a": "d", "b": None, "c": [{"path": "docs/a.md", "name": "a.md", "text": "A"}]}
    assert frozen(docs, inputs) == expected
    assert frozen(docs, inputs, "a=1", "b=2") == {**expected, "a": "1", "b": "2"}


def test_files_are_sorted_and_once(docs: Path) -> None:
    """Globs that overlap give each file once, sorted by path; hidden files stay hidden."""
    given = ["docs=docs/**/*.md", "docs=docs/b.md", "docs=@docs/d.txt"]
    files: Any = frozen(docs, {"docs": {"type": "files"}}, *given)["docs"]
    assert [file["path"] for file in files] == ["docs/a.md", "docs/b.md", "docs/d.txt", "docs/deep/c.md"]
    assert [file["text"] for file in files] == ["A", "B", "D", "C"]


def test_defaults_are_relative_to_the_team_file(docs: Path) -> None:
    """A default finds its files wherever the team is started from, and shows them as seen from there."""
    home, inputs = docs / "teams", {"docs": {"type": "files", "default": "../docs/*.md"}}
    home.mkdir()
    here: Any = frozen(home, inputs, cwd=docs)["docs"]
    assert [file["path"] for file in here] == ["docs/a.md", "docs/b.md"]
    elsewhere: Any = frozen(home, inputs, cwd=home)["docs"]
    assert [file["path"] for file in elsewhere] == [str(docs / "docs/a.md"), str(docs / "docs/b.md")]


def test_a_name_with_glob_characters_is_a_name_if_there_is_such_a_file(docs: Path) -> None:
    """``x[1].md`` is found though brackets mean something in a glob."""
    (docs / "x[1].md").write_text("X")
    files: Any = frozen(docs, {"docs": {"type": "files"}}, "docs=x[1].md")["docs"]
    assert [file["text"] for file in files] == ["X"]


def test_json_lines_are_values(docs: Path) -> None:
    """Each line that is not blank is one value."""
    (docs / "items.jsonl").write_text('{"n": 1}\n\n  "two"  \n3')
    assert frozen(docs, {"x": {"type": "jsonl"}}, "x=items.jsonl") == {"x": [{"n": 1}, "two", 3]}


def test_sources_of_for_each_become_lists(docs: Path) -> None:
    """A frozen team holds the items themselves and is a team still, also on the wire."""
    (docs / "items.jsonl").write_text("1\n2\n")
    from_files = freeze(loaded_team(docs, {}, {"files": ["docs/b.md", "docs/a.md"]}), {}, docs)
    assert [item["name"] for item in items_of(from_files)] == ["a.md", "b.md"]
    from_lines = freeze(loaded_team(docs, {}, {"jsonl": "items.jsonl"}), {}, docs)
    assert items_of(from_lines) == (1, 2)
    for job in (from_files, from_lines):
        assert Team.model_validate_json(job.team.model_dump_json()) == job.team


def test_an_unknown_input_is_told_with_what_was_meant(tmp_path: Path) -> None:
    """A misspelt name gets a suggestion."""
    with pytest.raises(UnknownInput, match="no input 'documnts': did you mean 'documents'"):
        frozen(tmp_path, {"documents": {}}, "documnts=x")


def test_all_missing_inputs_are_told_at_once(tmp_path: Path) -> None:
    """Whoever starts a job learns everything that it needs."""
    with pytest.raises(InputsMissing) as caught:
        frozen(tmp_path, {"a": {}, "b": {"type": "files"}, "c": {"default": "x"}})
    assert caught.value.names == ("a", "b")


def test_without_declared_inputs_templates_decide(tmp_path: Path) -> None:
    """A team that declares none takes just those that its templates name, and needs them."""
    loaded = loaded_team(tmp_path, {}, do="{{ inputs.a }} {{ inputs.b }}")
    with pytest.raises(InputsMissing) as caught:
        freeze(loaded, {"a": ["1"]}, tmp_path)
    assert caught.value.names == ("b",)
    given = {"a": ["1"], "b": ["2", "3"]}
    assert freeze(loaded, given, tmp_path).inputs == {"a": "1", "b": ["2", "3"]}
    with pytest.raises(UnknownInput, match="no input 'c': inputs: a, b"):
        freeze(loaded, {**given, "c": ["x"]}, tmp_path)


@pytest.mark.parametrize(
    ("kind", "argument", "error", "says"),
    [
        ("files", "x=nothing.md", SourceMissing, "input 'x': there is no file"),
        ("files", "x=*.none", NothingMatches, "no file matches '\\*.none'"),
        ("files", "x=latin1", SourceNotText, "not UTF-8 text: byte 1"),
        ("files", "x=docs", SourceMissing, "there is no file"),
        ("string", "x=@nothing", SourceMissing, "there is no file"),
        ("string", "x=@docs", SourceUnreadable, "Is a directory"),
        ("string", "x=@\0", SourceUnreadable, "cannot be read"),
        ("jsonl", "x=bad.jsonl", JsonLineInvalid, "bad.jsonl:2: this line is no JSON"),
        ("jsonl", "x=nan.jsonl", JsonLineInvalid, "NaN is no JSON"),
        ("jsonl", "x=surrogate.jsonl", JsonLineInvalid, "surrogate"),
        ("jsonl", "x=deep.jsonl", JsonLineInvalid, "nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(
    docs: Path, kind: str, argument: str, error: type[SourceError], says: str
) -> None:
    """Each way in which a file can be wrong has its error, with the path in it."""
    (docs / "latin1").write_bytes(b"a\xff")
    (docs / "bad.jsonl").write_text('{"a": 1}\n{"a": }\n')
    (docs / "nan.jsonl").write_text("NaN")
    (docs / "surrogate.jsonl").write_text('"\\ud800"')
    (docs / "deep.jsonl").write_text("[" * 100_000)
    with pytest.raises(error, match=says):
        frozen(docs, {"x": {"type": kind}}, argument)


def test_one_value_means_one(tmp_path: Path) -> None:
    """Only ``files`` takes several values."""
    with pytest.raises(InputRepeated, match="more than once"):
        frozen(tmp_path, {"x": {}}, "x=1", "x=2")


def test_a_job_carries_only_so_much(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is to stand in the job itself counts together against one limit."""
    monkeypatch.setattr(sources, "MAX_CHARACTERS", 2)
    inputs: dict[str, Any] = {"x": {}, "y": {}, "z": {}}
    with pytest.raises(SourcesTooLarge):
        frozen(docs, inputs, "x=@docs/a.md", "y=@docs/b.md", "z=@docs/d.txt")


def test_values_of_programs_read_no_files(docs: Path) -> None:
    """What comes over HTTP is taken as it is: a path in it is text, and files are given with their text."""
    loaded = loaded_team(docs, {"x": {}, "docs": {"type": "files"}})
    file: dict[str, Json] = {"path": "a", "name": "a", "text": "t"}
    assert freeze_values(loaded, {"x": "@docs/a.md", "docs": [file]}, docs).inputs == {
        "x": "@docs/a.md",
        "docs": [file],
    }
    wrongs: list[Json] = ["docs/*.md", ["docs/a.md"], [{"path": "a"}]]
    for wrong in wrongs:
        with pytest.raises(InputWrongType, match=re.escape("expected a list of {path, name, text}")):
            freeze_values(loaded, {"x": "", "docs": wrong}, docs)


def test_a_team_that_plans_takes_any_input_unless_it_declares_some(tmp_path: Path) -> None:
    """Where neither a plan nor a declaration says which inputs there are, a person's are all taken; else only those."""
    bare = "interlock: 1\nteam: office\nagents: {reader: {kind: worker}, checker: {kind: verifier}}\n"
    path, declared = tmp_path / "team.yaml", f"{bare}inputs: {{tone: {{default: plain}}}}\n"
    assert freeze(parse_team(bare, path), {"letter": ["x"]}, tmp_path).inputs == {"letter": "x"}
    with pytest.raises(UnknownInput, match="letter"):
        freeze(parse_team(declared, path), {"letter": ["x"]}, tmp_path)
