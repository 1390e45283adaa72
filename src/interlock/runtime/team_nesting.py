"""Teams within a team file: read from their own files, put into the team, and every mistake told where it stands."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from interlock.agents.children import teams_of
from interlock.protocol.team import Agent, Team
from interlock.runtime.yaml_positions import Location

__all__ = ["Nesting", "Reading"]

_OWN = ("prompt", "model", "strategy", "redo")
"""What a team says in its own file, and not whoever has it for an agent."""


class _Loaded(Protocol):
    @property
    def team(self) -> Team:
        """The team of a file."""
        ...


_L = TypeVar("_L", bound=_Loaded)


@dataclass(frozen=True)
class Reading(Generic[_L]):
    """The files that are being read: a team's, and those that it is within."""

    load: Callable[[Path, "Reading[_L]"], _L]
    """Reads a file; what it raises is for whoever wants the file."""
    around: tuple[Path, ...] = ()
    """Resolved, the outermost first."""
    read: dict[Path, _L] = field(default_factory=dict[Path, _L])
    """What was read already."""

    def inner(self, path: Path) -> "_L | None":
        """Return what a file within the last of these holds; None where that one is within it.

        :raises Exception: what ``load`` raises
        """
        if path in self.around:
            return None
        if path not in self.read:
            self.read[path] = self.load(path, self)
        return self.read[path]

    def within(self, path: Path) -> "Reading[_L]":
        """Return the reading of what is within a file."""
        return Reading(self.load, (*self.around, path.resolve()), self.read)


@dataclass
class Nesting(Generic[_L]):
    """A team with the teams within it, and what is wrong with these as agents."""

    team: Team
    inner: dict[str, _L] = field(default_factory=dict[str, _L])
    """By agent."""
    problems: list[tuple[Location, str]] = field(default_factory=list[tuple[Location, str]])
    failures: list[Exception] = field(default_factory=list[Exception])
    """What loading raised; it tells of mistakes in other files."""

    @classmethod
    def of(cls, team: Team, home: Path, reading: Reading[_L], fails: type[Exception]) -> "Nesting[_L]":
        """Return ``team``, whose file lies in the folder ``home``, with the teams of its agents in it.

        ``fails`` is what ``reading`` raises where a file has mistakes.
        """
        nesting = cls(team)
        agents = {name: nesting._agent(name, agent, home, reading, fails) for name, agent in team.agents.items()}
        nesting.team = team.model_copy(update={"agents": agents})
        nesting._check_names()
        nesting._check_depth()
        return nesting

    def _agent(self, name: str, agent: Agent, home: Path, reading: Reading[_L], fails: type[Exception]) -> Agent:
        if agent.kind != "team":
            if agent.team is not None:
                self._say(f"agent {name!r} is a {agent.kind}: only an agent of kind team has a team", name, "team")
            return agent
        for key in _OWN:
            if getattr(agent, key) != Agent.model_fields[key].default:
                self._say(f"agent {name!r} is a team: {key!r} is for its own file to say", name, key)
        if not isinstance(agent.team, str):
            self._say(f"agent {name!r} is a team: name its file, such as 'team: ./{name}.yaml'", name)
            return agent
        loaded = self._load(name, (home / agent.team).resolve(), agent.team, reading, fails)
        if loaded is None:
            return agent
        self.inner[name] = loaded
        return agent.model_copy(update={"team": loaded.team})

    def _load(self, name: str, path: Path, written: str, reading: Reading[_L], fails: type[Exception]) -> _L | None:
        if not path.is_file():
            self._say(f"there is no file {written!r} beside this one (looked for {path})", name, "team")
            return None
        try:
            loaded = reading.inner(path)
        except fails as error:
            self.failures.append(error)
            return None
        if loaded is None:
            circle = " -> ".join(one.name for one in (*reading.around[reading.around.index(path) :], path))
            self._say(f"this team would be within itself: {circle}", name, "team")
        return loaded

    def _check_names(self) -> None:
        """See that a name stands for one team: queues and orders know teams by their names."""
        known: dict[str, Team] = {self.team.team: self.team}
        for name, loaded in self.inner.items():
            for one in teams_of(loaded.team):
                if known.setdefault(one.team, one) != one:
                    self._say(f"two different teams are called {one.team!r}: rename one of them", name, "team")

    def _check_depth(self) -> None:
        most = self.team.limits.depth
        for name, loaded in self.inner.items():
            levels = 1 + _levels(loaded.team)
            if levels > most:
                message = f"this makes {levels} levels of teams, and limits.depth is {most}: raise it, or nest less"
                self._say(message, name, "team")

    def _say(self, message: str, *at: str) -> None:
        self.problems.append((("agents", *at), message))


def _levels(team: Team) -> int:
    inner: Mapping[str, Team] = {name: one.team for name, one in team.agents.items() if isinstance(one.team, Team)}
    return 1 + max(map(_levels, inner.values()), default=0)
