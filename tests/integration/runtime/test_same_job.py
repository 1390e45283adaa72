"""An id is one job for ever, however often it is submitted."""

import anyio
from tests.integration.runtime.crew import team_of
from tests.killable_broker import KillableBroker

from interlock.observability.tracing import Tracing
from interlock.protocol.messages import JobSubmitted
from interlock.protocol.subjects import job_subjects
from interlock.runtime.bus import Bus
from interlock.runtime.client import submit

TEAM = team_of({"step": "s"})


async def _submitted(bus: Bus, job: str) -> list[JobSubmitted]:
    entries = await bus.entries(job_subjects(bus.ns, job))
    return [one.message for one in entries if isinstance(one.message, JobSubmitted)]


async def test_of_many_submissions_of_an_id_one_makes_the_job(bus: Bus) -> None:
    """Twenty at once: one of them says that it made the job, and one ``job.submitted`` stands."""
    made: list[bool] = []

    async def once() -> None:
        made.append(await submit(bus, Tracing(), TEAM, "go", {}, "j1"))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(once)
    assert sorted(made) == [False] * 19 + [True]
    assert len(await _submitted(bus, "j1")) == 1


async def test_an_id_is_the_same_job_after_the_broker_was_killed(killable_broker: KillableBroker, ns: str) -> None:
    """What was submitted before ``kill -9`` of the broker is the same job afterwards, as it was first given."""
    async with Bus.connect(killable_broker.address, ns, "before") as bus:
        assert await submit(bus, Tracing(), TEAM, "the first", {}, "j1")
    await killable_broker.kill()
    await killable_broker.restart()
    async with Bus.connect(killable_broker.address, ns, "after") as bus:
        assert not await submit(bus, Tracing(), TEAM, "the second", {}, "j1")
        [stands] = await _submitted(bus, "j1")
    assert stands.goal == "the first"
