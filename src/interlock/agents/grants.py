"""What an assignment grants: the tools of its step with the arguments that the plan fixes, and what is tainted.

Whatever text from outside went into is labelled with where that text came from. The labels go with assignments and
results, so that a worker in another process knows what it must not take for the plan's own words.
"""

from collections.abc import Iterable, Mapping

from interlock.agents.shelf import standing
from interlock.agents.templates import evaluate, references
from interlock.protocol.base import Json
from interlock.protocol.criteria import templates_of
from interlock.protocol.messages import Grant, JobSubmitted
from interlock.protocol.state import JobState, TaskState
from interlock.protocol.taint import joined
from interlock.protocol.team import Agent, Files, Input, JsonLines, PinnedTool, Step, Team, ToolUse
from interlock.protocol.tools import Pin, ToolGrant

__all__ = ["Labels", "evaluated", "grant_of", "input_texts", "is_outside", "pinned_texts", "uses_of"]


def uses_of(step: Step, agent: Agent) -> tuple[ToolUse, ...]:
    """Return the tools that a task of ``step`` may use: the step's own, or else those of the agent."""
    return agent.tools if step.tools is None else step.tools


def pinned_texts(uses: Iterable[ToolUse]) -> list[str]:
    """Return the templates of the arguments that ``uses`` fix."""
    pinned = (use for use in uses if isinstance(use, PinnedTool))
    return [text for use in pinned for value in use.pin.values() for text in _texts(value)]


def input_texts(step: Step) -> list[str]:
    """Return the templates of what a step gives to the team that does it."""
    return _texts(dict(step.inputs))


def evaluated(value: Json, scope: Mapping[str, Json]) -> Json:
    """Return a value with the templates in it evaluated.

    :raises interlock.agents.templates.TemplateError: one fails
    """
    return _evaluated(value, scope)


class Labels:
    """Where the text from outside comes from that stands in the tasks of one job."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self._of_steps: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {}
        """What is known of steps that are over, and of which of their ends."""

    def of_task(self, state: JobState, step: Step, task: str) -> tuple[str, ...]:
        """Return the labels of the next assignment of ``task``: its templates' and those of its earlier attempts."""
        texts = [step.do, *input_texts(step)]
        texts += [text for criterion in step.verify.criteria for text in templates_of(criterion)]
        earlier = state.tasks.get(task)
        return joined(_given(state), *(self.of_template(state, step, text) for text in texts), _of_attempts(earlier))

    def of_template(self, state: JobState, step: Step, template: str) -> tuple[str, ...]:
        """Return the labels of what ``template`` renders to in a task of ``step``."""
        return joined(*(self._of_reference(state, step, path.split(".")) for path in sorted(references(template))))

    def _of_reference(self, state: JobState, step: Step, path: list[str]) -> tuple[str, ...]:
        match path:
            case ["goal", *_]:
                return _given(state)
            case ["inputs", *rest]:
                return joined(_given(state), *(self._of_input(name) for name in (rest[:1] or self._inputs(state))))
            case ["item", *_]:
                return self._of_items(state, step)
            case ["steps", *rest]:
                return joined(*(self._of_step(state, name) for name in (rest[:1] or state.order)))
            case _:
                return ()

    def _inputs(self, state: JobState) -> Iterable[str]:
        return (*state.submitted.inputs, *state.submitted.stored) if state.submitted else ()

    def _of_input(self, name: str) -> tuple[str, ...]:
        declared = self._team.inputs.get(name)
        return (f"input {name}",) if declared is not None and is_outside(declared) else ()

    def _of_items(self, state: JobState, step: Step) -> tuple[str, ...]:
        if step.outside is not None:
            return (f"items of {step.step}",) if step.outside else ()
        if isinstance(step.for_each, Files | JsonLines):
            return (f"items of {step.step}",)
        return self.of_template(state, step, step.for_each) if isinstance(step.for_each, str) else ()

    def _of_step(self, state: JobState, name: str) -> tuple[str, ...]:
        """Return the labels of all that other steps can see of a step: outputs, items and reasons."""
        if name not in state.steps:
            return ()
        step = state.steps[name]
        known = self._of_steps.get(name)
        if known is not None and step.complete and known[0] == standing(step):
            return known[1]
        attempts = (_of_attempts(task) for task in state.tasks_of(name))
        labels = joined(self._of_items(state, step.spec), step.settled_taint, *attempts)
        if step.complete:
            self._of_steps[name] = standing(step), labels
        return labels


def grant_of(
    submitted: JobSubmitted, state: JobState, step: Step, agent: str, scope: Mapping[str, Json], labels: Labels
) -> Grant:
    """Return what an assignment of ``step`` to ``agent`` lets its attempt do.

    :raises interlock.agents.templates.TemplateError: a pinned argument cannot be told
    """
    uses = uses_of(step, submitted.team.agents[agent])
    return Grant(
        tools=tuple(_tool_grant(use, state, step, scope, labels) for use in uses),
        seconds=step.timeout,
        autonomy=submitted.autonomy,
        permissions=step.permissions,
    )


def _tool_grant(use: ToolUse, state: JobState, step: Step, scope: Mapping[str, Json], labels: Labels) -> ToolGrant:
    if not isinstance(use, PinnedTool):
        return ToolGrant(tool=use)
    pins = {
        name: Pin(
            value=_evaluated(value, scope),
            tainted=_is_told(state, step) or any(labels.of_template(state, step, text) for text in _texts(value)),
        )
        for name, value in use.pin.items()
    }
    return ToolGrant(tool=use.tool, pins=pins, times=use.times)


def _given(state: JobState) -> tuple[str, ...]:
    """Return the labels of the job's goal and inputs, where a team around its own made them of text from outside."""
    return state.submitted.taint if state.submitted else ()


def _is_told(state: JobState, step: Step) -> bool:
    """Whether text from outside may have said what a step fixes: a manager's model that had read it planned it."""
    return bool(_given(state)) and step.tools is not None and not (state.submitted and state.submitted.team.plan)


def _evaluated(value: Json, scope: Mapping[str, Json]) -> Json:
    match value:
        case str():
            return evaluate(value, scope)
        case list():
            return [_evaluated(one, scope) for one in value]
        case dict():
            return {key: _evaluated(one, scope) for key, one in value.items()}
        case _:
            return value


def _texts(value: Json) -> list[str]:
    match value:
        case str():
            return [value]
        case list():
            return [text for one in value for text in _texts(one)]
        case dict():
            return [text for one in value.values() for text in _texts(one)]
        case _:
            return []


def is_outside(declared: Input) -> bool:
    """Return whether what an input holds comes from outside; files do where nothing else is said."""
    return declared.type in {"files", "jsonl"} if declared.outside is None else declared.outside


def _of_attempts(task: TaskState | None) -> tuple[str, ...]:
    attempts = task.attempts if task else ()
    return joined(*(attempt.result.taint for attempt in attempts if attempt.result))
