"""Progress that nobody keeps, and the list of jobs."""

import anyio
import pytest
from tests.integration.bus.messages import assigned, submitted

from interlock.runtime.bus import Bus, Live
from interlock.runtime.bus_errors import PayloadTooLarge


async def test_a_listener_hears_the_progress_of_its_job(bus: Bus) -> None:
    """Events of the job come in order with their payload; those of other jobs do not."""
    async with bus.listen("mine") as events:
        await bus.announce("yours", "reader@digest", "step.started", {"step": "x"})
        await bus.announce("mine", "reader@digest", "step.started", {"step": "s"})
        await bus.announce("mine", "reader@digest", "token", "hello")
        with anyio.fail_after(5):
            assert [await anext(events), await anext(events)] == [
                Live("reader@digest", "step.started", {"step": "s"}),
                Live("reader@digest", "token", "hello"),
            ]


async def test_a_payload_that_is_too_large_is_a_typed_error(bus: Bus) -> None:
    """What the broker would end the connection for is refused before it is sent."""
    with pytest.raises(PayloadTooLarge, match=r"3000002 bytes .* 2097152"):
        await bus.announce("mine", "reader@digest", "token", "x" * 3_000_000)
    assert bus.is_connected


async def test_jobs_are_those_that_were_submitted(bus: Bus) -> None:
    """Every job in the log is listed once, whatever else is in there."""
    assert await bus.jobs() == []
    for job in ("b-2", "a-1"):
        await bus.append(submitted(bus.ns, job))
    await bus.append(assigned(bus.ns, "a-1"))
    assert await bus.jobs() == ["a-1", "b-2"]
