"""The oracle sees what it is there to see."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.oracle import Line, judge

_BODIES: dict[str, dict[str, Any]] = {"closed": {"outcome": "accepted"}, "intended": {"key": "k"}, "done": {"key": "k"}}
_LOG = [
    ("_", "submitted", 0),
    ("_", "accepted", 1),
    ("a:0", "assigned", 0),
    ("a:0", "intended", 3),
    ("a:0", "done", None),
    ("a:0", "result", 4),
    ("a:0", "verdict", 6),
    ("a:0", "closed", 7),
    ("_", "closed", 2),
]
_MADE = {"tool": "send", "key": "k"}


def _log() -> list[Line]:
    attempt = {"attempt": 1}
    return [
        Line(seq, 0.0, "j", task, kind, answers, {**_BODIES.get(kind, {}), **(attempt if task != "_" else {})})
        for seq, (task, kind, answers) in enumerate(_LOG, 1)
    ]


def test_a_good_log_is_clean() -> None:
    """Nothing is found in a log in which everything happened once, and as it was told."""
    finding = judge(_log(), {"a:0": 1}, {"a:0": 1}, [_MADE], ["send"])
    assert finding.clean, (finding.lost, finding.doubled)
    assert (finding.items, finding.attempts, finding.in_doubt) == (1, 1, 0)


def _without(kind: str) -> Callable[[list[Line]], list[Line]]:
    return lambda lines: [line for line in lines if line.kind != kind or line.task == "_"]


def _again(kind: str) -> Callable[[list[Line]], list[Line]]:
    return lambda lines: [*lines, *(replace(line, seq=99, answers=8) for line in lines if line.kind == kind)]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_without("closed"), "a:0: closed 0 times"),
        (_again("result"), "result a:0 attempt 1 stands 2 times in the log"),
        (_again("verdict"), "verdict a:0 attempt 1 stands 2 times in the log"),
        (_without("verdict"), "a:0: entry 8 answers 7 and not 6"),
        (_without("intended"), "a:0: entry 6 answers 4 and not 3"),
    ],
)
def test_a_spoilt_log_is_told(spoil: Callable[[list[Line]], list[Line]], told: str) -> None:
    """A task without an end, an entry that stands twice and a chain that is not one are found, with their key."""
    finding = judge(spoil(_log()), {"a:0": 1}, {"a:0": 1}, [_MADE], ["send"])
    assert told in finding.lost + finding.doubled


@pytest.mark.parametrize(
    ("report", "made", "told"),
    [
        ({}, [_MADE], "a:0: the report has None"),
        ({"a:0": 2}, [_MADE], "a:0: the report has 2"),
        ({"a:0": 1}, [_MADE, _MADE], "effect k of send was made 2 times"),
        ({"a:0": 1}, [], "effect k is told as done"),
        ({"a:0": 1}, [_MADE, {"tool": "put", "key": "x"}], "effect x was made and never meant"),
    ],
)
def test_what_was_seen_outside_counts(report: dict[str, Any], made: list[dict[str, str]], told: str) -> None:
    """A wrong report, an effect too many and one too few are found, whatever the log says of itself."""
    finding = judge(_log(), {"a:0": 1}, report, made, ["send"])
    assert told in finding.lost + finding.doubled


def test_what_nobody_knows_is_in_doubt() -> None:
    """An effect whose outcome is not in the log counts as in doubt, not as doubled or lost."""
    finding = judge(_without("done")(_log()), {"a:0": 1}, {"a:0": 1}, [_MADE], ["send"])
    assert finding.clean
    assert finding.in_doubt == 1
