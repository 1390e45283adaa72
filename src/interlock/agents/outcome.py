"""What a job comes to: the team's result template, or what its last steps delivered, where that is not too large."""

import json
from collections.abc import Iterable, Sequence

from interlock.agents.scopes import Scopes
from interlock.agents.shelf import Shelf, Wanted
from interlock.protocol.base import Json
from interlock.protocol.messages import JobSubmitted
from interlock.protocol.state import JobState

__all__ = ["MAX_RESULT", "outcome_of", "wanted_by_outcome"]

MAX_RESULT = 4 * 1024 * 1024
"""The most bytes of JSON of what the items of one step delivered in the result of a job; what is more is in the log."""


def wanted_by_outcome(scopes: Scopes, submitted: JobSubmitted, state: JobState) -> Wanted:
    """Return what the result is made of, as far as ``state`` does not hold it."""
    if submitted.team.result is not None:
        return scopes.wanted_by_template(state, submitted.team.result)
    return scopes.wanted_by_outputs(state, state.result_steps, MAX_RESULT)


def outcome_of(scopes: Scopes, submitted: JobSubmitted, state: JobState, shelf: Shelf) -> tuple[Json, str]:
    """Return what the job comes to so far, and what is to be said of it: where it is if it is too large.

    It is the team's ``result`` template, or what its last steps delivered. A template that is one expression keeps its
    value; any other gives text.

    :raises TemplateError: the team's template fails on what there is
    :raises NotAList: it uses the items of a step whose template gives none
    :raises NotBrought: something that it uses is not on the shelf
    """
    if submitted.team.result is not None:
        return scopes.evaluated(state, submitted.team.result, shelf), ""
    delivered = {name: _delivered(scopes, state, name, shelf) for name in state.result_steps}
    left_out = [name for name, (_, whole) in delivered.items() if not whole]
    outputs = {name: output for name, (output, _) in delivered.items()}
    result = next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)
    return result, _left_out(submitted.job, left_out)


def _delivered(scopes: Scopes, state: JobState, name: str, shelf: Shelf) -> tuple[Json, bool]:
    """Return what a step delivered, or None and False where that is too large."""
    if state.steps[name].spec.for_each is None:
        accepted = [task.output for task in state.tasks_of(name) if task.outcome == "accepted"]
        return (accepted[0] if accepted else None), True
    if name in shelf.beyond:
        return None, False
    outputs = scopes.outputs(state, name, shelf).values
    return (outputs, True) if name in shelf.outputs or _is_short(outputs) else (None, False)


def _is_short(outputs: Iterable[Json]) -> bool:
    size = 0
    for output in outputs:
        size += len(json.dumps(output))
        if size > MAX_RESULT:
            return False
    return True


def _left_out(job: str, steps: Sequence[str]) -> str:
    """Say where the outputs of ``steps`` are, which are too large for the result."""
    if not steps:
        return ""
    where = " and ".join(f"`interlock results {job} --step {name}`" for name in steps)
    return f"what {', '.join(steps)} delivered is too large to stand in the result: {where} has it"
