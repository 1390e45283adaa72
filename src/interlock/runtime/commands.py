"""What the words of the command line do. Results go to standard output, everything else to standard error.

Each command returns its exit status; a mistake of the person's is told in a line and ends with 2, never a traceback.
"""

import argparse
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import anyio

from interlock.agents.tools.errors import ToolMissing, ToolSetupError
from interlock.backends.engines import knock, resolve_endpoint
from interlock.backends.errors import (
    LocalEngineNotRunning,
    ModelError,
    ModelKeyInvalid,
    ModelNotConfigured,
    ModelUrlInvalid,
    VllmMissing,
    VllmNotRunning,
)
from interlock.observability.logging import configure_logging
from interlock.observability.tracing import Tracing
from interlock.protocol.control import AgentScope, AllScope, JobScope, TeamScope
from interlock.protocol.errors import BodyTooLarge, NotInVersion
from interlock.protocol.state import JobState
from interlock.protocol.team import Budget, Team
from interlock.runtime._words import LATE
from interlock.runtime.address import AddressInvalid
from interlock.runtime.broker_errors import BrokerError, KeyMissing, KeysUnusable
from interlock.runtime.bus_errors import BusError
from interlock.runtime.client import JobNotFound
from interlock.runtime.closing import JobLeftOpen
from interlock.runtime.config import Toolkit
from interlock.runtime.failures import FileUnwritable, Mistake, first_error
from interlock.runtime.keyring import reach
from interlock.runtime.killswitch import JobKilled, describe_order
from interlock.runtime.launch import Interruption, JobInterrupted, Order, run_job
from interlock.runtime.lean import SMALL, size_of
from interlock.runtime.place import Place, open_log
from interlock.runtime.report import EngineReport, Listed, listed_of, report_of
from interlock.runtime.show import print_engine, print_jobs, print_out, print_state, reader_may_leave
from interlock.runtime.source_errors import SourceError
from interlock.runtime.sources import freeze, parse_inputs
from interlock.runtime.staffing import models_used, tool_names
from interlock.runtime.supervisor import AgentProcessFailed
from interlock.runtime.teamfile import LoadedTeam, TeamFileInvalid, load_team
from interlock.runtime.view import open_view

__all__ = ["EXIT_OF_STATUS", "budget_of", "model_problem", "place_of", "run", "tell", "toolkit_of", "writable"]

EXIT_OF_STATUS = {"succeeded": 0, "failed": 1, "partial": 3, "killed": 4, "running": 0}
"""The exit status for each status of a job."""

_USAGE = 2

_FLUSH = 0.4
"""Seconds that the last spans have to leave, so that Ctrl-C stays within a second."""

_log = logging.getLogger(__name__)


def run(options: argparse.Namespace) -> int:
    """Run the command that was asked for and return its exit status; no traceback is shown for a person's mistake."""
    configure_logging("interlock")
    try:
        return _command(options.command)(options)
    except Exception as error:  # noqa: BLE001 -- the last stop: everything is told, nothing is swallowed
        return _complain(first_error(error))


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    """Return what does a command; those of ``LATE`` are imported only now."""
    if name not in LATE:
        return _COMMANDS[name]
    commands: dict[str, Callable[[argparse.Namespace], int]] = importlib.import_module(LATE[name]).COMMANDS
    return commands[name]


def _complain(error: BaseException) -> int:
    """Tell what went wrong and return the exit status for it."""
    match error:
        case TeamFileInvalid():
            print(error, file=sys.stderr)
            return _USAGE
        case (
            SourceError()
            | AddressInvalid()
            | KeyMissing()
            | KeysUnusable()
            | JobNotFound()
            | ModelNotConfigured()
            | ModelUrlInvalid()
            | ModelKeyInvalid()
            | BodyTooLarge()
            | NotInVersion()
            | ToolSetupError()
            | Mistake()
        ):
            print(f"interlock: {error}", file=sys.stderr)
            return _USAGE
        case JobInterrupted() | JobKilled():
            print(f"interlock: {error}", file=sys.stderr)
            return EXIT_OF_STATUS["killed"]
        case BrokerError() | BusError() | ModelError() | AgentProcessFailed() | JobLeftOpen() | OSError():
            print(f"interlock: {error}", file=sys.stderr)
        case _:
            _log.debug("what went wrong", exc_info=error)
            hint = "INTERLOCK_LOG=debug shows where"
            print(f"interlock: a mistake of interlock's own: {type(error).__name__}: {error} ({hint})", file=sys.stderr)
    return 1


