"""Lists that are too long to be held: checked when a job is frozen, read again when it is stored."""

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from interlock.protocol.base import Json
from interlock.protocol.team import JsonLines
from interlock.runtime import item_sources
from interlock.runtime.item_sources import ItemSource
from interlock.runtime.itemstore import each
from interlock.runtime.jsonlines import MAX_LISTED
from interlock.runtime.source_errors import (
    FileTooLarge,
    InputWrongType,
    ItemUnusable,
    JsonLineInvalid,
    LineTooLong,
    SourceChanged,
    SourceNotText,
    StandardInputTaken,
)
from interlock.runtime.sources import FrozenJob, Given, freeze, freeze_values, parse_inputs
from interlock.runtime.teamfile import LoadedTeam, parse_team

_MANY = 5000


def loaded_team(folder: Path, inputs: dict[str, Any] | None = None, for_each: Any = None) -> LoadedTeam:
    """Return a team in ``folder`` with these inputs and one step."""
    team = {
        "interlock": 1,
        "team": "t",
        "agents": {"w": {"kind": "worker"}, "v": {"kind": "verifier"}},
        "inputs": inputs or {},
        "plan": [{"step": "s", "agent": "w", "do": "x", "for_each": for_each, "output": {"a": "string"}}],
    }
    return parse_team(json.dumps(team), folder / "team.yaml")


def frozen(folder: Path, inputs: dict[str, Any], *arguments: str) -> FrozenJob:
    return freeze(loaded_team(folder, inputs), parse_inputs(arguments), folder)


def all_of(source: ItemSource) -> list[Json]:
    """Return all items of a source."""

    async def read() -> list[Json]:
        return [item async for item in each(source.read())]

    return asyncio.run(read())


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Make a long file of JSON lines, with blank ones, other line ends and a mark at its beginning."""
    path = tmp_path / "many.jsonl"
    text = "".join(f'{{"n": {number}, "é": "x"}}{chr(13) * (number % 2)}\n\n' for number in range(_MANY))
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    return path


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """Put an empty file in the place of standard input."""
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(buffer))
    return buffer


def test_a_long_list_is_read_when_it_is_asked_for(lines: Path) -> None:
    """Neither the team nor the inputs hold it; the source gives every value, and again if it is asked again."""
    job = frozen(lines.parent, {"x": {"type": "jsonl"}, "y": {"default": "d"}}, "x=many.jsonl")
    assert job.inputs == {"y": "d"}
    assert list(job.lists) == ["x"]
    for _ in range(2):
        assert all_of(job.lists["x"]) == [{"n": number, "é": "x"} for number in range(_MANY)]


def test_a_step_over_a_long_file_stays_as_it_was_written(lines: Path) -> None:
    """Its items are beside the team, and count as text from outside as they would inside of it."""
    job = freeze(loaded_team(lines.parent, for_each={"jsonl": "many.jsonl"}), {}, lines.parent)
    assert job.team.plan[0].for_each == JsonLines(jsonl="many.jsonl")
    assert job.team.plan[0].outside is True
    assert len(all_of(job.items["s"])) == _MANY


def test_what_is_short_stands_in_the_job_and_what_is_long_beside_it(tmp_path: Path) -> None:
    """The bound is on the bytes of all items together."""
    line = json.dumps("x" * 997) + "\n"
    (tmp_path / "short.jsonl").write_text(line * (MAX_LISTED // len(line)))
    (tmp_path / "long.jsonl").write_text(line * (MAX_LISTED // len(line) + 1))
    job = frozen(tmp_path, {"a": {"type": "jsonl"}, "b": {"type": "jsonl"}}, "a=short.jsonl", "b=long.jsonl")
    assert (list(job.inputs), list(job.lists)) == (["a"], ["b"])


def test_many_files_are_a_long_list(tmp_path: Path) -> None:
    """Each is read when it is its turn."""
    for number in range(20):
        (tmp_path / f"{number:02}.md").write_text("é" * 3000)
    job = frozen(tmp_path, {"x": {"type": "files"}}, "x=*.md")
    files: Any = all_of(job.lists["x"])
    assert [file["name"] for file in files] == [f"{number:02}.md" for number in range(20)]
    assert {file["text"] for file in files} == {"é" * 3000}
    (tmp_path / "07.md").write_text("changed")
    with pytest.raises(SourceChanged, match=r"07\.md has changed"):
        all_of(job.lists["x"])


def test_a_mistake_far_down_is_found_before_anything_is_submitted(lines: Path) -> None:
    """The error names the file and the line, also where the list is too long to be held."""
    with lines.open("ab") as file:
        file.write(b"{oh}\n")
    with pytest.raises(JsonLineInvalid, match=rf"many\.jsonl:{2 * _MANY + 1}: this line is no JSON"):
        frozen(lines.parent, {"x": {"type": "jsonl"}}, "x=many.jsonl")
    position = lines.write_bytes(lines.read_bytes().replace(b"{oh}", b'{"x": "\xff"}')) - 4
    with pytest.raises(SourceNotText, match=f"byte {position} does not fit"):
        frozen(lines.parent, {"x": {"type": "jsonl"}}, "x=many.jsonl")


@pytest.mark.parametrize("change", ["longer", "another", "broken"])
def test_a_file_that_changes_before_it_is_stored_is_told(lines: Path, change: str) -> None:
    """Whatever is stored was checked: a file that is another one by then is refused, also one of the same size."""
    job = frozen(lines.parent, {"x": {"type": "jsonl"}}, "x=many.jsonl")
    data = lines.read_bytes()
    changed = {"longer": data + b"1\n", "another": data.replace(b"17", b"71"), "broken": data.replace(b"17", b"}7")}
    lines.write_bytes(changed[change])
    with pytest.raises(SourceChanged, match="has changed since it was checked"):
        all_of(job.lists["x"])


def test_one_item_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line or a file that is too large is told; all together may be as large as they like."""
    monkeypatch.setattr(item_sources, "MAX_ITEM", 100)
    (tmp_path / "x.jsonl").write_text("1\n" + json.dumps("y" * 200) + "\n")
    with pytest.raises(LineTooLong, match=r"x\.jsonl:2: this line has more than 100 bytes"):
        frozen(tmp_path, {"x": {"type": "jsonl"}}, "x=x.jsonl")
    with pytest.raises(FileTooLarge, match=r"x\.jsonl has more than 100 bytes"):
        frozen(tmp_path, {"x": {"type": "files"}}, "x=x.jsonl")


