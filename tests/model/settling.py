"""Settling, at any time, changes nothing of what is decided and nothing of what follows."""

from dataclasses import replace
from typing import Any

from tests.model.laws import Violation
from tests.model.world import NOW, World

__all__ = ["check_settling"]


def check_settling(world: World, before: Any, entry: Any) -> None:
    """Check that ``entry`` does to ``before`` what it does where accepted items were settled, each alone and all.

    What holds for one entry holds for every log, whenever and whatever is settled.

    :raises Violation: something differs
    """
    after = world.core.evolve(before, entry)
    accepted = [task.id for task in before.tasks.values() if task.outcome == "accepted" and task.index is not None]
    for some in ([one] for one in accepted) if len(accepted) > 1 else ():
        _compare(world, _settled(world, before, some), entry, after)
    if accepted:
        _compare(world, _settled(world, before, accepted), entry, after)


def _compare(world: World, lean: Any, entry: Any, after: Any) -> None:
    following = world.core.evolve(lean, entry)
    if _bare(_all_settled(world, following)) != _bare(_all_settled(world, after)):
        raise Violation("a state with settled items follows the log as any other", str(entry.message))
    for killed in (None, "stop"):
        said = world.core.decide.decide(following, NOW, killed=killed)
        if sorted(map(repr, said)) != sorted(map(repr, world.core.decide.decide(after, NOW, killed=killed))):
            raise Violation("a state with settled items is decided on as any other", str(said))


def _all_settled(world: World, state: Any) -> Any:
    return _settled(world, state, list(state.tasks))


def _settled(world: World, state: Any, tasks: list[str]) -> Any:
    for task in tasks:
        state = world.core.machine.settle(state, task)
    return state


def _bare(state: Any) -> Any:
    """Return a state without the bounds of chains that are over: what was refused there moves only what is kept."""
    for name, step in state.steps.items():
        state = replace(state, steps=state.steps.insert(name, replace(step, settled_head=0, settled_taint=())))
    return state
