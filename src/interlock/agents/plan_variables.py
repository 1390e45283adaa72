"""Which variables a template of a plan may use, and what to say about one that is not there."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from interlock.agents.spelling import did_you_mean
from interlock.agents.templates import TemplateInvalid, find_references, is_expression
from interlock.protocol.team import Files, Step, Team

__all__ = ["Use", "Variables"]

_FILE = ("path", "name", "text")
_OF_ONE = ("output", "failed", "total", "problem")
_OF_ITEMS = ("outputs", "results", "failures", "failed", "total", "problem")
_LISTS = frozenset({"array", "files", "jsonl"})
_SCALARS = frozenset({"string", "number", "integer", "boolean"})


@dataclass(frozen=True)
class Use:
    """Where a template stands: in a step, or in the team's ``result`` if ``step`` is None."""

    step: Step | None
    item: bool = True
    """Whether ``item`` and ``index`` are there, given that the step has a ``for_each``."""


class Variables:
    """What the templates of one team can name."""

    def __init__(self, team: Team, given: Collection[str] | None = None) -> None:
        """Know the variables of ``team``; ``given`` are the inputs of its job, None where there is none yet."""
        self._team = team
        self._given = given
        self._steps = {step.step: step for step in team.plan}

    def problem(self, path: tuple[str, ...], use: Use) -> str:
        """Return what is wrong with a variable and what would be right; empty if nothing is."""
        match path:
            case ("goal", *deeper):
                return f"'goal' is text: it has no {deeper[0]!r}" if deeper else ""
            case ("inputs", *rest):
                return self._input(rest)
            case ("item" | "index" as name, *rest):
                return self._item(name, rest, use)
            case ("steps", *rest):
                return self._step(rest, use)
            case _:
                return self._unknown(path[0], use)

    def _input(self, rest: list[str]) -> str:
        if rest and not self._team.inputs and self._given is not None:
            return self._given_input(rest[0], self._given)
        if not rest or not self._team.inputs:
            return ""
        name, *deeper = rest
        if name not in self._team.inputs:
            known = self._team.inputs
            return f"there is no input {name!r}" + (_subscript("inputs", name, known) or _near(name, known, "inputs"))
        kind = self._team.inputs[name].type
        if deeper and kind in _LISTS:
            return f"'inputs.{name}' is a list: {deeper[0]!r} is in its entries, so use for_each or a loop"
        return f"'inputs.{name}' is a {kind}: it has no {deeper[0]!r}" if deeper and kind in _SCALARS else ""

    def _given_input(self, name: str, given: Collection[str]) -> str:
        if name in given:
            return ""
        return f"there is no input {name!r}" + (_near(name, given, "inputs") if given else "; the job has none")

    def _item(self, name: str, rest: list[str], use: Use) -> str:
        if use.step is None or use.step.for_each is None:
            return f"{name!r} is only there in a step with for_each"
        if not use.item:
            return f"{name!r} is not there yet: for_each makes it"
        if name == "index":
            return f"'index' is a number: it has no {rest[0]!r}" if rest else ""
        if rest and self._is_file(use.step) and rest[0] not in _FILE:
            return f"an item made of a file has no {rest[0]!r}" + _near(rest[0], _FILE, "it has")
        return ""

    def _is_file(self, step: Step) -> bool:
        if not isinstance(step.for_each, str):
            return isinstance(step.for_each, Files)
        try:
            paths = [reference.path for reference in find_references(step.for_each)]
            plain = step.for_each.strip(" {}-\n").split(".") if is_expression(step.for_each) else []
        except TemplateInvalid:
            return False
        match paths:
            case [("inputs", name) as path]:
                return list(path) == plain and name in self._team.inputs and self._team.inputs[name].type == "files"
            case _:
                return False

    def _step(self, rest: list[str], use: Use) -> str:
        if not rest:
            return "" if use.step is None else "say which step: steps.NAME, so that it is known what must be over first"
        name, *member = rest
        if not self._steps:
            return f"there is no step {name!r}: the manager makes the steps from the goal, so nothing can name one"
        if name not in self._steps:
            return f"there is no step {name!r}" + (
                _subscript("steps", name, self._steps) or _near(name, self._steps, "steps")
            )
        if use.step is not None and name == use.step.step:
            return f"step {name!r} refers to itself: its own output is not there while it runs"
        return self._member(self._steps[name], member) if member else ""

    def _member(self, step: Step, rest: list[str]) -> str:
        member, *deeper = rest
        known = _OF_ITEMS if step.for_each is not None else _OF_ONE
        if member not in known:
            if member in {"output", "outputs"}:
                has = "a for_each, so there are 'outputs'" if step.for_each is not None else "no for_each: use 'output'"
                return f"'steps.{step.step}.{member}': step {step.step!r} has {has}"
            return f"'steps.{step.step}' has no {member!r}" + _near(member, known, "it has")
        return self._output(step, deeper[0]) if member == "output" and deeper else ""

    def _output(self, step: Step, name: str) -> str:
        if step.output is None:
            return f"the output of step {step.step!r} is text: it has no {name!r}"
        if name in step.output:
            return ""
        return f"the output of step {step.step!r} has no {name!r}" + _near(name, step.output, "it has")

    def _unknown(self, name: str, use: Use) -> str:
        if name in self._team.inputs or name in (self._given or ()):
            return f"there is no variable {name!r}: did you mean 'inputs.{name}'?"
        if name in self._steps:
            member = "outputs" if self._steps[name].for_each is not None else "output"
            return f"there is no variable {name!r}: did you mean 'steps.{name}.{member}'?"
        known = ["goal", "inputs", "steps"]
        if use.step is not None and use.step.for_each is not None and use.item:
            known += ["item", "index"]
        return f"there is no variable {name!r}" + _near(name, known, "variables")


def _near(word: str, known: Iterable[str], what: str) -> str:
    names = list(known)
    return did_you_mean(word, names) or f"; {what}: {', '.join(names)}"


def _subscript(owner: str, name: str, known: Iterable[str]) -> str:
    """Return how to write a name with a ``-``, which templates read as a minus; empty if that is not it."""
    whole = next((one for one in known if one.startswith(f"{name}-")), None)
    return f": write {owner}['{whole}'], since '-' means minus here" if whole else ""
