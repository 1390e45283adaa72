"""``python -m tests.chaos.storm``: jobs of real processes in storms of ``kill -9``, judged from outside.

The last line is JSON. Exit status 1 where something was lost or done twice, or took too long to be taken over; then the
folder of that job is kept, with its log, and named.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from tests.chaos.storm.scenarios import SCENARIOS, Played
from tests.chaos.storm.stage import Stage, staged
from tests.oracle import Finding, judge

from interlock.runtime.config import ACK_WAIT

_ONCE = ("box.send",)
_RECOVERY_BOUND = ACK_WAIT + 2
_GAP_BOUND = 10.0
_MANAGERS = frozenset({"assigned", "closed", "accepted", "expanded"})
"""The kinds of entries that only managers write."""
_STOPPED = "could not be known whether it was killed"
_IN_FLIGHT = 0.3
_HELD_UP = 3.0
"""Seconds that a busy machine may hold a request up on its way to the model's server, whose time counts."""
_TOLD = 12


@dataclass(slots=True)
class Account:
    """What one scenario came to."""

    name: str
    finding: Finding = field(default_factory=Finding)
    faults: list[str] = field(default_factory=list)
    """Whatever else is wrong."""
    late: list[str] = field(default_factory=list)
    """What took longer than it may, or was not to be had on a machine that has a lot else to do."""
    recoveries: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    """Seconds from each kill of the broker to the next entry of the log."""
    managers: list[float] = field(default_factory=list)
    """Seconds from each kill of a manager alone to the next entry that a manager wrote."""
    stopped: bool = False
    """Whether the agents stopped by themselves, as they must where orders cannot be read; then tasks stay open."""
    kills: int = 0
    seconds: float = 0.0

    @property
    def offences(self) -> list[str]:
        """All that must not be, each a line."""
        lost = [f"lost: {one}" for one in self.finding.lost]
        return [*self.faults, *self.late, *lost, *(f"doubled: {one}" for one in self.finding.doubled)]

    @property
    def only_late(self) -> bool:
        """Whether nothing but time is the matter, which may have been the machine's."""
        if self.faults or self.finding.doubled or (self.finding.lost and not self.stopped):
            return False
        return bool(self.late)


def main() -> int:
    """Play the scenarios that were asked for, print what came of them, and return the exit status."""
    options = _options()
    accounts = anyio.run(_play_all, options)
    recoveries = [one for account in accounts for one in account.recoveries]
    gaps = [one for account in accounts for one in account.gaps]
    found = {
        "jobs": len(accounts),
        "items": sum(account.finding.items for account in accounts),
        "lost": sum(len(account.finding.lost) for account in accounts),
        "doubled": sum(len(account.finding.doubled) for account in accounts),
        "in_doubt": sum(account.finding.in_doubt for account in accounts),
        "recovery_p50_s": _quantile(recoveries, 0.5),
        "recovery_p99_s": _quantile(recoveries, 0.99),
        "broker_gap_max_s": _quantile(gaps, 1),
        "manager_gap_max_s": _quantile([one for account in accounts for one in account.managers], 1),
        "kills": sum(account.kills for account in accounts),
        "seed": options.seed,
        "failed": [account.name for account in accounts if account.offences],
    }
    print(json.dumps(found))  # noqa: T201 -- what it is for
    return int(any(account.offences and not (options.lenient and account.only_late) for account in accounts))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.storm", description="Jobs in storms of kill -9.")
    parser.add_argument("--seed", type=int, default=1, help="of the schedule of kills")
    parser.add_argument("--scenario", nargs="+", choices=list(SCENARIOS), help="default: all")
    parser.add_argument("--items", type=int, help="of each job (default: what each scenario needs)")
    parser.add_argument("--quick", action="store_true", help="smaller jobs")
    parser.add_argument(
        "--lenient", action="store_true", help="exit status 0 where time alone was the matter: for machines in use"
    )
    parser.add_argument("--json", action="store_true", help="only the last line")
    return parser.parse_args()


async def _play_all(options: argparse.Namespace) -> list[Account]:
    """Play all scenarios, some beside each other; one that mostly waits leaves the cores to the others."""
    accounts: dict[str, Account] = {}
    chosen = [name for name in SCENARIOS if name in (options.scenario or SCENARIOS)]
    idle = [name for name in chosen if SCENARIOS[name].idle]

    async def play(names: list[str], *, again: bool = False) -> None:
        for name in names:
            accounts[name] = await _play(name, options, again=again)

    async with anyio.create_task_group() as group:
        group.start_soon(play, idle)
        group.start_soon(play, [name for name in chosen if name not in idle])
    await play(
        [name for name in chosen if accounts[name].only_late], again=True
    )  # bounds of time get a second look, alone
    return [accounts[name] for name in chosen]


