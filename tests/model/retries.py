"""What tasks that failed and were put back mean for the laws, said about the log alone."""

from typing import NamedTuple

from tests.model.planning import stage_of
from tests.model.world import ROOT, Fact, Heads, World

from interlock.protocol.plan import parse_task_id

__all__ = ["Again", "Log", "chain_ends", "objection", "put_back", "step_of"]

Log = tuple[tuple[int, int], ...]
"""The order of all entries: pairs of a chain and a node."""


class Again(NamedTuple):
    """The last time that a task was put back."""

    start: int
    """How many entries its chain had."""
    attempts: int
    """The number of the last attempt before; 0 for the items of a step that was counted again, which may be others."""


def put_back(world: World, log: Log) -> dict[int, Again]:
    """Return for each chain of a task that was put back when that was."""
    found: dict[int, Again] = {}
    for place, (chain, node) in enumerate(log):
        fact = world.tree.fact[node]
        if chain == 0 and fact.kind == "retried" and _followed(world, log[:place], log[: place + 1]):
            heads = _heads(world, log[:place])
            for one in _touched(world, heads, fact):
                found[one] = Again(world.tree.depth[heads[one]], _attempts(world, heads, one, fact))
    return found


def _attempts(world: World, heads: Heads, chain: int, fact: Fact) -> int:
    step = next(one for one in world.scenario.all_steps if one.step == step_of(world, chain))
    if step.for_each is not None and step.step in _dependants(world, fact):
        return 0
    assigned = (one.attempt for one in world.tree.facts(heads[chain]) if one.kind == "assigned")
    return max(assigned, default=0)


def chain_ends(world: World, heads: Heads, again: dict[int, Again]) -> list[Fact]:
    """Return the last entry of each chain; that of a task that was put back and not begun again says so."""
    return [
        Fact("put back") if chain in again and again[chain].start == world.tree.depth[head] else world.tree.fact[head]
        for chain, head in enumerate(heads[: world.past_tasks])
    ]


def objection(world: World, log: Log, fact: Fact) -> str:
    """Return which law forbids to put back what ``fact`` names after ``log``, or an empty string."""
    heads = _heads(world, log)
    ends, job = chain_ends(world, heads, put_back(world, log)), world.tree.facts(heads[0])
    if any((one.kind, one.detail) == ("rejected", "") for one in job) or not any(one.kind == "planned" for one in job):
        return "a job without a plan that stands is not taken up"
    if any((one.kind, one.detail) == ("ended", "killed") for one in job):
        return "a killed job is not taken up"
    steps = {one.step for one in world.scenario.version(stage_of(job).version)}
    if any(task.partition(":")[0] not in steps for task in fact.detail.split(",")):
        return "nothing is put back that the plan has dropped"
    named = [ends[world.index[task]] for task in fact.detail.split(",")]
    if any(one.kind != "closed" or one.detail == "accepted" for one in named):
        return "only what failed is put back"
    for name in _dependants(world, fact):
        own = [one for chain, one in enumerate(ends) if chain and step_of(world, chain) == name]
        step = next(one for one in world.scenario.all_steps if one.step == name)
        needs = [one for chain, one in enumerate(ends) if chain and step_of(world, chain) in step.needs]
        ready = all(one.kind == "closed" for one in needs)
        if ready and name not in _blocked(world, log) and any(one.kind != "closed" for one in own):
            return "nothing is put back while what needs it is at work"
        if step.for_each is not None and any(one.detail == "accepted" for one in own):
            return "accepted items are not made again"
    return ""


def step_of(world: World, chain: int) -> str:
    """Return the step of the task that a chain is about."""
    return parse_task_id(world.chains[chain])[0]


def _followed(world: World, before: Log, after: Log) -> bool:
    refused: int = world.state_of_log(before).refused
    return bool(world.state_of_log(after).refused == refused)


def _heads(world: World, log: Log) -> Heads:
    heads = [ROOT] * len(world.chains)
    for chain, node in log:
        heads[chain] = node
    return tuple(heads)


def _blocked(world: World, log: Log) -> set[str]:
    """Return the steps that were found to have no items for want of what they need."""
    found: set[str] = set()
    for place, (chain, node) in enumerate(log):
        fact = world.tree.fact[node]
        if chain == 0 and fact.kind == "expanded" and fact.detail.endswith("=blocked"):
            found.add(fact.detail.partition("=")[0])
        elif chain == 0 and fact.kind == "retried" and _followed(world, log[:place], log[: place + 1]):
            found -= set(_dependants(world, fact))
    return found


def _touched(world: World, heads: Heads, fact: Fact) -> list[int]:
    """Return the chains of the tasks that ``fact`` puts back, and of those that are made again with them."""
    named, again = fact.detail.split(","), _dependants(world, fact)
    return [
        chain
        for chain in range(1, world.past_tasks)
        if world.chains[chain] in named
        or (step_of(world, chain) in again and world.tree.fact[heads[chain]].kind == "closed")
    ]


def _dependants(world: World, fact: Fact) -> list[str]:
    """Return the steps that need the step of a task that ``fact`` names, directly or not."""
    found = {task.partition(":")[0] for task in fact.detail.split(",")}
    again: list[str] = []
    for one in world.scenario.all_steps:  # each stands after what it needs
        if found & set(one.needs):
            found.add(one.step)
            again.append(one.step)
    return again
