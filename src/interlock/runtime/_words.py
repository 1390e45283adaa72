"""The words of the commands that work on jobs after or without `run`, and of those that make up many machines."""

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 -- it has no other name
Add: TypeAlias = Callable[[argparse.ArgumentParser], None]
"""Gives a command options that others have too."""

LATE = {
    "up": "interlock.runtime.up_command",
    "worker": "interlock.runtime.up_command",
    "nodes": "interlock.runtime.up_command",
    "plan": "interlock.runtime.plan_command",
    "submit": "interlock.runtime.submit_command",
    "watch": "interlock.runtime.submit_command",
    "results": "interlock.runtime.results_command",
    "dead-letters": "interlock.runtime.retry_command",
    "retry": "interlock.runtime.retry_command",
    "replay": "interlock.runtime.replay_command",
    "archive": "interlock.runtime.archive_command",
    "api-key": "interlock.runtime.api_command",
}
"""The module that knows each of these commands: ``COMMANDS`` in it has what does it, by name."""


def add_late(commands: Commands, place: Add, as_json: Add) -> None:
    """Add the parsers of the commands in ``LATE``."""
    as_json(_plan(commands))
    _api_key(commands)
    for make in (_up, _worker, _results, _archive):
        place(make(commands))
    for make in (_nodes, _submit, _watch, _dead_letters, _retry, _replay):
        command = make(commands)
        as_json(command)
        place(command)


def _up(commands: Commands) -> argparse.ArgumentParser:
    up = commands.add_parser(
        "up",
        help="keep teams up: broker, manager and agents, for as many jobs as are submitted",
        description="Keep a manager and the agents of these teams up until SIGTERM or Ctrl-C, and go on with the jobs "
        "that are open in the log. Without a team only a manager: `interlock worker` adds agents from other machines.",
    )
    up.add_argument("teams", metavar="TEAM.yaml", nargs="*", type=Path)
    up.add_argument("--workers", metavar="N", type=positive, help="processes of each worker (default: one a core)")
    up.add_argument("--durable", action="store_true", help="sync the log to disk before anything counts as written")
    add_log_bytes(up)
    up.add_argument("--http", metavar="HOST:PORT", help="serve the HTTP API there, such as 127.0.0.1:8080")
    up.add_argument(
        "--http-keys", metavar="FILE", type=Path, help="who may use it (default: api-keys.json in the state folder)"
    )
    up.add_argument("--http-open", action="store_true", help="serve it without keys, to programs on this machine alone")
    _keeping(up)
    return up


def _api_key(commands: Commands) -> argparse.ArgumentParser:
    api_key = commands.add_parser(
        "api-key",
        help="make a key for the HTTP API, take one back, or list them",
        description="Make a key for `interlock up --http` and print it, this once: the file has only its hash. Without "
        "a name list the keys. A server that runs takes new keys, and no more those that were taken back, at once.",
    )
    api_key.add_argument("name", metavar="NAME", nargs="?", type=key_name, help="what the key is called")
    api_key.add_argument(
        "--scope",
        metavar="SCOPE",
        action="append",
        choices=("submit", "read", "answer", "kill"),
        help="what it is for: submit, read, answer or kill; repeat it for several (default: all)",
    )
    api_key.add_argument(
        "--team", metavar="TEAM", action="append", type=team_name, help="for this team; repeat it (default: all teams)"
    )
    api_key.add_argument("--revoke", action="store_true", help="take the key back")
    api_key.add_argument(
        "--http-keys", metavar="FILE", type=Path, help="the file of keys (default: api-keys.json in the state folder)"
    )
    api_key.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        default=Path(os.environ.get("INTERLOCK_STATE", ".interlock")),
        help="the state folder (default: $INTERLOCK_STATE or .interlock)",
    )
    return api_key


