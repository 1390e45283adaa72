"""The ``interlock`` command: its words and their help. What they do is in ``interlock.runtime.commands``.

Only the standard library is imported until a command runs, so that help and mistakes answer at once.
"""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from interlock._version import __version__
from interlock.runtime._words import Commands, add_budget, add_late, add_log_bytes, approve_plan, positive, token

__all__ = ["main", "parser"]

_KILLED = 4

_EXITS = """exit status:
  0 succeeded   1 failed   2 wrong usage or a bad team file   3 partial: some tasks were not accepted   4 killed"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` (by default the process's) spell and return its exit status."""
    top = parser()
    options, rest = top.parse_known_args(arguments)
    if rest:
        quotes = options.command in {"run", "plan"} and not rest[0].startswith("-")
        top.error(f"unknown: {' '.join(rest)}" + ("; put a goal of several words in quotes" if quotes else ""))
    _write_whole()
    try:
        from interlock.runtime import commands  # noqa: PLC0415 -- help and usage errors do without

        return commands.run(options)
    except KeyboardInterrupt:  # nothing was begun yet, or it was put away on the way out
        sys.stderr.write("interlock: interrupted\n")
        return _KILLED


def _write_whole() -> None:
    """Put a buffer before a standard output without one (PYTHONUNBUFFERED).

    Such a one drops what a pipe does not take at once where a signal comes in between: the middle of a long report.
    """
    raw = getattr(sys.stdout, "buffer", None)
    if isinstance(raw, io.FileIO):
        buffer = io.BufferedWriter(io.FileIO(raw.fileno(), "w", closefd=False))
        sys.stdout = io.TextIOWrapper(buffer, sys.stdout.encoding, sys.stdout.errors, line_buffering=True)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="interlock",
        description="Run teams of LLM agents that plan, execute, verify and redo their work over NATS.",
        epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"interlock {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _check(commands)
    _permissions(commands)
    _run(commands)
    _jobs(commands)
    _show(commands)
    _kill(commands)
    _resume(commands)
    _questions(commands)
    _answer(commands)
    _policy(commands)
    _broker_config(commands)
    add_late(commands, _place, _json)
    _schema(commands)
    _doctor(commands)
    return top


def _check(commands: Commands) -> None:
    check = commands.add_parser("check", help="find every mistake in team files")
    check.add_argument("team", metavar="TEAM.yaml", nargs="+", type=Path)


