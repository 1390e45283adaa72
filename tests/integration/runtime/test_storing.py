"""Jobs over long lists, from a file to the object store."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anyio
import pytest

from interlock.protocol.base import Json
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.itemstore import ItemStore
from interlock.runtime.source_errors import ItemUnusable, SourceChanged
from interlock.runtime.sources import freeze, freeze_values, store
from interlock.runtime.teamfile import LoadedTeam, parse_team

_PROCESS = Path(__file__).with_name("storing_process.py")


def _team(folder: Path, for_each: Any = None, **inputs: Any) -> LoadedTeam:
    team = {
        "interlock": 1,
        "team": "t",
        "agents": {"w": {"kind": "worker"}, "v": {"kind": "verifier"}},
        "inputs": inputs,
        "plan": [{"step": "s", "agent": "w", "do": "x", "for_each": for_each, "output": {"a": "string"}}],
    }
    path = folder / "team.yaml"
    path.write_text(json.dumps(team))
    return parse_team(path.read_text(), path)


def _lines(folder: Path, count: int) -> list[Json]:
    items: list[Json] = [{"n": number, "text": f"{number} " + "é" * 200} for number in range(count)]
    with (folder / "items.jsonl").open("w") as file:
        file.writelines(json.dumps(item) + "\n" for item in items)
    return items


async def _all(bus: Bus, stored: Any) -> list[Json]:
    return [item async for item in ItemStore(bus).items(stored)]


async def test_long_lists_are_stored_and_short_ones_are_listed(bus: Bus, tmp_path: Path) -> None:
    """A step over a file and an input from the same file are the same chunks; what is short stands in the job."""
    items = _lines(tmp_path, 3000)
    (tmp_path / "short.jsonl").write_text("1\n2\n")
    jsonl = {"type": "jsonl"}
    loaded = _team(tmp_path, {"jsonl": "items.jsonl"}, long=jsonl, short=jsonl, word={"default": "w"})
    frozen = freeze(loaded, {"long": ["items.jsonl"], "short": ["short.jsonl"]}, tmp_path)
    given = await store(frozen, bus)
    assert given.inputs == {"short": [1, 2], "word": "w"}
    assert given.items["s"] == given.stored["long"]
    assert await _all(bus, given.items["s"]) == items
    assert given.team == frozen.team


async def test_a_generator_is_stored_as_it_goes_and_listed_if_it_ends_soon(bus: Bus, tmp_path: Path) -> None:
    """Whoever gives an iterable need not know how long it will be."""
    loaded = _team(tmp_path, "{{ inputs.a }}", a={"type": "jsonl"}, b={"type": "array"})

    def numbers(count: int) -> Iterator[Json]:
        yield from range(count)

    given = await store(freeze_values(loaded, {"a": numbers(50_000), "b": numbers(3)}, tmp_path), bus)
    assert given.inputs == {"b": [0, 1, 2]}
    assert given.stored["a"].count == 50_000
    assert (await _all(bus, given.stored["a"]))[::9999] == list(range(0, 50_000, 9999))


async def test_a_file_that_changed_gives_no_job(bus: Bus, tmp_path: Path) -> None:
    """What was checked is what is stored."""
    _lines(tmp_path, 3000)
    frozen = freeze(_team(tmp_path, {"jsonl": "items.jsonl"}), {}, tmp_path)
    _lines(tmp_path, 3001)
    with pytest.raises(SourceChanged, match=r"items\.jsonl has changed"):
        await store(frozen, bus)


async def test_an_item_that_is_no_json_is_told_with_its_input(bus: Bus, tmp_path: Path) -> None:
    """Far down in a generator, and at its beginning."""
    loaded = _team(tmp_path, "{{ inputs.a }}", a={"type": "jsonl"})
    for count in (0, 50_000):
        given: Any = (object() if number == count else number for number in range(count + 1))
        with pytest.raises(ItemUnusable, match=f"input 'a': item {count} is no JSON"):
            await store(freeze_values(loaded, {"a": given}, tmp_path), bus)


async def test_memory_does_not_grow_with_the_list(broker: BrokerAddress, ns: str, tmp_path: Path) -> None:
    """Whoever submits ten times the lines holds no more of them."""
    peaks = {}
    for count in (2_000, 20_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        _lines(folder, count)
        _team(folder, {"jsonl": "items.jsonl"})
        command = [sys.executable, str(_PROCESS), f"{ns}{count}", str(folder / "team.yaml")]
        ran = await anyio.run_process(command, input=json.dumps(asdict(broker)).encode(), check=False)
        assert ran.returncode == 0, ran.stderr.decode()
        found = json.loads(ran.stdout)
        assert found["items"] == count
        peaks[count] = found["peak"]
    whole = (tmp_path / "20000" / "items.jsonl").stat().st_size
    assert peaks[20_000] < peaks[2_000] + whole / 5, f"{peaks} bytes for {whole} bytes of lines"
