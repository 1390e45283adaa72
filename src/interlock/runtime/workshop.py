"""What the attempts of one worker process share: the tools that it opened, the jobs that it read, its secrets."""

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from interlock.agents.authority import Authority
from interlock.agents.toolbox import AttemptLost
from interlock.agents.tools.calling import Tool
from interlock.agents.tools.catalogue import open_tools
from interlock.agents.tools.isolation import Sandbox
from interlock.agents.tools.secrets import ScrubbingFilter, Secrets
from interlock.agents.tools.tool import ToolContext
from interlock.protocol.base import Json
from interlock.protocol.control import Control, stop_of, stop_of_job
from interlock.protocol.messages import JobSubmitted, TaskAssigned, TaskResult
from interlock.protocol.principles import DoneCall
from interlock.protocol.subjects import result_subjects, submitted_subject
from interlock.protocol.tools import ToolSpec
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import EntryMissing
from interlock.runtime.chain import patiently
from interlock.runtime.config import ToolSetup
from interlock.runtime.gateway import AllowUrl, Outside, done_calls
from interlock.runtime.killswitch import describe_order
from interlock.runtime.sandbox import open_sandbox

__all__ = ["Workshop", "open_workshop"]


class Workshop:
    """Where the attempts of one process find what they act with. Use ``open_workshop``."""

    def __init__(self, bus: Bus, setup: ToolSetup, tools: Mapping[str, Tool], secrets: Secrets) -> None:
        self._bus = bus
        self._setup = setup
        self._tools = tools
        self._secrets = secrets
        self._jobs: dict[str, JobSubmitted] = {}
        self._history: dict[str, tuple[int, tuple[DoneCall, ...]]] = {}

    @property
    def catalogue(self) -> Sequence[ToolSpec]:
        """What the process's tools are."""
        return self._setup.catalogue

    async def job(self, job: str) -> JobSubmitted:
        """Return the first entry of a job: its team with its rules, and the catalogue of its tools.

        :raises EntryMissing: the log does not have it
        :raises BusError: what no waiting will cure
        """
        if job not in self._jobs:
            subject = submitted_subject(self._bus.ns, job)
            found = await patiently(partial(self._bus.last, subject))
            if found is None or not isinstance(found.message, JobSubmitted):
                raise EntryMissing(subject, 0)
            self._jobs[job] = found.message
        return self._jobs[job]

    def authority(self, submitted: JobSubmitted, assignment: TaskAssigned, agent: str) -> Authority:
        """Return who judges the calls of an attempt."""
        return Authority(submitted, assignment, agent)

    def outside(self, submitted: JobSubmitted, assignment: TaskAssigned, agent: str) -> Outside:
        """Return what the gateway of an attempt reaches through."""
        return Outside(
            tools=self._tools,
            control=partial(self._control, submitted, agent),
            history=partial(self._past, submitted),
            context=partial(self._context, assignment),
            hide=self._hide,
        )

    def _hide(self, value: Json) -> Json:
        return self._secrets.scrub_json(value)

    async def _control(self, submitted: JobSubmitted, agent: str) -> Control:
        """Return what the operator has laid down, as the broker has it now.

        :raises AttemptLost: it kills the attempt
        """
        control = await patiently(self._bus.orders.control)
        stop = stop_of(control.orders, team=submitted.team.team, job=submitted.job, agent=agent)
        stop = stop or stop_of_job(control.orders, submitted)
        if stop is not None:
            raise AttemptLost(describe_order(stop))
        return control

    async def _past(self, submitted: JobSubmitted) -> Sequence[DoneCall]:
        """Return the calls that the job's attempts made which have a result."""
        seq, done = self._history.get(submitted.job, (0, ()))
        catalogue = {spec.name: spec for spec in submitted.tools}
        results = result_subjects(submitted.ns, submitted.job)
        for entry in await patiently(partial(self._bus.entries, results, seq)):
            seq = entry.seq
            if isinstance(entry.message, TaskResult):
                done = (*done, *done_calls(entry.message.actions, catalogue))
        self._history[submitted.job] = seq, done
        return done

    def _context(
        self, assignment: TaskAssigned, key: str, allow_url: AllowUrl, ran_in: Callable[[str], None]
    ) -> ToolContext:
        return ToolContext(
            job=assignment.job,
            task=assignment.task,
            attempt=assignment.attempt,
            key=key,
            base=Path(self._setup.base),
            sandbox=partial(_sandbox, ran_in),
            allow_url=allow_url,
        )


@asynccontextmanager
async def open_workshop(setup: ToolSetup, bus: Bus) -> AsyncIterator[Workshop]:
    """Open the tools of ``setup`` for as long as the block runs; from here on no log line of the process has a secret.

    :raises interlock.agents.tools.errors.ToolSetupError: they cannot be had as the team says
    """
    secrets = Secrets.from_environment(setup.secrets, os.environ)
    for handler in logging.getLogger().handlers:
        handler.addFilter(ScrubbingFilter(secrets))
    async with open_tools(setup.sources, Path(setup.base), setup.catalogue, secrets) as tools:
        yield Workshop(bus, setup, tools, secrets)


async def _sandbox(ran_in: Callable[[str], None]) -> Sandbox:
    """Return the machine's sandbox, and tell which tier it is of.

    :raises SandboxMissing: none works here
    """
    sandbox = await open_sandbox()
    ran_in(sandbox.tier)
    return sandbox
