"""Budgets as the broker keeps them: no two processes are given the same call, and nothing is given back too much."""

import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from tests.cli import environment
from tests.integration.budgets.reserving_process import PROCESSES, TASKS, told
from tests.killable_broker import KillableBroker

from interlock.backends.chat import FREE, Meter
from interlock.backends.errors import BudgetSpent, ModelServerFailed, ModelTimedOut
from interlock.protocol.base import Usage
from interlock.protocol.messages import Allowance
from interlock.runtime.address import BrokerAddress
from interlock.runtime.budgets import Budgets
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BusError

_PROCESS = Path(__file__).with_name("reserving_process.py")
_JOB = "job-1"


def _meter(bus: Bus, *allowances: Allowance, patience: float = 5) -> Meter:
    return Budgets(bus.counters).meter(allowances, patience)


async def _send(meter: Meter, times: int, *, size: int = 10, most: int = 10, used: int | None = None) -> int:
    """Send so many requests at once and return how many could leave."""
    sent = 0

    async def send() -> None:
        nonlocal sent
        with suppress(BudgetSpent):
            async with meter.sending(size, most) as fare:
                sent += 1
                await anyio.lowlevel.checkpoint()
                if used is not None:
                    fare.used(Usage(calls=1, prompt_tokens=used))

    async with anyio.create_task_group() as group:
        for _ in range(times):
            group.start_soon(send)
    return sent


async def _reserved(ns: str, address: BrokerAddress, calls: int, *more: str) -> int:
    """Reserve in a process of its own until there is nothing left, and return how much it got."""
    command = [sys.executable, str(_PROCESS), ns, _JOB, str(calls), *more]
    done = await anyio.run_process(command, input=told(address).encode(), env=environment(), check=False)
    assert done.returncode == (-9 if more else 0), done.stderr.decode()
    return int(done.stdout)


async def test_processes_share_a_budget_to_the_last_call(bus: Bus, broker: BrokerAddress, ns: str) -> None:
    """Three processes that reserve at once, one of which is killed, get every call once and none too many."""
    got: list[int] = []

    async def reserve(*more: str) -> None:
        got.append(await _reserved(ns, broker, 400, *more))

    async with anyio.create_task_group() as group:
        group.start_soon(reserve, "die")
        for _ in range(PROCESSES - 1):
            group.start_soon(reserve)
    lost = 400 - sum(got)
    assert 0 <= lost <= TASKS, "only what the one that died had under way may be lost"
    assert await bus.counters.add(f"{_JOB}.calls", 0) == 400


async def test_a_killed_broker_forgets_no_reservation(killable_broker: KillableBroker, ns: str) -> None:
    """What was acknowledged before ``kill -9`` is counted after it, and no more calls leave than there were."""
    async with Bus.connect(killable_broker.address, ns, "test") as bus:
        meter = _meter(bus, Allowance(job=_JOB, calls=300))
        sent = 0

        async def send() -> None:
            nonlocal sent
            with suppress(BudgetSpent):
                while True:
                    async with meter.sending(1, 1):
                        sent += 1

        async with anyio.create_task_group() as group:
            for _ in range(TASKS):
                group.start_soon(send)
            for enough in (60, 140):
                while sent < enough:  # noqa: ASYNC110 -- a counter sets no event
                    await anyio.sleep(0.001)
                await killable_broker.kill()
                await killable_broker.restart()
        assert sent <= 300
        assert sent >= 300 - 2 * TASKS, "only what was under way when the broker died may be lost"
        assert await bus.counters.add(f"{_JOB}.calls", 0) >= 300


async def test_a_child_pays_from_every_job_around_it(bus: Bus) -> None:
    """Whoever of them is out first ends it, and a step's budget ends the step only."""
    around, inside = Allowance(job="a", calls=5), Allowance(job="a:1", calls=100)
    step = Allowance(job="a:1", step="s", calls=3)
    assert await _send(_meter(bus, around, inside, step), 10) == 3
    assert await _send(_meter(bus, around, inside), 10) == 2
    assert [await bus.counters.add(key, 0) for key in ("a.calls", "a:1.calls", "a:1.s.calls")] == [5, 5, 3]
    with pytest.raises(BudgetSpent, match=r"out of budget: 3 of 3 calls of step s of job a:1") as step_out:
        async with _meter(bus, step).sending(1, 1):
            pass
    with pytest.raises(BudgetSpent, match=r"out of budget: 5 of 5 calls of job a are") as job_out:
        async with _meter(bus, around, inside).sending(1, 1):
            pass
    assert (step_out.value.of, job_out.value.of) == ("step", "job")


