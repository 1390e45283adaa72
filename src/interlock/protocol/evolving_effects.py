"""What entries about changes outside make of a job: what was meant to be done, and what is known of it."""

from interlock.protocol._replacing import replace
from interlock.protocol.messages import EffectDone, EffectInDoubt, EffectIntended
from interlock.protocol.state import Effect, EffectStatus, JobState, TaskState

__all__ = ["intended", "is_of_this_task", "recorded"]


def is_of_this_task(state: JobState, message: EffectIntended | EffectDone | EffectInDoubt) -> bool:
    """Whether the effect that ``message`` names is one of its task, or new."""
    known = state.effects.get(message.key)
    return known is None or known.task == message.task


def intended(state: JobState, task: TaskState, message: EffectIntended) -> JobState:
    """Return the state after ``task``, as it is now, announced a change; what is known to be done stays done."""
    state, known = replace(state, tasks=state.tasks.insert(task.id, task)), state.effects.get(message.key)
    if known is not None and known.status is EffectStatus.DONE:
        return state
    effect = Effect(message.key, task.id, message.attempt, message.tool, message.effect, message.answers)
    return replace(state, effects=state.effects.insert(message.key, effect))


def recorded(state: JobState, message: EffectDone | EffectInDoubt) -> JobState:
    """Note what became of a change outside. What is known to be done stays so, whatever comes later."""
    effect = state.effects.get(message.key)
    if effect is None or effect.status is EffectStatus.DONE or not is_of_this_task(state, message):
        return state
    if message.by not in _reporters(state, message.task):
        return state
    match message:
        case EffectDone() if message.failed and message.answers <= effect.follows:
            return state  # it tells of an earlier intent; the newest one may be under way
        case EffectDone():
            status, reason = (EffectStatus.FAILED if message.failed else EffectStatus.DONE), ""
        case EffectInDoubt():
            status, reason = EffectStatus.IN_DOUBT, message.reason
    return replace(state, effects=state.effects.insert(message.key, replace(effect, status=status, reason=reason)))


def _reporters(state: JobState, task: str) -> frozenset[str]:
    """Return the roles that were ever given ``task``."""
    known = state.tasks.get(task)
    before = state.reporters.get(task, frozenset())
    return before | known.roles if known else before