def _check(options: argparse.Namespace) -> int:
    status = 0
    for path in options.team:
        try:
            loaded = load_team(path)
        except TeamFileInvalid as error:
            status = _complain(error)
        else:
            team = loaded.team
            plan = f"{len(team.plan)} steps" if team.plan else "plans by itself"
            print_out(f"{path}: team {team.team}, {len(team.agents)} agents, {plan}")
    return status


def _permissions(options: argparse.Namespace) -> int:
    from interlock.runtime.permissions_command import (  # noqa: PLC0415 -- no other command needs it
        CallUnreadable,
        Question,
        explain,
        show_permissions,
    )
    from interlock.runtime.policyfile import PolicyFileInvalid  # noqa: PLC0415

    try:
        if options.explain is None:
            return show_permissions(options.team, options.policy, as_json=options.json)
        question = Question(options.explain, options.agent, options.step, options.tainted)
        return explain(options.team, question, options.policy, as_json=options.json)
    except PolicyFileInvalid as error:
        print(error, file=sys.stderr)
    except CallUnreadable as error:
        print(f"interlock: {error}", file=sys.stderr)
    return _USAGE


def _run(options: argparse.Namespace) -> int:
    loaded = load_team(options.team)
    frozen = freeze(loaded, parse_inputs(options.input), Path.cwd())
    toolkit = toolkit_of(loaded)
    if (problem := model_problem(frozen.team)) is not None:
        return _complain(problem)
    order = Order(
        frozen.team,
        options.goal or loaded.team.description,
        frozen.inputs,
        options.workers,
        options.guard,
        options.autonomy,
        toolkit=toolkit,
        results=writable(options.results),
        items=frozen.items,
        lists=frozen.lists,
        job=options.id,
        approve_plan=options.approve_plan,
        budget=budget_of(options.budget),
    )
    tracing = Tracing.from_environment("interlock-client")
    try:
        state = anyio.run(_run_until_told, place_of(options), order, tracing, backend_options={"use_uvloop": True})
    finally:
        tracing.shutdown(_FLUSH)
    return tell(options, state, engine=order.gauges.report())


def writable(path: Path | None) -> Path | None:
    """Return ``path`` once it is an empty file that can be written.

    :raises FileUnwritable: it cannot be
    """
    if path is not None:
        try:
            path.write_bytes(b"")
        except OSError as error:
            raise FileUnwritable(path, error.strerror or str(error)) from None
    return path


def budget_of(bounds: Sequence[tuple[str, int]]) -> Budget | None:
    """Return what ``--budget`` allows, None without it; of the same unit the last one counts."""
    return Budget.model_validate(dict(bounds)) if bounds else None


def toolkit_of(loaded: LoadedTeam) -> Toolkit:
    """Return the tools that the plan uses, as they are now.

    :raises ToolSetupError: they cannot be had as the team file says
    """
    base = loaded.path.resolve().parent
    inner: dict[str, Toolkit] = {}
    for one in loaded.inner.values():
        found_within = toolkit_of(one)
        inner |= {one.team.team: found_within, **found_within.inner}
    wanted = sorted(tool_names(loaded.team))
    if not wanted:
        return Toolkit(base=str(base), inner=inner)
    from interlock.agents.tools.catalogue import discover  # noqa: PLC0415 -- teams without tools do without
    from interlock.agents.tools.secrets import Secrets  # noqa: PLC0415

    found = anyio.run(discover, loaded.team, base, Secrets.from_environment(loaded.team.secrets, os.environ))
    for name in wanted:
        if name not in found:
            raise ToolMissing(name, found)
    return Toolkit(tuple(found[name] for name in wanted), str(base), inner)


def model_problem(team: Team) -> ModelError | None:
    """Return why an agent's model cannot be reached at all, before anything is started for it."""
    reached: set[str] = set()
    for _, settings in models_used(team):
        try:
            endpoint = resolve_endpoint(settings)
            if endpoint.url not in reached:
                knock(endpoint)
                reached.add(endpoint.url)
        except LocalEngineNotRunning:
            continue  # it will be started
        except VllmNotRunning:
            if (missing := _vllm_problem()) is not None:
                return missing
        except ModelError as error:
            return error
    return None