async def test_tokens_are_reserved_and_settled_to_what_was_used(bus: Bus) -> None:
    """However many ask at once, what is used and reserved stays within the budget, and all of it can be used."""
    sent = await _send(_meter(bus, Allowance(job=_JOB, tokens=1000)), 60, size=50, most=100, used=40)
    used = await bus.counters.add(f"{_JOB}.used", 0)
    assert used == await bus.counters.add(f"{_JOB}.tokens", 0) == 40 * sent
    assert used <= 1000
    assert used + 50 + 100 > 1000, "whoever was refused could not have been let pass"


async def test_the_last_answer_is_asked_for_shorter(bus: Bus) -> None:
    """Where less is left than an answer may take it may take less; where that makes no sense it is not asked for."""
    meter = _meter(bus, Allowance(job=_JOB, tokens=1000))
    async with meter.sending(100, 1024) as fare:
        assert fare.max_tokens == 900
        fare.used(Usage(calls=1, prompt_tokens=50, completion_tokens=750))
    with pytest.raises(BudgetSpent, match="800 of 1000 tokens of job job-1"):
        async with meter.sending(100, 1024):
            pass


@pytest.mark.parametrize(
    ("error", "used"),
    [
        (ModelServerFailed("http://m", "m", 503, None, "no"), 0),
        (ModelTimedOut("http://m", "m", 1.0), 150),
    ],
    ids=["answered", "not answered"],
)
async def test_a_request_that_failed_is_paid_for_unless_no_model_worked(bus: Bus, error: Exception, used: int) -> None:
    """A refusal takes no tokens; where nobody knows what the engine did, it takes all that was reserved."""
    with pytest.raises(type(error)):
        async with _meter(bus, Allowance(job=_JOB, calls=9, tokens=1000)).sending(50, 100):
            raise error
    counted = [await bus.counters.add(f"{_JOB}.{unit}", 0) for unit in ("calls", "tokens", "used")]
    assert counted == [1, used, used], "the call counts in any case"


async def test_who_does_not_settle_holds_nobody_up_for_ever(bus: Bus) -> None:
    """Tokens that somebody reserved and died with are waited for as long as a request takes, and then given up."""
    await bus.counters.add(f"{_JOB}.tokens", 900)
    meter = _meter(bus, Allowance(job=_JOB, tokens=1000), patience=0.3)
    began = anyio.current_time()
    with pytest.raises(BudgetSpent, match="900 of 1000"):
        async with meter.sending(100, 200):
            pass
    assert anyio.current_time() - began >= 0.3
    async with meter.sending(20, 50) as fare:
        assert fare.max_tokens == 50


class _Watched:
    """Counters of which somebody wants to know when they are looked at."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.looked = anyio.Event()

    async def add(self, key: str, amount: int) -> int:
        """Add, and tell of a look."""
        total = await self._bus.counters.add(key, amount)
        if amount == 0:
            self.looked.set()
        return total


async def test_what_others_give_back_is_waited_for(bus: Bus) -> None:
    """A request for which there is no room now, but may be, leaves once somebody settled."""
    watched = _Watched(bus)
    meter = Budgets(watched).meter([Allowance(job=_JOB, tokens=1000)], 60)
    left: list[int] = []

    async def second() -> None:
        async with meter.sending(100, 300) as fare:
            left.append(fare.max_tokens)

    async with anyio.create_task_group() as group, meter.sending(100, 700) as fare:
        group.start_soon(second)
        await watched.looked.wait()
        assert left == []
        fare.used(Usage(calls=1, prompt_tokens=10))
    assert left == [300]


def test_nothing_is_asked_of_the_broker_where_nothing_is_limited(bus: Bus) -> None:
    """A job without a budget of calls or tokens costs no request."""
    nothing: Iterable[Allowance] = ()
    assert Budgets(bus.counters).meter(nothing, 5) is FREE
    assert Budgets(bus.counters).meter([Allowance(job=_JOB)], 5) is FREE


async def test_a_cancelled_request_is_settled(bus: Bus) -> None:
    """An attempt that runs out of time does not hold what it reserved: the engine may have used all of it."""
    with anyio.CancelScope() as scope:
        async with _meter(bus, Allowance(job=_JOB, tokens=1000)).sending(50, 100):
            scope.cancel()
            await anyio.sleep_forever()
    assert [await bus.counters.add(f"{_JOB}.{unit}", 0) for unit in ("tokens", "used")] == [150, 150]


async def test_the_counters_of_a_job_can_be_taken_away(bus: Bus) -> None:
    """With them go those of its steps, and not those of others."""
    for key in ("a.calls", "a.s.calls", "a:1.calls", "ab.tokens"):
        await bus.counters.add(key, 1)
    assert await bus.counters.jobs() == {"a", "a:1", "ab"}
    await bus.counters.forget("a")
    assert await bus.counters.jobs() == {"a:1", "ab"}


async def test_who_may_not_count_is_told(bus: Bus) -> None:
    """A key that is no counter's is refused at once."""
    with pytest.raises(BusError):
        await bus.counters.add("", 1)
