"""Teams within team files: read from their own files, and each mistake told in the file where it stands."""

import json
from pathlib import Path
from typing import Any

import pytest

from interlock.agents.children import teams_of
from interlock.runtime.sources import freeze
from interlock.runtime.teamfile import TeamFileInvalid, load_team

_LEAF: dict[str, Any] = {
    "agents": {"w": {"kind": "worker"}, "v": {"kind": "verifier"}},
    "plan": [{"step": "s", "agent": "w", "do": "go", "output": {"a": "string"}}],
}


def _write(folder: Path, name: str, team: dict[str, Any]) -> Path:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"interlock": 1, "team": Path(name).name, **team}, indent=1))
    return path


def _around(inner: str, agent: dict[str, Any] | None = None, step: dict[str, Any] | None = None, **more: Any) -> Any:
    return {
        "agents": {"desk": {"kind": "team", "team": inner, **(agent or {})}, "v": {"kind": "verifier"}},
        "plan": [{"step": "s", "agent": "desk", "do": "go", "output": {"a": "string"}, **(step or {})}],
        **more,
    }


def _problems(path: Path) -> list[str]:
    with pytest.raises(TeamFileInvalid) as caught:
        load_team(path)
    return [f"{Path(one.file).name}:{one.line}: {one.message}" for one in caught.value.problems]


def test_a_team_within_a_team_is_read_relative_to_the_file(tmp_path: Path) -> None:
    """It is in the team, as it will be in a job, and so is what is within it."""
    _write(tmp_path, "desks/leaf", _LEAF)
    _write(tmp_path, "desks/desk", _around("./leaf.yaml"))
    loaded = load_team(_write(tmp_path, "paper", _around("desks/desk.yaml")))
    assert [team.team for team in teams_of(loaded.team)] == ["paper", "desk", "leaf"]
    assert loaded.inner["desk"].path == tmp_path / "desks" / "desk.yaml"


def test_what_a_team_within_reads_from_files_is_frozen_into_the_job(tmp_path: Path) -> None:
    """Relative to its own file: the job depends on none of them any more."""
    (tmp_path / "desks").mkdir()
    (tmp_path / "desks" / "items.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    plan = [{**_LEAF["plan"][0], "for_each": {"jsonl": "items.jsonl"}}]
    _write(tmp_path, "desks/leaf", {**_LEAF, "plan": plan})
    loaded = load_team(_write(tmp_path, "paper", _around("desks/leaf.yaml")))
    frozen = freeze(loaded, {}, tmp_path)
    assert teams_of(frozen.team)[1].plan[0].for_each == ({"n": 1}, {"n": 2})
    assert teams_of(frozen.team)[1].plan[0].outside is True


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The path is told, as it was looked for."""
    [problem] = _problems(_write(tmp_path, "paper", _around("./nope.yaml")))
    assert problem.startswith("paper.yaml:7: there is no file './nope.yaml' beside this one")


def test_a_circle(tmp_path: Path) -> None:
    """A team within itself is told at the file that closes the circle, with the way round."""
    _write(tmp_path, "desk", _around("./paper.yaml"))
    [problem] = _problems(_write(tmp_path, "paper", _around("./desk.yaml")))
    assert problem == "desk.yaml:7: this team would be within itself: paper.yaml -> desk.yaml -> paper.yaml"


def test_more_levels_than_the_limit(tmp_path: Path) -> None:
    """The levels are counted and the limit named; raised, the same teams are fine."""
    _write(tmp_path, "leaf", _LEAF)
    _write(tmp_path, "desk", _around("./leaf.yaml"))
    path = _write(tmp_path, "paper", _around("./desk.yaml", limits={"depth": 2}))
    [problem] = _problems(path)
    assert "this makes 3 levels of teams, and limits.depth is 2" in problem
    load_team(_write(tmp_path, "paper", _around("./desk.yaml", limits={"depth": 3})))


def test_a_mistake_within_is_told_in_its_own_file(tmp_path: Path) -> None:
    """Beside those of the file around it, in one reading; once, although two agents are that team."""
    _write(tmp_path, "leaf", {**_LEAF, "plan": [{**_LEAF["plan"][0], "agent": "nobody"}]})
    team = _around("./leaf.yaml", step={"agent": "nobody"})
    team["agents"]["other"] = {"kind": "team", "team": "./leaf.yaml"}
    problems = _problems(_write(tmp_path, "paper", team))
    assert [one.partition(":")[0] for one in problems] == ["paper.yaml", "leaf.yaml"]
    assert all("there is no agent 'nobody'" in one for one in problems)


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        ({"kind": "team", "team": None}, "agent 'desk' is a team: name its file, such as 'team: ./desk.yaml'"),
        ({"prompt": "be kind"}, "agent 'desk' is a team: 'prompt' is for its own file to say"),
        ({"tools": ["web.fetch"]}, "agent 'desk' is a team: only workers use tools"),
        ({"kind": "worker"}, "agent 'desk' is a worker: only an agent of kind team has a team"),
    ],
)
def test_what_an_agent_that_is_a_team_cannot_have(tmp_path: Path, agent: dict[str, Any], message: str) -> None:
    """What its own file says is not said twice, and only a team has a team."""
    _write(tmp_path, "leaf", _LEAF)
    assert any(message in problem for problem in _problems(_write(tmp_path, "paper", _around("./leaf.yaml", agent))))


def test_two_teams_of_one_name(tmp_path: Path) -> None:
    """Queues and orders know teams by their names: a name stands for one."""
    _write(tmp_path, "leaf", {**_LEAF, "team": "paper"})
    [problem] = _problems(_write(tmp_path, "paper", _around("./leaf.yaml")))
    assert "two different teams are called 'paper'" in problem


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "team 'leaf' requires the input 'topic': give it in the step's 'inputs'"),
        ({"topik": "x", "topic": "x"}, "team 'leaf' has no input 'topik': did you mean 'topic'?"),
        ({"topic": 3}, "input 'topic' of team 'leaf' is of type string"),
        ({"topic": "{{ nope }}"}, "'nope'"),
    ],
)
def test_inputs_of_a_team_within(tmp_path: Path, inputs: dict[str, Any], message: str) -> None:
    """What a step gives has to be what the team takes; what is required has to be given."""
    _write(tmp_path, "leaf", {**_LEAF, "inputs": {"topic": {"type": "string"}}})
    path = _write(tmp_path, "paper", _around("./leaf.yaml", step={"inputs": inputs}))
    assert any(message in problem for problem in _problems(path)), _problems(path)


def test_only_a_team_is_given_inputs(tmp_path: Path) -> None:
    """A worker is told all in its instruction."""
    plan = [{**_LEAF["plan"][0], "inputs": {"topic": "x"}}]
    [problem] = _problems(_write(tmp_path, "leaf", {**_LEAF, "plan": plan}))
    assert "agent 'w' is a worker: only a team is given inputs" in problem