@pytest.mark.parametrize("count", [3, 4 * _MANY])
def test_json_lines_come_over_standard_input(tmp_path: Path, standard_input: io.BytesIO, count: int) -> None:
    """Any program is a generator of items; few of them are inputs as any other, many are read again when stored."""
    standard_input.write("".join(f'{{"n": {number}}}\n' for number in range(count)).encode())
    standard_input.seek(0)
    job = frozen(tmp_path, {"x": {"type": "jsonl"}}, "x=@-")
    wanted = [{"n": number} for number in range(count)]
    for _ in range(2):
        assert (job.inputs["x"] if count == 3 else all_of(job.lists["x"])) == wanted


def test_text_comes_over_standard_input_once(tmp_path: Path, standard_input: io.BytesIO) -> None:
    """``@-`` is what it holds for any type; a second input that wants it is refused, and so is what is no JSON."""
    standard_input.write(b"[1, 2]")
    standard_input.seek(0)
    inputs = {"x": {"type": "array"}, "y": {}}
    assert frozen(tmp_path, inputs, "x=@-", "y=").inputs == {"x": [1, 2], "y": ""}
    with pytest.raises(StandardInputTaken, match="input 'y': standard input was read"):
        frozen(tmp_path, {"x": {}, "y": {}}, "x=@-", "y=@-")
    standard_input.seek(0)
    standard_input.write(b'1\n"x')
    standard_input.seek(0)
    with pytest.raises(JsonLineInvalid, match="standard input:2: this line is no JSON"):
        frozen(tmp_path, {"x": {"type": "jsonl"}}, "x=@-")


def test_programs_give_lists_as_they_make_them(tmp_path: Path) -> None:
    """Nothing of a generator, asynchronous or not, is made before it is stored; a long list counts as one."""

    async def later() -> AsyncIterator[Json]:
        for number in range(3):
            yield number

    def now() -> Iterator[Json]:
        yield from ("a", "b")

    loaded = loaded_team(tmp_path, {name: {"type": "jsonl"} for name in ("x", "y", "long", "short")})
    given: dict[str, Given] = {"x": later(), "y": now(), "long": ["z" * 100] * 1000, "short": list[Json]([1])}
    job = freeze_values(loaded, given, tmp_path)
    assert job.inputs == {"short": [1]}
    assert {name: all_of(source) for name, source in job.lists.items()} == {
        "x": [0, 1, 2],
        "y": ["a", "b"],
        "long": ["z" * 100] * 1000,
    }


def test_items_of_programs_are_held_to_their_type(tmp_path: Path) -> None:
    """An iterable for something that is no list is refused, and an item that is no file when its turn comes."""
    loaded = loaded_team(tmp_path, {"x": {"required": False}, "docs": {"type": "files"}})
    with pytest.raises(InputWrongType, match="input 'x': expected text, got items"):
        freeze_values(loaded, {"x": iter(("a", "b")), "docs": []}, tmp_path)
    files: list[Json] = [{"path": "a", "name": "a", "text": "t"}, {"path": "b"}]
    job = freeze_values(loaded, {"docs": iter(files)}, tmp_path)
    with pytest.raises(ItemUnusable, match=r"input 'docs': expected a list of \{path, name, text\}"):
        all_of(job.lists["docs"])