def _worker(commands: Commands) -> argparse.ArgumentParser:
    worker = commands.add_parser(
        "worker",
        help="add agents on this machine to teams that are up elsewhere",
        description="Serve roles of teams whose broker is --nats. SIGTERM lets the attempts in hand end first.",
    )
    worker.add_argument(
        "teams",
        metavar="TEAM.yaml",
        nargs="*",
        type=Path,
        help="where the roles are defined (default: as the teams were last brought up)",
    )
    worker.add_argument(
        "--role",
        metavar="AGENT@TEAM",
        action="append",
        default=[],
        help="serve this role; `manager` is a manager; repeat it for several (default: all of the teams)",
    )
    worker.add_argument("--workers", metavar="N", type=positive, help="processes of each role (default: one a core)")
    _keeping(worker)
    return worker


def _keeping(command: argparse.ArgumentParser) -> None:
    command.add_argument("--name", metavar="NODE", help="what `interlock nodes` calls this machine (default: its name)")
    command.add_argument(
        "--drain",
        metavar="SECONDS",
        type=float,
        default=30.0,
        help="how long attempts in hand may take after SIGTERM (default: 30)",
    )
    command.add_argument(
        "--guard",
        choices=("strict", "available"),
        default="available",
        help="how long agents work on while nobody can tell whether they were killed: 1 s or 15 s (default)",
    )


def _nodes(commands: Commands) -> argparse.ArgumentParser:
    return commands.add_parser("nodes", help="list the machines that work for the log's jobs, and their room")


