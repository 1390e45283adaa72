"""What the templates of a job see: inputs, items, and what steps delivered. Only as much of it as they use is at hand.

No list of items that stands in the object store is ever held here, nor are outputs of items that were settled.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from interlock.agents.grants import input_texts, pinned_texts, uses_of
from interlock.agents.shelf import NotBrought, Outputs, Places, Shelf, Stream, Wanted, standing
from interlock.agents.templates import evaluate, variable
from interlock.agents.uses import Uses, uses_in
from interlock.protocol.base import Json
from interlock.protocol.criteria import templates_of
from interlock.protocol.items import Chunk, StoredItems
from interlock.protocol.messages import JobSubmitted
from interlock.protocol.state import JobState, StepState
from interlock.protocol.team import Handover, Step

__all__ = ["NotAList", "Scopes"]

_Kept = tuple[object, list[Json]]
"""A list, and the ends of steps that it was made of."""


class NotAList(TypeError):
    """A ``for_each`` gave something else than a list."""

    def __init__(self, value: object) -> None:
        super().__init__(f"expected a list, got {type(value).__name__} {str(value)[:80]!r}")


class Scopes:
    """The scopes of one job's templates, and what has to be brought to make them."""

    def __init__(self, submitted: JobSubmitted) -> None:
        self._submitted = submitted
        self._uses: dict[str, Uses] = {}
        self._places: dict[str, Places] = {}
        """By step: where its stored items are."""
        self._lists: dict[str, _Kept] = {}
        """By step: the items that its template gave, where they are few."""
        self._outputs: dict[str, tuple[object, Outputs]] = {}
        """By step: what it delivered, where the state holds all of it."""
        self._failures: dict[str, _Kept] = {}

    def wanted_by_task(self, state: JobState, step: Step, index: int | None) -> Wanted:
        """Return what an assignment of a task is made of."""
        wants = _Wants()
        self._want_scope(wants, state, self._uses_of_task(step), step.needs)
        if index is not None:
            self._want_items(wants, state, step, (index,))
        return wants.all()

    def wanted_by_expansion(self, state: JobState, step: Step) -> Wanted:
        """Return what the items of a step are worked out from."""
        wants = _Wants()
        if self.stored(state, step) is not None or not isinstance(step.for_each, str):
            return wants.all()
        stream = self._stream(state, step.for_each)
        if stream is None:
            self._want_scope(wants, state, uses_in([step.for_each]), step.needs)
        elif stream.member == "results" and stream.items is None:
            of = state.steps[stream.step]
            self._want_items(wants, state, of.spec, None)
        return wants.all(stream=stream)

    def wanted_by_template(self, state: JobState, template: str) -> Wanted:
        """Return what a template over all steps, such as that of the result, is rendered from."""
        wants = _Wants()
        self._want_scope(wants, state, uses_in([template]), state.order)
        return wants.all()

    def wanted_by_outputs(self, state: JobState, steps: Iterable[str], bound: int) -> Wanted:
        """Return what there is to bring of the outputs of ``steps``, if those of one are no more than ``bound``."""
        wants = _Wants()
        for name in steps:
            if _is_settled(state.steps[name]):
                wants.outputs[name] = None
        return wants.all(bound=bound)

    def of_task(self, state: JobState, step: Step, index: int | None, shelf: Shelf) -> Mapping[str, Json]:
        """Return what the templates of a task see.

        :raises NotBrought: something that they use is not on the shelf
        :raises TemplateError: the template of a list fails
        :raises NotAList: it gives no list
        """
        scope = self._scope(state, self._uses_of_task(step), step.needs, shelf)
        if index is None:
            return scope
        return {**scope, "item": self._item(state, step, index, shelf), "index": index}

    def evaluated(self, state: JobState, template: str, shelf: Shelf) -> Json:
        """Return what a template over all steps gives.

        :raises NotBrought: something that it uses is not on the shelf
        :raises TemplateError: it fails
        """
        return evaluate(template, self._scope(state, uses_in([template]), state.order, shelf))

    def worked_out(self, state: JobState, step: Step, shelf: Shelf) -> list[Json]:
        """Return the items that the template of a step gives, and keep nothing of them.

        :raises NotBrought: something that it uses is not on the shelf
        :raises TemplateError: it fails
        :raises NotAList: it gives no list
        """
        value: Any = step.for_each
        if isinstance(value, str):
            value = evaluate(value, self._scope(state, uses_in([value]), step.needs, shelf))
        if not isinstance(value, list | tuple):
            raise NotAList(value)
        return list(value)

    def items(self, state: JobState, step: Step, shelf: Shelf) -> Sequence[Json]:
        """Return the items of a step that are not stored; they never change once all that it needs is over.

        :raises NotBrought: something that its template uses is not on the shelf
        :raises TemplateError: its template fails
        :raises NotAList: it gives no list
        """
        if isinstance(step.for_each, tuple):
            return step.for_each
        known = self._known_items(state, step)
        return self.keep(state, step, self.worked_out(state, step, shelf)) if known is None else known

    def keep(self, state: JobState, step: Step, items: Sequence[Json]) -> list[Json]:
        """Keep the items that the template of a step gave, and return them."""
        self._lists[step.step] = _standing_of(state, step.needs), list(items)
        return self._lists[step.step][1]

    def stored(self, state: JobState, step: Step) -> StoredItems | None:
        """Return where the items of a step are in the object store; None where they are not."""
        if step.step in self._submitted.items:
            return self._submitted.items[step.step]
        if isinstance(step.for_each, str):
            match variable(step.for_each):
                case ("inputs", name) if name in self._submitted.stored:
                    return self._submitted.stored[name]
                case _:
                    pass
        known = state.steps.get(step.step)
        return known.stored if known else None

    def outputs(self, state: JobState, name: str, shelf: Shelf) -> Outputs:
        """Return the accepted outputs of a step of many tasks.

        :raises NotBrought: the state does not hold them, and the shelf has them not
        """
        step = state.steps[name]
        if _is_settled(step):
            if name not in shelf.outputs:
                raise NotBrought(f"what {name} delivered", shelf.missing)
            return shelf.outputs[name]
        known = self._outputs.get(name)
        if known is not None and step.complete and known[0] == standing(step):
            return known[1]
        accepted = (task for task in state.tasks_of(name) if task.outcome == "accepted")
        outputs = Outputs((task.index or 0, task.output) for task in accepted)
        if step.complete:
            self._outputs[name] = standing(step), outputs
        return outputs

    def _uses_of_task(self, step: Step) -> Uses:
        if step.step not in self._uses:
            agents = [step.agent, *([step.on_failure.agent] if isinstance(step.on_failure, Handover) else [])]
            tools = [use for name in agents for use in uses_of(step, self._submitted.team.agents[name])]
            criteria = [text for criterion in step.verify.criteria for text in templates_of(criterion)]
            self._uses[step.step] = uses_in([step.do, *input_texts(step), *pinned_texts(tools), *criteria])
        return self._uses[step.step]

    def _stream(self, state: JobState, for_each: str) -> Stream | None:
        """Return which outputs a template gives as they are, where these are many."""
        match variable(for_each):
            case ("steps", name, "outputs" | "results" as member) if name in state.steps:
                step = state.steps[name]
                if not _is_settled(step):
                    return None
                chosen: Literal["outputs", "results"] = "outputs" if member == "outputs" else "results"
                return Stream(name, chosen, self.stored(state, step.spec) if chosen == "results" else None)
            case _:
                return None

    def _want_scope(self, wants: "_Wants", state: JobState, uses: Uses, needs: Iterable[str]) -> None:
        wants.inputs.update((name, found) for name, found in self._submitted.stored.items() if uses.input(name))
        for name in needs:
            lists, step = uses.lists(name), state.steps[name]
            if step.spec.for_each is None or step.blocked:
                continue
            if lists - {"failures"} and _is_settled(step):
                wants.outputs[name] = None
            if "results" in lists:
                self._want_items(wants, state, step.spec, None)
            elif "failures" in lists:
                self._want_items(wants, state, step.spec, [index for index, _ in _failed(state, name)])

    def _want_items(self, wants: "_Wants", state: JobState, step: Step, indices: Sequence[int] | None) -> None:
        """Want some items of a step, or all."""
        stored = self.stored(state, step)
        if stored is not None:
            places = () if indices is None else (self._place(step.step, stored, index) for index in indices)
            chunks = stored.chunks if indices is None else (place[0] for place in places if place is not None)
            wants.chunks.update((chunk, None) for chunk in chunks)
        elif isinstance(step.for_each, str) and indices != [] and self._known_items(state, step) is None:
            self._want_scope(wants, state, uses_in([step.for_each]), step.needs)

    def _place(self, name: str, stored: StoredItems, index: int) -> tuple[Chunk, int] | None:
        known = self._places.get(name)
        if known is None or known.stored is not stored:
            known = self._places[name] = Places(stored)
        return known.find(index)

    def _known_items(self, state: JobState, step: Step) -> list[Json] | None:
        known = self._lists.get(step.step)
        return known[1] if known is not None and known[0] == _standing_of(state, step.needs) else None

    def _item(self, state: JobState, step: Step, index: int, shelf: Shelf) -> Json:
        stored = self.stored(state, step)
        if stored is None:
            return self.items(state, step, shelf)[index]
        place = self._place(step.step, stored, index)
        if place is None or place[0] not in shelf.chunks:
            raise NotBrought(f"item {index} of {step.step}", shelf.missing)
        return shelf.chunks[place[0]][place[1]]

    def _scope(self, state: JobState, uses: Uses, needs: Iterable[str], shelf: Shelf) -> dict[str, Json]:
        views: dict[str, Json] = {name: self._view(state, name, uses.lists(name), shelf) for name in needs}
        return {"goal": self._submitted.goal, "inputs": self._inputs(uses, shelf), "steps": views}

    def _inputs(self, uses: Uses, shelf: Shelf) -> dict[str, Json]:
        inputs = self._submitted.inputs
        used = [name for name in self._submitted.stored if uses.input(name)]
        for name in used:
            if name not in shelf.inputs:
                raise NotBrought(f"input {name}", shelf.missing)
        return {**inputs, **{name: shelf.inputs[name] for name in used}} if used else inputs

    def _view(self, state: JobState, name: str, lists: frozenset[str], shelf: Shelf) -> dict[str, Json]:
        """Return what templates see of a step. Only what was accepted has an output."""
        step = state.steps[name]
        counts: dict[str, Json] = {"failed": step.failed + step.cancelled, "total": step.size or 0}
        counts["problem"] = step.blocked
        if step.spec.for_each is None:
            accepted = [task.output for task in state.tasks_of(name) if task.outcome == "accepted"]
            return {"output": accepted[0] if accepted else None, **counts}
        view: dict[str, Json] = {}
        if "outputs" in lists:
            view["outputs"] = self.outputs(state, name, shelf).values
        if "results" in lists:
            view["results"] = self._results(state, name, shelf)
        if "failures" in lists:
            view["failures"] = self._failed(state, name, shelf)
        return {**view, **counts}

    def _results(self, state: JobState, name: str, shelf: Shelf) -> list[Json]:
        outputs, spec = self.outputs(state, name, shelf), state.steps[name].spec
        if outputs.results is None:
            outputs.results = [
                {"index": index, "item": self._item(state, spec, index, shelf), "output": output}
                for index, output in outputs.entries
            ]
        return outputs.results

    def _failed(self, state: JobState, name: str, shelf: Shelf) -> list[Json]:
        step, known = state.steps[name], self._failures.get(name)
        if known is not None and step.complete and known[0] == standing(step):
            return known[1]
        failures: list[Json] = [
            {"index": index, "item": self._item(state, step.spec, index, shelf), "reason": reason}
            for index, reason in _failed(state, name)
        ]
        if step.complete:
            self._failures[name] = standing(step), failures
        return failures


class _Wants:
    """What is wanted, as it comes together."""

    def __init__(self) -> None:
        self.chunks: dict[Chunk, None] = {}
        self.outputs: dict[str, None] = {}
        self.inputs: dict[str, StoredItems] = {}

    def all(self, *, bound: int | None = None, stream: Stream | None = None) -> Wanted:
        return Wanted(tuple(self.chunks), tuple(self.outputs), self.inputs, bound, stream)


def _is_settled(step: StepState) -> bool:
    """Return whether outputs of a step have left the state."""
    return bool(step.settled_head)


def _failed(state: JobState, name: str) -> list[tuple[int, str]]:
    """Return the positions of the items of a step that failed or were cancelled, and why."""
    step = state.steps[name]
    if step.failed + step.cancelled == 0:
        return []
    tasks = (task for task in state.tasks_of(name) if task.outcome in {"failed", "cancelled"})
    return [(task.index, task.reason) for task in tasks if task.index is not None]


def _standing_of(state: JobState, steps: Iterable[str]) -> tuple[tuple[int, ...], ...]:
    return tuple(standing(state.steps[name]) for name in steps)
