"""A second host for a job: processes of its own under a supervisor of its own, with a model server of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.cli import Running, agent_pids, environment
from tests.waiting import eventually

from interlock.runtime.address import BrokerAddress
from interlock.runtime.place import NAMESPACE
from interlock.runtime.sources import freeze
from interlock.runtime.staffing import process_configs
from interlock.runtime.supervisor import Supervisor, supervised
from interlock.runtime.teamfile import load_team

__all__ = ["agents_of", "another_host", "job_of"]


@asynccontextmanager
async def another_host(team: Path, job: str, broker: BrokerAddress, model_url: str) -> AsyncIterator[Supervisor]:
    """Have the agents of a job on a second host too, ready; it gets what the first one leaves."""
    frozen = freeze(load_team(team), {}, team.parent)
    configs = process_configs(frozen.team, NAMESPACE, broker, job=job, workers=1)
    async with supervised(configs, environment({"INTERLOCK_MODEL_URL": model_url})) as supervisor:
        await eventually(lambda: len(supervisor.ready) == len(configs))
        yield supervisor


async def job_of(command: Running) -> str:
    """Return the job of a command, once it has told its name."""
    await command.until("job digest-")
    return next(word for word in command.err.decode().split() if word.startswith("digest-")).rstrip(":,")


def agents_of(command: Running) -> list[int]:
    """Return the pids of the agent processes of a command."""
    return [pid for name in ("manager", "reader", "checker") for pid in agent_pids(command.process.pid, name)]