def _plan(commands: Commands) -> argparse.ArgumentParser:
    plan = commands.add_parser(
        "plan",
        help="show the plan that a team's manager makes for a goal, and run nothing",
        description="Ask the manager of a team without a plan what it would do: its steps, agents, items, criteria and "
        "tools, as a table and a graph. A proposal that is wrong is made again, as often as limits.plans allows.",
        epilog="exit status:\n  0 a plan, or an answer that needs none   1 no plan came of it   2 bad usage or file",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    plan.add_argument("team", metavar="TEAM.yaml", type=Path)
    plan.add_argument("goal", metavar="GOAL", nargs="?", default="", help="what is to be achieved")
    plan.add_argument("--input", metavar="K=V", action="append", default=[], help="as with `interlock run`")
    return plan


def _submit(commands: Commands) -> argparse.ArgumentParser:
    submit = commands.add_parser(
        "submit",
        help="give a job to a team that is up",
        description="Append a job to the log and print its id; whoever keeps the team up does it.",
    )
    submit.add_argument("team", metavar="TEAM.yaml", type=Path)
    submit.add_argument("goal", metavar="GOAL", nargs="?", default="", help="what the job is to achieve")
    submit.add_argument("--input", metavar="K=V", action="append", default=[], help="as with `interlock run`")
    submit.add_argument("--id", metavar="JOB", type=token, help="submitting an id again gives the same job")
    submit.add_argument("--priority", choices=("low", "normal", "high"), default="normal")
    submit.add_argument("--autonomy", choices=("suggest", "ask", "bounded"), help="as with `interlock run`")
    add_budget(submit)
    approve_plan(submit)
    submit.add_argument("--watch", action="store_true", help="watch it to its end and report as `interlock run` does")
    return submit


def _watch(commands: Commands) -> argparse.ArgumentParser:
    watch = commands.add_parser("watch", help="watch a job until it is over, then show its account")
    watch.add_argument("job", metavar="JOB")
    return watch


def _results(commands: Commands) -> argparse.ArgumentParser:
    results = commands.add_parser(
        "results",
        help="print what the tasks of a step came to, as JSON lines in the order of the items",
        description="Print a line of JSON for each closed task of a step, in the order of its items.",
    )
    results.add_argument("job", metavar="JOB")
    results.add_argument(
        "--step", metavar="S", help="of this step, or '*' for all (default: those that make up the result)"
    )
    results.add_argument("--follow", action="store_true", help="go on until the job is over")
    return results


def _dead_letters(commands: Commands) -> argparse.ArgumentParser:
    letters = commands.add_parser("dead-letters", help="list the tasks that failed for good, and why")
    letters.add_argument("job", metavar="JOB", nargs="?", help="only of this job")
    return letters


def _retry(commands: Commands) -> argparse.ArgumentParser:
    retry = commands.add_parser(
        "retry",
        help="put tasks that failed for good back into their job",
        description="Put dead letters back: they are tried anew, with all their attempts, and what was made of the "
        "step's results is made again. What was accepted stays.",
    )
    retry.add_argument("job", metavar="JOB")
    retry.add_argument("tasks", metavar="TASK", nargs="*", help="such as read:17 (default: all of the job's)")
    retry.add_argument("--reason", metavar="TEXT", default="", help="what will stand in the log")
    return retry


def _replay(commands: Commands) -> argparse.ArgumentParser:
    replay = commands.add_parser(
        "replay",
        help="fold the log of a job again and show each step",
        description="Show how a job came to be what it is, entry by entry, from the log or from an archive.",
    )
    replay.add_argument("job", metavar="JOB", help="a job's id, or the file of an archived one")
    replay.add_argument("--until", metavar="SEQ", type=positive, help="only up to this sequence: the past as it was")
    replay.add_argument(
        "--rerun",
        action="store_true",
        help="run the job again with the recorded answers of models and tools, and say where it departs",
    )
    return replay


def _archive(commands: Commands) -> argparse.ArgumentParser:
    archive = commands.add_parser(
        "archive",
        help="write finished jobs to files and take them out of the log",
        description="Write the log of each finished job to DIR/JOB.jsonl.gz, from which show, results and replay read "
        "it, and purge it from the broker.",
    )
    archive.add_argument("jobs", metavar="JOB", nargs="*", help="default: all that are finished")
    archive.add_argument("--older", metavar="HOURS", type=float, default=0.0, help="only those over for so long")
    archive.add_argument("--out", metavar="DIR", type=Path, help="default: archive in the state folder")
    archive.add_argument("--keep", action="store_true", help="leave them in the log too")
    return archive


def approve_plan(command: argparse.ArgumentParser) -> None:
    """Add the option that asks a person about the manager's plan."""
    command.add_argument(
        "--approve-plan", action="store_true", help="ask you before a plan that the manager made is followed"
    )


def add_budget(command: argparse.ArgumentParser) -> None:
    """Add the option that bounds what one job may use up."""
    command.add_argument(
        "--budget",
        metavar="UNIT=N",
        action="append",
        default=[],
        type=bound,
        help="let the job use up so many calls, tokens or seconds, such as calls=100, where the team file does not "
        "allow less; repeat it for several",
    )


def add_log_bytes(command: argparse.ArgumentParser) -> None:
    """Add the option that bounds the log."""
    command.add_argument(
        "--log-bytes",
        metavar="SIZE",
        type=size,
        help="let the log grow to this size, such as 500M or 20G, and then wait for room; 0: without a limit "
        "(default: as it was, at first without one)",
    )


def size(text: str) -> int:
    """Return the bytes that ``text`` spells: a whole number, and K, M, G or T for powers of 1024."""
    match = re.fullmatch(r"([0-9]{1,12})([KMGT]?)B?", text.strip().upper())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write a whole number and K, M, G or T, such as 500M")
    return int(match[1]) << 10 * " KMGT".index(match[2] or " ")


def bound(text: str) -> tuple[str, int]:
    """Return the unit of a budget, and how much of it ``text`` allows."""
    unit, _, amount = text.partition("=")
    if unit not in {"calls", "tokens", "seconds"} or not re.fullmatch(r"[0-9]{1,15}", amount) or not int(amount):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no bound: write calls=N, tokens=N or seconds=N with a whole number from 1 on"
        )
    return unit, int(amount)


def positive(text: str) -> int:
    """Return the whole number from 1 on that ``text`` spells."""
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def key_name(text: str) -> str:
    """Return ``text`` if a key can be called so."""
    if not re.fullmatch(r"[A-Za-z0-9_.@-]{1,64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a key: letters, digits, and . _ @ -")
    return text


def team_name(text: str) -> str:
    """Return ``text`` if a team can be called so."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a team: small letters, digits, - and _")
    return text


def token(text: str) -> str:
    """Return ``text`` if it can be the id that a person chooses for a job."""
    if ":" in text:
        raise argparse.ArgumentTypeError(f"{text!r} has a colon: that is what ids of jobs within jobs have")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):  # with room for those of the jobs within it
        raise argparse.ArgumentTypeError(f"{text!r} is no id of a job: up to 64 letters, digits, - and _")
    return text