async def _play(name: str, options: argparse.Namespace, *, again: bool) -> Account:
    """Play one scenario in a folder of its own, which is kept where something is wrong."""
    scenario, account, began = SCENARIOS[name], Account(name), time.monotonic()
    items = options.items or (scenario.quick if options.quick else scenario.items)
    folder = Path(tempfile.mkdtemp(prefix=f"interlock-storm-{name}-"))
    dice = random.Random(f"{options.seed} {name}")  # noqa: S311 -- no secret
    try:
        await _play_in(folder, items, dice, account)
    except Exception as error:  # noqa: BLE001 -- told as what the scenario came to
        (account.faults if again else account.late).append(f"the scenario broke off: {_cause(error)!r}")
    account.seconds = time.monotonic() - began
    _tell(account, options, folder)
    if not account.offences:
        shutil.rmtree(folder, ignore_errors=True)
    return account


async def _play_in(folder: Path, items: int, dice: random.Random, account: Account) -> None:
    scenario = SCENARIOS[account.name]
    async with staged(folder, items, dice) as stage:
        played = None
        with anyio.move_on_after(scenario.seconds):
            played = await scenario.play(stage)
        if played is None:
            account.faults.append(f"not over after {scenario.seconds:g} s")
        await _judge(stage, played, account)


async def _judge(stage: Stage, played: Played | None, account: Account) -> None:
    if played is not None:
        (stage.folder / "stderr.log").write_text(played.err)
    lines = played.lines if played is not None else await stage.log()
    report = _outputs(played)
    account.finding = judge(lines, stage.expected, report, stage.made, _ONCE)
    account.recoveries = list(stage.recoveries(lines).values())
    account.gaps = _gaps([line.at for line in lines], (one.at for one in stage.kills if one.what == "broker"))
    decided = [line.at for line in lines if line.kind in _MANAGERS]
    account.managers = _gaps(decided, (one.at for one in stage.kills if one.what == "manager"), _IN_FLIGHT)
    account.kills = len(stage.kills) + len(stage.reached)
    for task, seconds in stage.paid_again(lines):
        told = f"{task}: a model was asked for what the log had for {seconds:.1f} s"
        (account.late if seconds < _HELD_UP else account.faults).append(told)
    account.late += [f"the broker was away for {gap:.1f} s" for gap in account.gaps if gap > _GAP_BOUND]
    account.late += [f"taken over after {one:.1f} s" for one in account.recoveries if one > _RECOVERY_BOUND]
    if played is not None:
        account.late += [f"did not happen: {one}" for one in played.missed]
        account.stopped = _STOPPED in played.err
        if account.stopped:
            account.late.append("the agents stopped by themselves: the broker was out of reach for too long")
        elif played.status:
            account.faults.append(f"exit status {played.status}")


def _outputs(played: Played | None) -> dict[str, object]:
    tasks = played.report.get("tasks", ()) if played else ()
    return {task["id"]: task["output"] for task in tasks if task["status"] == "accepted"}


def _gaps(times: Sequence[float], kills: Iterable[float], flying: float = 0.0) -> list[float]:
    """Return how long each kill kept the log from going on; nothing for one after which there was nothing to do.

    For so many seconds what the dead had sent may still be stored.
    """
    return [min(later) - kill for kill in kills if (later := [at for at in times if at > kill + flying])]


def _cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _quantile(values: Sequence[float], quantile: float) -> float | None:
    """Return the value that so many do not exceed; None without values."""
    if not values:
        return None
    return round(sorted(values)[min(len(values) - 1, int(len(values) * quantile))], 2)


def _tell(account: Account, options: argparse.Namespace, folder: Path) -> None:
    """Tell what the scenario came to, on standard error."""
    finding, offences = account.finding, account.offences
    if options.json and not offences:
        return
    recovery = _quantile(account.recoveries, 0.99)
    gap, manager = _quantile(account.gaps, 1), _quantile(account.managers, 1)
    print(  # noqa: T201 -- what it is for
        f"{account.name}: {finding.items} items, {finding.attempts} attempts, {account.kills} kills, "
        f"{finding.in_doubt} in doubt, {len(account.recoveries)} taken over (p99 {recovery} s), "
        f"gaps: broker {gap} s, manager {manager} s; "
        f"{account.seconds:.0f} s: {'FAILED' if offences else 'nothing lost, nothing twice'}",
        file=sys.stderr,
    )
    more = [f"  and {len(offences) - _TOLD} more"] if len(offences) > _TOLD else []
    repeat = f"  again: python -m tests.chaos.storm --scenario {account.name} --seed {options.seed}"
    told = [*(f"  {one}" for one in offences[:_TOLD]), *more, f"{repeat}; kept: {folder}"] if offences else []
    print("\n".join(told), end="\n" if told else "", file=sys.stderr, flush=True)  # noqa: T201 -- as above


if __name__ == "__main__":
    sys.exit(main())
