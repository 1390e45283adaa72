import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from interlock.observability.logging import configure_logging, job_scope

log = logging.getLogger("interlock.test")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Put the handlers and the level back that were there before."""
    root, ours = logging.getLogger(), logging.getLogger("interlock")
    handlers, level = list(root.handlers), ours.level
    yield
    root.handlers[:] = handlers
    ours.setLevel(level)


def _said(environ: dict[str, str]) -> io.StringIO:
    stream = io.StringIO()
    configure_logging("worker", environ, stream)
    return stream


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("", ["warning"]),
        ("warning", ["warning"]),
        ("INFO", ["info", "warning"]),
        ("debug", ["debug", "info", "warning"]),
    ],
)
def test_the_level_is_that_of_the_variable(level: str, shown: list[str]) -> None:
    """``INTERLOCK_LOG`` says from which level on our records are shown; by default only warnings are."""
    stream = _said({"INTERLOCK_LOG": level})
    for write in (log.debug, log.info, log.warning):
        write("something")
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == shown


def test_a_record_is_one_line_whatever_it_holds() -> None:
    """Text of a model can neither pose as another record nor steer the terminal; a traceback stays on the line."""
    stream = _said({})
    try:
        int("a\nb")
    except ValueError:
        log.exception("odd\n12:00:00 error forged\x1b[2J")
    (line,) = stream.getvalue().splitlines()
    assert r"odd\n12:00:00 error forged\x1b[2J" in line
    assert line.isprintable()
    assert "ValueError" in line


def test_role_and_job_stand_in_the_line() -> None:
    """A record names the process it comes from, and the job where one is known."""
    stream = _said({})
    with job_scope("job-1"):
        log.warning("in")
    log.warning("out")
    log.warning("given", extra={"job": "job-2"})
    inside, outside, given = stream.getvalue().splitlines()
    assert " worker[" in inside
    assert "] job=job-1 interlock.test: in" in inside
    assert "job=" not in outside
    assert "job=job-2" in given


def test_json_lines_carry_the_same() -> None:
    """``INTERLOCK_LOG_FORMAT=json`` gives one object a line for machines."""
    stream = _said({"INTERLOCK_LOG_FORMAT": "json"})
    with job_scope("job-1"):
        log.warning("line\n%s", "two")
    fields = json.loads(stream.getvalue())
    assert {name: fields[name] for name in ("level", "role", "job", "message")} == {
        "level": "warning",
        "role": "worker",
        "job": "job-1",
        "message": "line\ntwo",
    }


def test_setting_up_twice_says_nothing_twice() -> None:
    """A second call replaces the first."""
    first, second = _said({}), _said({})
    log.warning("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_an_unknown_level_is_said_and_taken_for_warning() -> None:
    """A misspelt level is no reason to fail and none to be silent."""
    stream = _said({"INTERLOCK_LOG": "loud"})
    assert "INTERLOCK_LOG is 'loud'; it can be debug, info, warning" in stream.getvalue()


def test_importing_sets_up_nothing() -> None:
    """Logging of a program that only imports us stays its own."""
    code = (
        "import logging, interlock.observability.logging, interlock.observability.tracing; print(logging.root.handlers)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
