"""The words of the command line."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from interlock import __version__
from interlock.protocol.team import Budget
from interlock.runtime import cli
from interlock.runtime.cli import main, parser
from interlock.runtime.commands import budget_of

_HEAVY = {"pydantic", "anyio", "nats", "aiohttp", "openai", "jinja2", "rich", "ruamel.yaml", "opentelemetry", "uvloop"}
_PROBE = """
import json, sys
from interlock.runtime.cli import main
try:
    main(sys.argv[1:])
finally:
    sys.stderr.write(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["--version"], ["frobnicate"], ["run"]])
def test_help_and_mistakes_import_nothing(words: list[str]) -> None:
    """Help, the version and wrong usage are answered with the standard library alone."""
    source = Path(cli.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *words],
        env={"PYTHONPATH": str(source), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    modules = set(json.loads(done.stderr[done.stderr.rindex("[") :]))
    assert modules.isdisjoint(_HEAVY)
    assert "interlock.runtime.cli" in modules


def test_help_names_every_command_and_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    """A person finds all words and what the exit status means."""
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for word in ("check", "run", "jobs", "show", "schema", "doctor", "0 succeeded", "3 partial", "4 killed"):
        assert word in text


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` prints it."""
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"interlock {__version__}\n"


def test_run_takes_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Team, goal, inputs in their order, and where the log is."""
    monkeypatch.delenv("INTERLOCK_STATE", raising=False)
    monkeypatch.delenv("INTERLOCK_NATS", raising=False)
    options = parser().parse_args(["run", "t.yaml", "the goal", "--input", "a=1", "--input", "b=@x", "--workers", "3"])
    assert (options.team, options.goal, options.input) == (Path("t.yaml"), "the goal", ["a=1", "b=@x"])
    assert (options.workers, options.json, options.durable) == (3, False, False)
    assert (options.state, options.nats) == (Path(".interlock"), None)


def test_the_environment_says_where_the_log_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """``INTERLOCK_STATE`` and ``INTERLOCK_NATS`` are the defaults, options win."""
    monkeypatch.setenv("INTERLOCK_STATE", "/elsewhere")
    monkeypatch.setenv("INTERLOCK_NATS", "nats://there:1")
    options = parser().parse_args(["jobs"])
    assert (options.state, options.nats) == (Path("/elsewhere"), "nats://there:1")
    options = parser().parse_args(["jobs", "--state", "here", "--nats", "nats://here:2"])
    assert (options.state, options.nats) == (Path("here"), "nats://here:2")


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "many", "", "²", "1_0"])
def test_a_number_of_workers_is_one(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Anything but a whole number from 1 on is refused with what was given."""
    with pytest.raises(SystemExit) as left:
        parser().parse_args(["run", "t.yaml", f"--workers={number}"])
    assert left.value.code == 2
    assert f"argument --workers: {number!r} is no whole number from 1 on" in capsys.readouterr().err


def test_a_budget_of_a_job_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each unit once, of the same one the last; without the option there is none."""
    monkeypatch.delenv("INTERLOCK_STATE", raising=False)
    words = ["--budget", "calls=7", "--budget", "seconds=30", "--budget", "calls=5"]
    for command in ("run", "submit"):
        options = parser().parse_args([command, "t.yaml", *words])
        assert budget_of(options.budget) == Budget(calls=5, seconds=30)
        assert budget_of(parser().parse_args([command, "t.yaml"]).budget) is None


@pytest.mark.parametrize("bound", ["calls", "calls=", "calls=0", "calls=-1", "calls=1.5", "euros=3", "tokens=²", "=3"])
def test_a_budget_is_a_unit_and_a_number(bound: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Anything else is refused with what was given and what would be right."""
    with pytest.raises(SystemExit) as left:
        parser().parse_args(["run", "t.yaml", f"--budget={bound}"])
    assert left.value.code == 2
    told = f"argument --budget: {bound!r} is no bound: write calls=N, tokens=N or seconds=N"
    assert told in capsys.readouterr().err


def test_an_interrupt_before_anything_was_begun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C while the command is still being imported is told in a line, with the status of what was killed."""

    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("interlock.runtime.commands.run", interrupted)
    assert main(["jobs"]) == 4
    assert capsys.readouterr().err == "interlock: interrupted\n"


_LONG = """
import signal, sys
from interlock.runtime.cli import _write_whole
_write_whole()
signal.signal(signal.SIGUSR1, lambda *_: None)
sys.stderr.write("ready")
sys.stdout.write("x" * 300_000)
"""


def test_a_long_report_arrives_whole_without_a_buffer() -> None:
    """With PYTHONUNBUFFERED Python would drop the middle of what a pipe does not take at once, on any signal."""
    command = [sys.executable, "-u", "-c", _LONG]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.read(5) == b"ready"
        while select.select([process.stdout], [], [], 0)[0] == []:  # what it writes fills the pipe
            pass
        for _ in range(20):
            os.kill(process.pid, signal.SIGUSR1)
        assert len(process.stdout.read()) == 300_000
