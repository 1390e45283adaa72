"""What commands say when something is wrong, and what they leave undone."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from interlock.backends.errors import LocalWeightsMissing, ModelNotConfigured
from interlock.protocol.errors import BodyTooLarge
from interlock.runtime import commands
from interlock.runtime.address import AddressInvalid
from interlock.runtime.broker_errors import StateFolderInUse
from interlock.runtime.bus_errors import BrokerUnreachable
from interlock.runtime.client import JobNotFound
from interlock.runtime.closing import JobLeftOpen
from interlock.runtime.commands import run
from interlock.runtime.launch import JobInterrupted
from interlock.runtime.supervisor import AgentProcessFailed


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Take back what a command sets up for the logs of its process."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    root.handlers[:] = before


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (JobNotFound("j", ["k"]), 2, "no job 'j' in the log; there are k"),
        (JobNotFound("j", []), 2, "there are none"),
        (AddressInvalid("the host is missing"), 2, "the host is missing"),
        (ModelNotConfigured("openai"), 2, "INTERLOCK_MODEL_URL"),
        (BodyTooLarge(10, 5), 2, "10 bytes"),
        (LocalWeightsMissing(None), 1, "weights"),
        (StateFolderInUse(Path("s"), 7), 1, "7"),
        (BrokerUnreachable("nats://x", "nobody there"), 1, "nobody there"),
        (AgentProcessFailed("w-1", -9, ["a", "the end"]), 1, "w-1 ended 3 times in a row, the last time with SIGKILL"),
        (JobLeftOpen("j", "why"), 1, "job j (why)"),
        (PermissionError(13, "Permission denied", "out"), 1, "Permission denied"),
        (JobInterrupted("interrupted by SIGINT"), 4, "interrupted by SIGINT before the job began"),
        (ZeroDivisionError("oh"), 1, "a mistake of interlock's own: ZeroDivisionError: oh"),
    ],
)
@pytest.mark.parametrize("grouped", [False, True])
def test_every_failure_is_one_line_and_a_status(
    error: Exception,
    status: int,
    told: str,
    grouped: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No traceback for anybody, whatever was raised and however deep in groups it stands."""

    def fail(_: argparse.Namespace) -> int:
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [error])]) if grouped else error

    monkeypatch.setitem(commands._COMMANDS, "jobs", fail)
    assert run(argparse.Namespace(command="jobs")) == status
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.err.startswith("interlock: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_reading_makes_no_state_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing was ever run there are no jobs, and asking for them leaves nothing behind."""
    place = {"state": tmp_path / "none", "nats": None}
    assert run(argparse.Namespace(command="jobs", json=True, **place)) == 0
    assert capsys.readouterr().out == "[]\n"
    assert run(argparse.Namespace(command="show", job="j", json=True, **place)) == 2
    assert "no job 'j'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_reader_that_left_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """``interlock schema | head -1``: the rest goes nowhere, and nothing fails when the process ends."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert run(argparse.Namespace(command="schema", asyncapi=True, team=False)) == 0


def test_a_closed_output_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started with its standard output closed, a command says nothing and succeeds."""
    monkeypatch.setattr(sys, "stdout", None)
    assert run(argparse.Namespace(command="schema", asyncapi=False, team=False)) == 0
