"""How the agents of a team are shared out between the jobs that want them at the same time. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from interlock.protocol.items import Priority

__all__ = ["WEIGHTS", "Wish", "shares"]

WEIGHTS: Mapping[Priority, int] = {"low": 1, "normal": 4, "high": 16}
"""How a job's share grows with its priority: nobody is starved, and a high one gets 16 times what a low one gets."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What one job would like to have."""

    limit: int
    """The most tasks that it may have open at once, from 1."""
    weight: int
    """How it counts against the others, from 1."""


def shares(wishes: Mapping[str, Wish], room: int) -> dict[str, int]:
    """Return how many tasks each job may have open, when ``room`` tasks can be open together.

    Each gets its part by weight (weighted max-min fairness): what one cannot use goes to the others. Nobody gets less
    than one, even where there is less room than jobs.
    """
    given: dict[str, int] = {}
    left, waiting = room, dict(wishes)
    while waiting:
        weights = sum(wish.weight for wish in waiting.values())
        modest = {job: wish.limit for job, wish in waiting.items() if wish.limit * weights <= left * wish.weight}
        if not modest:
            return {**given, **_by_weight(waiting, left, weights)}
        given |= modest
        left -= sum(modest.values())
        waiting = {job: wish for job, wish in waiting.items() if job not in modest}
    return given


def _by_weight(waiting: Mapping[str, Wish], left: int, weights: int) -> dict[str, int]:
    """Share ``left`` out between jobs that all want more: the remainders go to the heaviest, then by name."""
    given = {job: max(0, left) * wish.weight // weights for job, wish in waiting.items()}
    spare = max(0, left) - sum(given.values())
    for job in sorted(waiting, key=lambda name: (-waiting[name].weight, name))[:spare]:
        given[job] += 1
    return {job: max(1, number) for job, number in given.items()}