def _permissions(commands: Commands) -> None:
    permissions = commands.add_parser(
        "permissions",
        help="list a team's rules, or say which of them decides a call",
        epilog="exit status with --explain:\n  0 allowed   1 denied   2 bad usage or file   3 a person is asked",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    permissions.add_argument("team", metavar="TEAM.yaml", type=Path)
    permissions.add_argument("--explain", metavar="CALL", help="""such as 'web.fetch("https://example.org/")'""")
    permissions.add_argument("--agent", metavar="A", help="judge it for this agent")
    permissions.add_argument("--step", metavar="S", help="judge it in this step")
    permissions.add_argument("--tainted", action="store_true", help="judge it with text from outside in the context")
    permissions.add_argument(
        "--policy", metavar="POLICY.yaml", type=Path, help="with the operator's rules in this file"
    )
    _json(permissions)


def _run(commands: Commands) -> None:
    run = commands.add_parser(
        "run",
        help="run one job on this machine, from start to end",
        description="Run one job; broker, agents and, where the team wants it, a local model start and end with it.",
        epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("team", metavar="TEAM.yaml", type=Path)
    run.add_argument("goal", metavar="GOAL", nargs="?", default="", help="what the job is to achieve")
    run.add_argument(
        "--input",
        metavar="K=V",
        action="append",
        default=[],
        help="give the team's input K; K=@FILE takes the content of FILE; repeat it for an input of several files",
    )
    run.add_argument("--id", metavar="JOB", type=token, help="the job's id; one that is in the log and open goes on")
    run.add_argument("--workers", metavar="N", type=positive, help="processes of each worker (default: one a core)")
    run.add_argument(
        "--guard",
        choices=("strict", "available"),
        default="available",
        help="how long agents work on while nobody can tell whether they were killed: 1 s or 15 s (default)",
    )
    run.add_argument(
        "--autonomy",
        choices=("suggest", "ask", "bounded"),
        help="what agents may do without a person: nothing, nothing that has an effect, or what the rules allow "
        "(default: as the team says)",
    )
    add_budget(run)
    approve_plan(run)
    run.add_argument("--durable", action="store_true", help="sync the log to disk before anything counts as written")
    add_log_bytes(run)
    run.add_argument(
        "--results", metavar="FILE", type=Path, help="write what its tasks come to, as JSON lines, while it runs"
    )
    _json(run)
    _place(run)


def _jobs(commands: Commands) -> None:
    jobs = commands.add_parser("jobs", help="list the jobs of the log")
    _json(jobs)
    _place(jobs)


def _show(commands: Commands) -> None:
    show = commands.add_parser("show", help="show the account of one job")
    show.add_argument("job", metavar="JOB")
    _json(show)
    _place(show)


def _kill(commands: Commands) -> None:
    kill = commands.add_parser(
        "kill",
        help="stop everything, a team, a job or an agent, at once and until it is resumed",
        description="Stop a scope at once. The order stays: what was killed is not started again until it is resumed.",
    )
    _scope(kill)
    kill.add_argument("--reason", metavar="TEXT", default="", help="what will stand in the reports of the jobs")
    _place(kill)


def _resume(commands: Commands) -> None:
    resume = commands.add_parser(
        "resume",
        help="lift a kill order",
        description="Lift the kill order of a scope. A job that was killed has ended; submit it anew.",
    )
    _scope(resume)
    _place(resume)


def _questions(commands: Commands) -> None:
    questions = commands.add_parser(
        "questions",
        help="list what agents ask you",
        description="List the open questions: what would be done, with which exact arguments, and until when you can "
        "answer.",
    )
    questions.add_argument("--job", metavar="JOB", help="only of this job, named by its id or the beginning of it")
    questions.add_argument("--all", action="store_true", help="also those that need no answer any more")
    _json(questions)
    _place(questions)


def _answer(commands: Commands) -> None:
    answer = commands.add_parser(
        "answer",
        help="answer a question of an agent",
        description="Answer a question. Its attempt goes on at once, or when its job is run again.",
    )
    answer.add_argument("job", metavar="JOB", help="the job's id, or the beginning of it")
    answer.add_argument("question", metavar="QUESTION", help="the question's id, or the beginning of it")
    answer.add_argument("answer", metavar="ANSWER", help="one of its options, such as yes or no")
    answer.add_argument("--note", metavar="TEXT", default="", help="what the agent is told besides")
    _place(answer)


def _scope(command: argparse.ArgumentParser) -> None:
    scope = command.add_mutually_exclusive_group(required=True)
    scope.add_argument("--all", dest="scope", action="store_const", const=("all",), help="everything")
    scope.add_argument("--team", dest="scope", metavar="T", type=_named("team"), help="every job of a team")
    scope.add_argument("--job", dest="scope", metavar="J", type=_named("job"), help="one job")
    scope.add_argument("--agent", dest="scope", metavar="A@T", type=_agent, help="one agent of a team, in every job")


def _named(kind: str) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", text):
            raise argparse.ArgumentTypeError(f"{text!r} is no name of a {kind}")
        return kind, text

    return parse


def _agent(text: str) -> tuple[str, ...]:
    match = re.fullmatch(r"([a-z][a-z0-9_-]{0,62})@([a-z][a-z0-9_-]{0,62})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no agent: write AGENT@TEAM, such as reader@digest")
    return "agent", match[1], match[2]


def _policy(commands: Commands) -> None:
    policy = commands.add_parser(
        "policy",
        help="lay down rules and principles for every job, or show those that stand",
        description="Lay down the operator's permissions and principles. They bind every team, from now on and in jobs "
        "that run: each call is judged by them, a plan that breaks a principle ends, and approvals have to be given "
        "anew. Without a file, show what stands.",
    )
    policy.add_argument("file", metavar="POLICY.yaml", nargs="?", type=Path)
    _json(policy)
    _place(policy)


def _broker_config(commands: Commands) -> None:
    config = commands.add_parser(
        "broker-config",
        help="write the configuration of a nats-server for teams, with a key for each role",
        description="Write the configuration of a nats-server that lets each role of the teams do its own part and "
        "nothing else, and a key for each. Keys that are in the folder stay; a team is added by running it again.",
    )
    config.add_argument("team", metavar="TEAM.yaml", nargs="+", type=Path)
    config.add_argument("--out", metavar="DIR", type=Path, default=Path("broker"), help="where to (default: broker)")
    config.add_argument("--namespace", metavar="NS", type=_namespace, default="main", help="default: main")
    config.add_argument("--tls-cert", metavar="FILE", type=Path, help="the server's certificate, PEM")
    config.add_argument("--tls-key", metavar="FILE", type=Path, help="its key, PEM")
    config.add_argument("--tls-ca", metavar="FILE", type=Path, help="the certificate that clients are to trust, PEM")
    config.add_argument(
        "--tls-at", metavar="DIR", type=Path, help="where these files are on the servers (default: where they are here)"
    )
    config.add_argument("--durable", action="store_true", help="have the server write to the disk at once")
    config.add_argument(
        "--node",
        metavar="NAME=HOST",
        action="append",
        default=[],
        help="write the configuration of this node of a cluster; name all nodes, three for example. Where ports differ "
        "from 4222 and 6222: NAME=HOST:PORT:ROUTE_PORT",
    )
    config.add_argument(
        "--store",
        metavar="DIR",
        type=Path,
        help="where the server keeps its streams (default: beside its configuration)",
    )
    config.add_argument("--max-store", metavar="SIZE", type=_size, help="the most that it keeps, such as 20G")
    config.add_argument("--domain", metavar="NAME", type=_namespace, help="the JetStream domain that the servers are")
    config.add_argument("--force", action="store_true", help="make every key anew; the old ones let nobody in any more")


def _namespace(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a namespace")
    return text


def _size(text: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]*[KMGT]?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write a number and K, M, G or T")
    return text


def _schema(commands: Commands) -> None:
    schema = commands.add_parser("schema", help="print the schemas of messages or of team files")
    kind = schema.add_mutually_exclusive_group()
    kind.add_argument("--messages", action="store_true", help="JSON Schema of all messages (the default)")
    kind.add_argument("--asyncapi", action="store_true", help="AsyncAPI 3 document: subjects, operations, messages")
    kind.add_argument("--team", action="store_true", help="JSON Schema of team files, for editors")


def _doctor(commands: Commands) -> None:
    doctor = commands.add_parser("doctor", help="say what works on this machine and what is missing")
    _place(doctor)


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON on standard output")


def _place(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        default=Path(os.environ.get("INTERLOCK_STATE", ".interlock")),
        help="where the log is kept (default: $INTERLOCK_STATE or .interlock)",
    )
    command.add_argument(
        "--nats",
        metavar="URL",
        default=os.environ.get("INTERLOCK_NATS"),
        help="use this broker and not one of our own; of a cluster several nodes, with commas between (default: "
        "$INTERLOCK_NATS)",
    )
    command.add_argument(
        "--nats-keys",
        metavar="PATH",
        type=Path,
        default=os.environ.get("INTERLOCK_NATS_KEYS"),
        help="log in there with these keys: the folder that broker-config wrote, or one file of it "
        "(default: $INTERLOCK_NATS_KEYS)",
    )
    command.add_argument(
        "--nats-ca",
        metavar="FILE",
        type=Path,
        default=os.environ.get("INTERLOCK_NATS_CA"),
        help="trust these certificates there (default: $INTERLOCK_NATS_CA, or ca.pem beside the keys)",
    )
    command.add_argument(
        "--replicas",
        metavar="N",
        type=int,
        choices=(1, 3, 5),
        help="have so many copies of the log from now on (default: 3 where it is made in a cluster of three nodes)",
    )


if __name__ == "__main__":
    sys.exit(main())
