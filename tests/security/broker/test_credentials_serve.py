"""What a party may do: with its own key everything that its part in a job takes works, and lanes keep jobs apart."""

import uuid

import anyio
import pytest
from tests.integration.bus.messages import assigned, effect_done, result
from tests.security.broker.parties import CHECKER, MANAGER, NS, OPERATOR, READER, VERIFIER, WORKER, bus_of

from interlock.protocol.base import Role
from interlock.protocol.messages import JobClosed, TaskAssigned, TaskVerdict
from interlock.runtime._jetstream import api
from interlock.runtime._names import LANES, QueueKind
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import LanesTaken
from interlock.runtime.keyring import login_of


def _job() -> str:
    return f"digest-{uuid.uuid4().hex[:8]}"


async def test_a_task_from_assignment_to_verdict(operator: BrokerAddress) -> None:
    """Manager, worker and verifier do their parts with their keys, bodies over 256 KiB and effects among them."""
    job = _job()
    async with (
        bus_of(operator, OPERATOR) as own,
        own.queues([("assigned", READER), ("result", CHECKER)], job) as lane,
        Bus.connect(login_of(operator, WORKER, lane), NS, "worker") as worker,
        Bus.connect(login_of(operator, VERIFIER, lane), NS, "verifier") as verifier,
        bus_of(operator, MANAGER) as manager,
        manager.follow() as batches,
        worker.pull("assigned", READER, 1, job=job) as assignments,
        verifier.pull("result", CHECKER, 1, job=job) as results,
    ):
        with anyio.fail_after(20):
            await manager.append(assigned(NS, job=job, instruction="x" * 300_000))
            given = await anext(assignments)
            assert isinstance(given.message, TaskAssigned)
            await worker.append(effect_done(NS, job=job))
            await worker.append(result(given.message, given.seq, "y" * 300_000))
            await given.ack()
            claimed = await anext(results)
            verdict = TaskVerdict(
                **claimed.message.model_dump(include={"ns", "job", "task", "attempt", "at"}),
                id=uuid.uuid4().hex,
                answers=claimed.seq,
                by=CHECKER,
                verdict="pass",
            )
            last = await verifier.append(verdict)
            await claimed.ack()
            assert (await worker.orders.standing()) == {}
            seen: list[str] = []
            while not seen or seen[-1] != "task.verdict":
                seen += [one.message.kind for one in (await anext(batches)).received if one.message.job == job]
        assert seen == ["task.assigned", "effect.done", "task.result", "task.verdict"]
        assert (await worker.get(last)).message == verdict


async def test_progress_is_told_in_ones_own_name(operator: BrokerAddress) -> None:
    """What a worker announces arrives, with its role."""
    async with bus_of(operator, OPERATOR) as own, bus_of(operator, WORKER) as worker, own.listen("j1") as events:
        await worker.announce("j1", READER, "token", "hello")
        with anyio.fail_after(5):
            event = await anext(events)
    assert (event.by, event.event, event.payload) == (READER, "token", "hello")


async def test_each_job_has_a_lane_of_its_own(operator: BrokerAddress) -> None:
    """Two jobs of a team at one time have different queues; a lane is free again when its job is over."""
    queues: list[tuple[QueueKind, Role]] = [("assigned", READER), ("result", CHECKER)]
    async with bus_of(operator, OPERATOR) as own:
        async with own.queues(queues, _job()) as one, own.queues(queues, _job()) as other:
            assert {one, other} == {1, 2}
        async with own.queues(queues, _job()) as again:
            assert again == 1


async def test_what_a_run_left_behind_is_in_nobodys_way(operator: BrokerAddress) -> None:
    """A lane whose job was closed is taken, one whose job is open is not, and when all are taken that is said."""
    queues: list[tuple[QueueKind, Role]] = [("result", CHECKER)]
    async with bus_of(operator, OPERATOR) as own:
        jobs = [_job() for _ in range(LANES)]
        for number, job in enumerate(jobs, 1):
            [left] = [own._queue("result", CHECKER, job, lane=number)]
            request = {"stream_name": left.stream, "config": left.config}
            await api(own._wire, f"CONSUMER.CREATE.{left.stream}.{left.consumer}", request)
        with pytest.raises(LanesTaken, match="interlock kill --job"):
            async with own.queues(queues, _job()):
                pass
        closed = assigned(NS, job=jobs[4]).model_dump(include={"ns", "job", "at"})
        await own.append(JobClosed(**closed, id=uuid.uuid4().hex, status="killed"))
        async with own.queues(queues, _job()) as lane:
            assert lane == 5
        for number in range(1, LANES + 1):
            if number != 5:
                await api(own._wire, f"CONSUMER.DELETE.IL_{NS}.result-{number}-{CHECKER}")


async def test_a_worker_waits_for_its_queue(operator: BrokerAddress) -> None:
    """A worker that is there before its queue takes from it once it is made."""
    job = _job()
    async with (
        bus_of(operator, OPERATOR) as own,
        Bus.connect(login_of(operator, WORKER, 3), NS, "early") as worker,
        worker.pull("assigned", READER, 1, job=job) as deliveries,
    ):
        await own.append(assigned(NS, job=job))
        left = own._queue("assigned", READER, job, lane=3)
        name = f"{left.stream}.{left.consumer}"
        await api(own._wire, f"CONSUMER.CREATE.{name}", {"stream_name": left.stream, "config": left.config})
        with anyio.fail_after(10):
            delivery = await anext(deliveries)
        assert delivery.message.job == job
        await delivery.ack()
        await api(own._wire, f"CONSUMER.DELETE.{name}")
