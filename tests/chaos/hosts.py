"""A second host for a job: processes of its own under a supervisor of its own, with a model server of its own."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from tests.cli import Running, agent_pids, environment
from tests.waiting import eventually

from interlock.runtime.address import BrokerAddress
from interlock.runtime.broker import embedded_broker
from interlock.runtime.credentials import parties_of
from interlock.runtime.place import NAMESPACE
from interlock.runtime.sources import freeze
from interlock.runtime.staffing import process_configs
from interlock.runtime.supervisor import Supervisor, supervised
from interlock.runtime.teamfile import load_team

__all__ = ["agents_of", "another_host", "broker_for", "job_of", "way_in"]

_LANE = 1
"""That of the only job there is."""


def broker_for(team: Path, folder: Path) -> AbstractAsyncContextManager[BrokerAddress]:
    """Run a broker that knows the agents of ``team``, as one that is not the command's own."""
    return embedded_broker(folder / "elsewhere", parties=parties_of([load_team(team).team]))


def way_in(broker: BrokerAddress) -> dict[str, str]:
    """Return the environment in which commands use this broker with its keys."""
    assert broker.keys is not None
    return {"INTERLOCK_NATS": broker.url, "INTERLOCK_NATS_KEYS": broker.keys}


@asynccontextmanager
async def another_host(team: Path, job: str, broker: BrokerAddress, model_url: str) -> AsyncIterator[Supervisor]:
    """Have the agents of a job on a second host too, ready; it gets what the first one leaves."""
    frozen = freeze(load_team(team), {}, team.parent)
    configs = process_configs(frozen.team, NAMESPACE, broker, job=job, workers=1, lane=_LANE)
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