def _vllm_problem() -> ModelError | None:
    """Return why no vLLM server can be started here, as far as that can be told without trying."""
    from interlock.backends.vllm_command import find_vllm  # noqa: PLC0415 -- few teams have it

    try:
        find_vllm()
    except VllmMissing as error:
        return error
    return None


async def _run_until_told(place: Place, order: Order, tracing: Tracing) -> JobState:
    interruption, state = Interruption(), JobState()
    async with anyio.create_task_group() as group:
        group.start_soon(_interrupt_on_signal, interruption)
        with open_view() as view:
            state = await run_job(place, order, view, tracing, interruption)
        group.cancel_scope.cancel()
    return state


async def _interrupt_on_signal(interruption: Interruption) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            if interruption.reason:
                _leave_at_once()
            interruption.trigger(f"interrupted by {signal.Signals(number).name}")


def _leave_at_once() -> NoReturn:
    """End the process without another word, as asked twice; every child dies with it."""
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h\n")  # the live view hides the cursor
        sys.stderr.flush()
    os._exit(EXIT_OF_STATUS["killed"])


def _jobs(options: argparse.Namespace) -> int:
    place = place_of(options)
    jobs = anyio.run(_all_jobs, place) if _is_there(place) else []
    if options.json:
        summaries = [job.report.model_dump(mode="json", exclude={"tasks", "result"}) for job in jobs]
        print_out(json.dumps(summaries, indent=2))
    else:
        print_jobs(jobs)
    return 0


def _show(options: argparse.Namespace) -> int:
    tell(options, anyio.run(_one_state, place_of(options), options.job), options.job)
    return 0


def _is_there(place: Place) -> bool:
    """Whether there can be a log; reading makes none."""
    return place.nats is not None or place.state.exists()


async def _one_state(place: Place, job: str) -> JobState:
    from interlock.runtime.replaying import open_source, read_source  # noqa: PLC0415 -- most commands do without

    async with open_source(place, job) as source:
        return await read_source(source)


async def _all_jobs(place: Place) -> list[Listed]:
    from interlock.runtime.listing import list_jobs  # noqa: PLC0415 -- no other command needs it

    async with open_log(place, "client") as bus:
        return await list_jobs(bus)


def _kill(options: argparse.Namespace) -> int:
    from interlock.runtime.killing import kill  # noqa: PLC0415 -- no other command needs it

    order, ended = anyio.run(kill, place_of(options), _scope(options), options.reason)
    print_out(describe_order(order))
    print_jobs([listed_of(state) for state in ended])
    return 0


def _scope(options: argparse.Namespace) -> AllScope | TeamScope | JobScope | AgentScope:
    match options.scope:
        case ("team", team):
            return TeamScope(team=team)
        case ("job", job):
            return JobScope(job=job)
        case ("agent", agent, team):
            return AgentScope(agent=agent, team=team)
        case _:
            return AllScope()


def _resume(options: argparse.Namespace) -> int:
    from interlock.runtime.killing import resume  # noqa: PLC0415 -- no other command needs it

    print_out(describe_order(anyio.run(resume, place_of(options), _scope(options))))
    return 0


def _questions(options: argparse.Namespace) -> int:
    from interlock.runtime import questions  # noqa: PLC0415 -- no other command needs it

    place = place_of(options)
    try:
        found = anyio.run(questions.find, place, options.job) if _is_there(place) else []
    except questions.JobAmbiguous as error:
        print(f"interlock: {error}", file=sys.stderr)
        return _USAGE
    chosen = [one for one in found if options.all or one.status == "open"]
    if options.json:
        print_out(json.dumps([one.model_dump(mode="json") for one in chosen], indent=2, ensure_ascii=False))
    else:
        if not chosen:
            print("no question is open", file=sys.stderr)
        for one in chosen:
            print_out("\n".join(questions.told(one, datetime.now(UTC))))
    return 0


