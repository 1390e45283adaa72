"""The code under test, as it is or with one guard taken out.

The searches run the real ``evolve`` and ``decide``. To show that each of their guards matters, the same modules
are loaded from a changed source text, and the searches must then find what goes wrong.
"""

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interlock.protocol import decide, deciding_plans, evolving_effects, machine, planning, retries, state

__all__ = ["REAL", "Core", "Mutation", "mutated"]

_MODULES = {
    "state": state,
    "planning": planning,
    "deciding_plans": deciding_plans,
    "evolving_effects": evolving_effects,
    "decide": decide,
    "retries": retries,
    "machine": machine,
}
"""Each after those that it imports."""


@dataclass(frozen=True)
class Core:
    """The pure functions that a search runs: the modules, real or mutated."""

    state: Any
    planning: Any
    deciding_plans: Any
    evolving_effects: Any
    decide: Any
    retries: Any
    machine: Any

    @property
    def evolve(self) -> Callable[..., Any]:
        """``interlock.protocol.machine.evolve``, possibly mutated."""
        function: Callable[..., Any] = self.machine.evolve
        return function


@dataclass(frozen=True)
class Mutation:
    """One change of the source: ``old``, which must stand there exactly once, becomes ``new``."""

    module: str
    old: str
    new: str


class MutationOutdated(AssertionError):
    """The source no longer holds the text that a mutation changes."""

    def __init__(self, mutation: Mutation, count: int) -> None:
        super().__init__(
            f"{mutation.module}.py holds {mutation.old!r} {count} times, not once: bring the mutation up to date"
        )


REAL = Core(state, planning, deciding_plans, evolving_effects, decide, retries, machine)


def mutated(*mutations: Mutation) -> Core:
    """Return the core with ``mutations`` applied.

    :raises MutationOutdated: a text to change does not stand in the source exactly once
    """
    with _restored():
        modules = {}
        for name in _MODULES:
            modules[name] = _load(name, [one for one in mutations if one.module == name])
        return Core(**modules)


@contextmanager
def _restored() -> Iterator[None]:
    try:
        yield
    finally:
        sys.modules.update({f"interlock.protocol.{name}": module for name, module in _MODULES.items()})


def _load(name: str, mutations: list[Mutation]) -> types.ModuleType:
    path = Path(str(_MODULES[name].__file__))
    source = path.read_text(encoding="utf-8")
    for mutation in mutations:
        if source.count(mutation.old) != 1:
            raise MutationOutdated(mutation, source.count(mutation.old))
        source = source.replace(mutation.old, mutation.new)
    full = f"interlock.protocol.{name}"
    module = types.ModuleType(full)
    module.__file__ = str(path)
    sys.modules[full] = module  # dataclasses look their module up; those after it import the mutated one from here
    exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102  (our own source with one line changed)
    return module
