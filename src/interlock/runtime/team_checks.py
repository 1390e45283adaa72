"""Whether what a team file says fits together, with the place of each mistake in the file."""

from dataclasses import dataclass, field
from pathlib import Path

from interlock.agents.plan_checks import Flaw, PlanChecks
from interlock.protocol.team import ModelSettings, Team
from interlock.runtime.input_types import default_problem
from interlock.runtime.team_models import model_problems
from interlock.runtime.team_shape import Shape
from interlock.runtime.team_tools import check_tools
from interlock.runtime.yaml_positions import Document, Location, Position

__all__ = ["Checked", "check_team"]


@dataclass
class Checked:
    """What the checks found out about a team."""

    problems: list[tuple[Position, str]] = field(default_factory=list)
    needs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """For each step the steps that must be over before it, those that its templates name included."""
    result_steps: tuple[str, ...] = ()
    """The steps that the job's result is made of."""
    inputs_used: frozenset[str] = frozenset()
    """The inputs that templates name."""


def check_team(team: Team, document: Document, shape: Shape, base: Path) -> Checked:
    """Return every mistake of meaning in a team that has the right shape, and what its templates imply.

    :param base: the absolute folder of the team file
    """
    checks = _Checks(team, document, shape, base)
    checks.run()
    return checks.checked


class _Checks:
    def __init__(self, team: Team, document: Document, shape: Shape, base: Path) -> None:
        self.checked = Checked()
        self._base = base
        self._team = team
        self._document = document
        self._shape = shape
        self._plan = PlanChecks(team, mended=shape.mended)
        self._agents_left_out = any(at[0] == "agents" for at in shape.mended if len(at) in {1, 2})
        self._guessed_kinds = any(shape.is_mended("agents", name, "kind") for name in team.agents)

    def run(self) -> None:
        """Check everything, in the order of the file as far as that is possible."""
        self._models()
        self._inputs()
        self._verifiers()
        self._planning()
        self._plan.run()
        for flaw in self._plan.flaws:
            self.checked.problems.append((self._document.at_line(flaw.at, flaw.line), self._told(flaw)))
        self.checked.needs, self.checked.result_steps = self._plan.needs, self._plan.result_steps
        self.checked.inputs_used = frozenset(self._plan.inputs_used)
        self._tools()

    def _told(self, flaw: Flaw) -> str:
        """Return what is wrong as it is said of a file, which has lines."""
        if not flaw.step:
            return flaw.message
        first = self._document.at(("plan", flaw.first, "step"))
        return f"step {flaw.step!r} is defined twice, first in line {first.line}: rename one of them"

    def _say(self, message: str, *location: str | int, line: int = 1) -> None:
        if not self._shape.is_mended(*location):
            self.checked.problems.append((self._document.at_line(location, line), message))

    # --- the team

    def _models(self) -> None:
        self._model(("model",), self._team.model)
        for name, agent in self._team.agents.items():
            if agent.model is not None:
                self._model(("agents", name, "model"), agent.model)

    def _model(self, at: Location, model: ModelSettings) -> None:
        for inner, message in model_problems(model):
            self._say(message, *at, *inner)

    def _inputs(self) -> None:
        for name, spec in self._team.inputs.items():
            if spec.default is not None and (problem := default_problem(spec)):
                self._say(f"the default of input {name!r}: {problem}", "inputs", name, "default")

    def _verifiers(self) -> None:
        if not (self._agents("verifier") or self._agents_left_out or self._guessed_kinds):
            position = self._document.at_key(("agents",))
            message = "no agent of the team is a verifier: nothing that a worker does can be accepted without one"
            self.checked.problems.append((position, message))

    def _agents(self, kind: str) -> list[str]:
        return [name for name, agent in self._team.agents.items() if agent.kind == kind]

    def _planning(self) -> None:
        """Check what a team needs whose plan is not written down, or is written anew."""
        managers = self._agents("manager")
        if len(managers) > 1:
            message = f"the team has {len(managers)} managers ({', '.join(managers)}), and one plans: leave one out"
            self._say(message, "agents", managers[1], "kind")
        if self._team.plan:
            return
        if isinstance(self._document.value, dict) and "plan" in self._document.value:
            self._say("'plan' has no steps: write some, or leave it out, and the manager plans from the goal", "plan")
        if not (self._agents("worker") or self._agents("team") or self._agents_left_out or self._guessed_kinds):
            position = self._document.at_key(("agents",))
            message = "the team has no plan, and no worker that its manager could plan for: give it one of the two"
            self.checked.problems.append((position, message))

    # --- tools

    def _tools(self) -> None:
        for at, message in check_tools(self._team, self._base, self.checked.needs, self._shape.mended).problems:
            if at[-2:-1] == ("pin",) and not self._shape.is_mended(*at):
                self.checked.problems.append((self._document.at_key(at), message))
            else:
                self._say(message, *at)
