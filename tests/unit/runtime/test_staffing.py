"""Which processes a team needs."""

import os
from typing import Any

import pytest

from interlock.protocol.team import Team
from interlock.runtime.address import BrokerAddress
from interlock.runtime.config import BrokerLogin, ProcessConfig
from interlock.runtime.staffing import models_used, process_configs

_ADDRESS = BrokerAddress("nats://127.0.0.1:4222", "u", "geheim")
_AGENTS: dict[str, Any] = {
    "w": {"kind": "worker"},
    "w2": {"kind": "worker", "model": {"name": "other"}},
    "idle": {"kind": "worker"},
    "v": {"kind": "verifier"},
    "j": {"kind": "verifier"},
}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand on a machine of eight cores, with no model named by the environment."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("INTERLOCK_MODEL_URL", raising=False)


def team_of(*steps: dict[str, Any], parallel: int = 64, **more: Any) -> Team:
    plan = [{"do": "x", "agent": "w", "verify": {"by": "v"}, **step} for step in steps]
    fields = {"interlock": 1, "team": "t", "agents": _AGENTS, "plan": plan, "limits": {"parallel": parallel}}
    return Team.model_validate(fields | more)


def staff(team: Team, workers: int | None = None) -> dict[str, ProcessConfig]:
    found = process_configs(team, "main", _ADDRESS, job="t-1", workers=workers)
    assert len({config.name for config in found}) == len(found)
    return {config.name: config for config in found}


def names(team: Team, workers: int | None = None) -> list[str]:
    return list(staff(team, workers))


MANY = {"step": "many", "for_each": "{{ inputs.items }}"}


def test_a_team_gets_a_manager_its_workers_and_its_verifiers() -> None:
    """Only agents that the plan names get processes, those that may take over among them; workers share the cores."""
    assert names(team_of(MANY)) == ["manager", *(f"w-{n}" for n in range(1, 9)), "v-1"]
    handover = team_of({**MANY, "on_failure": {"agent": "w2"}})
    assert names(handover) == [
        "manager",
        *(f"w-{n}" for n in range(1, 5)),
        *(f"w2-{n}" for n in range(1, 5)),
        "v-1",
    ]


def test_the_number_of_workers_can_be_given() -> None:
    """``--workers`` are the processes of each worker."""
    assert names(team_of(MANY), workers=2) == ["manager", "w-1", "w-2", "v-1"]


@pytest.mark.parametrize(
    ("steps", "parallel", "processes"),
    [
        ([{"step": "a"}], 64, 1),
        ([{"step": "a"}, {"step": "b"}], 64, 2),
        ([{"step": "a", "for_each": [1, 2, 3]}], 64, 3),
        ([{"step": "a", "for_each": []}], 64, 1),
        ([{"step": "a", "for_each": {"jsonl": "long.jsonl"}}], 64, 8),
        ([{"step": "a", "for_each": {"files": "many/*"}}], 3, 3),
        ([MANY], 2, 2),
        ([MANY], 64, 8),
    ],
)
def test_no_more_processes_than_tasks_at_once(steps: list[dict[str, Any]], parallel: int, processes: int) -> None:
    """A process that could never have a task is not started."""
    assert sum(name.startswith("w-") for name in names(team_of(*steps, parallel=parallel))) == processes


def test_slots_are_enough_for_the_cap() -> None:
    """Together the processes of a worker can hold as many tasks as may be open."""
    configs = staff(team_of(MANY, parallel=20), workers=3)
    assert [configs[name].slots for name in ("w-1", "w-2", "w-3", "v-1")] == [7, 7, 7, 20]


def test_the_local_engine_gets_one_request_at_a_time() -> None:
    """Its workers are one process with one slot, unless the environment names another model."""
    team = team_of(MANY, model={"engine": "local"})
    configs = staff(team)
    assert list(configs) == ["manager", "w-1", "v-1"]
    assert configs["w-1"].slots == 1
    assert configs["v-1"].slots == 64, "a verifier that asks no model is not held up by it"


def test_a_model_that_the_environment_names_is_asked_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    """``INTERLOCK_MODEL_URL`` wins over the engine of the team file."""
    monkeypatch.setenv("INTERLOCK_MODEL_URL", "http://127.0.0.1:1/v1")
    assert len(names(team_of(MANY, model={"engine": "local"}))) == 10


def test_who_thinks() -> None:
    """Workers do, verifiers only where one of their steps has a judge; each with its own model or the team's."""
    judged = {"step": "j", "verify": {"by": "j", "criteria": [{"judge": "It is so."}]}}
    team = team_of(MANY, judged, {"step": "o", "agent": "w2"}, model={"name": "common"})
    assert [(name, settings.name) for name, settings in models_used(team)] == [
        ("w", "common"),
        ("j", "common"),
        ("w2", "other"),
    ]
    configs = staff(team)
    assert configs["v-1"].model is None
    assert configs["j-1"].model is not None
    assert configs["manager"].model is None


def test_a_configuration_survives_the_pipe_and_shows_no_secret() -> None:
    """What a process is told is what was meant; the password is in what is sent and in no ``repr``."""
    for config in staff(team_of(MANY)).values():
        sent = config.model_dump_json(exclude_defaults=True)
        assert ProcessConfig.model_validate_json(sent) == config
        assert config.broker.address() == _ADDRESS
        assert "geheim" in sent
        assert "geheim" not in repr(config)
        assert "geheim" not in str(config)


def test_a_configuration_that_is_wrong_is_refused_without_its_secrets() -> None:
    """The error of a configuration that does not fit names the field and repeats no value."""
    login = BrokerLogin(url="nats://x:1", password="geheim")
    wrong = {"kind": "boss", "name": "x", "ns": "n", "broker": {**login.model_dump(), "extra": "geheim"}}
    with pytest.raises(ValueError, match="kind") as refused:
        ProcessConfig.model_validate(wrong)
    assert "geheim" not in str(refused.value)