def _answer(options: argparse.Namespace) -> int:
    from interlock.runtime import questions  # noqa: PLC0415 -- no other command needs it

    place = place_of(options)
    if not _is_there(place):
        raise JobNotFound(options.job, ())
    given = options.job, options.question, options.answer, options.note
    try:
        answered = anyio.run(questions.answer, place, *given)
    except questions.UNANSWERABLE as error:
        print(f"interlock: {error}", file=sys.stderr)
        return _USAGE if isinstance(error, LookupError | ValueError) else 1
    print_out(f"{answered.job} {answered.id}: {answered.answer}")
    return 0


def _policy(options: argparse.Namespace) -> int:
    from interlock.runtime.policing import lay_down, standing_policy  # noqa: PLC0415
    from interlock.runtime.policyfile import PolicyFileInvalid, load_policy  # noqa: PLC0415 -- no other command needs it

    try:
        policy = load_policy(options.file) if options.file else None
    except PolicyFileInvalid as error:
        print(error, file=sys.stderr)
        return _USAGE
    place = place_of(options)
    stands = anyio.run(standing_policy, place) if policy is None else anyio.run(lay_down, place, policy)
    print_out(stands.model_dump_json(indent=2) if options.json else stands.in_words())
    return 0


def _broker_config(options: argparse.Namespace) -> int:
    from interlock.runtime.brokerconfig import BrokerConfigInvalid, run  # noqa: PLC0415 -- no other command needs it

    try:
        return run(options)
    except BrokerConfigInvalid as error:
        print(f"interlock: {error}", file=sys.stderr)
        return _USAGE


def _schema(options: argparse.Namespace) -> int:
    from interlock.protocol.schema import asyncapi, message_schema  # noqa: PLC0415 -- no other command needs it
    from interlock.runtime.teamfile import team_json_schema  # noqa: PLC0415

    document = asyncapi() if options.asyncapi else team_json_schema() if options.team else message_schema()
    print_out(json.dumps(document, indent=2, ensure_ascii=False))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from interlock.runtime.doctor import examine  # noqa: PLC0415 -- no other command needs it

    findings = anyio.run(examine, place_of(options))
    for finding in findings:
        print_out(f"{'ok     ' if finding.fine else 'MISSING' if finding.needed else 'absent '} {finding.text}")
    return 0 if all(finding.fine or not finding.needed for finding in findings) else 1


def place_of(options: argparse.Namespace) -> Place:
    """Return the place of the log that a command's options name.

    :raises AddressInvalid: ``--nats`` is no address
    :raises BrokerError: there is no key where ``--nats-keys`` says
    """
    nats = reach(options.nats, options.nats_keys, options.nats_ca) if options.nats else None
    durable, log_bytes = getattr(options, "durable", False), getattr(options, "log_bytes", None)
    return Place(options.state, nats, durable, log_bytes, getattr(options, "replicas", None))


def tell(
    options: argparse.Namespace, state: JobState, named: str | None = None, engine: EngineReport | None = None
) -> int:
    """Print what became of a job as ``--json`` says and return its exit status; the state may be a lean one.

    ``named`` is how a person called it where that may be the file of its archive; ``engine`` what its engine told of
    it, where it ran here.

    :raises BusError: the report is too long for what the state holds, and the log out of reach
    """
    if not options.json:
        print_state(state)
        if engine is not None:
            print_engine(engine)
    elif size_of(state) <= SMALL:
        print_out(report_of(state).model_copy(update={"engine": engine}).model_dump_json(indent=2))
    elif state.submitted is not None:
        anyio.run(_print_report, place_of(options), named or state.submitted.job, engine)
    return EXIT_OF_STATUS[state.closed.status if state.closed else "running"]


async def _print_report(place: Place, job: str, engine: EngineReport | None) -> None:
    from interlock.runtime.replaying import open_source  # noqa: PLC0415 -- only large jobs need it
    from interlock.runtime.reporting import ReportWriter  # noqa: PLC0415

    with ReportWriter() as writer:
        async with open_source(place, job) as source, aclosing(source.entries()) as batches:
            async for entries in batches:
                writer.take(entries)
        with reader_may_leave(sys.stdout):
            writer.write(sys.stdout, engine)


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "check": _check,
    "permissions": _permissions,
    "run": _run,
    "jobs": _jobs,
    "show": _show,
    "kill": _kill,
    "resume": _resume,
    "questions": _questions,
    "answer": _answer,
    "policy": _policy,
    "broker-config": _broker_config,
    "schema": _schema,
    "doctor": _doctor,
}
