"""What must hold of a log, said about its chains alone and without the machine's code."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.model.planning import planning_law, stage_of
from tests.model.retries import Again, Log, chain_ends, put_back, step_of
from tests.model.world import Fact, Heads, World

__all__ = ["Violation", "check_append", "check_state"]


class Violation(Exception):
    """An entry that must never stand in a log, or a state that must never be; ``log`` says how it came to be."""

    def __init__(self, law: str, where: str = "") -> None:
        super().__init__(f"{law}: {where}" if where else law)
        self.law = law
        self.log: list[str] = []


def check_append(world: World, heads: Heads, log: Log, chain: int, fact: Fact) -> None:
    """Check that ``fact`` may stand after what the chains hold.

    :raises Violation: it may not
    """
    where = f"{world.chains[chain]} {fact.kind} {fact.attempt or ''} {fact.detail}"
    job, facts = world.tree.facts(heads[0]), world.tree.facts(heads[chain])
    again = put_back(world, log) if world.scenario.retries else {}
    ends = chain_ends(world, heads, again)
    if _is_over(world, log, job) and fact.kind != "retried":
        raise Violation("nothing enters after the job is closed", where)
    if chain == 0:
        law = _job_law(world, ends, job, fact)
    else:
        start, before = again.get(chain, Again(0, 0))
        law = _task_law(facts, facts[start:], fact)
        law = law or (_beginning_law(world, ends, job, chain) if _begins(facts[start:], fact) else "")
        law = law or _attempts_law(world, chain, fact, before)
    if law:
        raise Violation(law, where)


def _is_over(world: World, log: Log, job: Sequence[Fact]) -> bool:
    """Whether the job was closed and not taken up again."""
    if not world.scenario.retries:
        return any(one.kind == "ended" for one in job)
    return world.state_of_log(log).closed is not None


def _begins(facts: Sequence[Fact], fact: Fact) -> bool:
    return not facts and fact.kind == "assigned"


def _job_law(world: World, ends: Sequence[Fact], job: Sequence[Fact], fact: Fact) -> str:
    if world.scenario.makes and (law := planning_law(world, ends, job, fact)):
        return law
    kinds = {one.kind for one in job}
    once = not world.scenario.makes and fact.kind in {"planned", "rejected"}
    if fact in job or (once and fact.kind in kinds):
        return "nothing is said twice in the job's chain"
    if fact.kind == "planned" and "rejected" in kinds and not world.scenario.makes:
        return "a plan that was rejected is not accepted"
    answered = any((one.kind, one.detail) == ("proposed", "answer") for one in job[-1:])
    if fact.kind == "ended" and "planned" not in kinds and fact.detail not in {"failed", "killed"} and not answered:
        return "a job without a plan comes to nothing"
    if fact.kind == "expanded" and _open_needs(world, ends, fact.detail.partition("=")[0]):
        return "no step is counted before what it needs is over"
    if fact.kind != "ended":
        return ""
    if any(one.kind not in {"", "closed"} for one in ends[1:]):
        return "no job is closed while a task is open"
    if fact.detail == "succeeded" and any(one.detail != "accepted" for one in _ends_in_force(world, ends, job)):
        return "a job succeeds only with every task accepted"
    return ""


def _task_law(facts: Sequence[Fact], since: Sequence[Fact], fact: Fact) -> str:
    return next((law for law, broken in _task_laws(facts, since, fact) if broken), "")


def _task_laws(told: Sequence[Fact], facts: Sequence[Fact], fact: Fact) -> Iterator[tuple[str, bool]]:
    """Yield each law about what may follow ``told`` in a task's chain, and whether it is broken.

    ``facts`` are those of ``told`` since the task was last put back.
    """
    current = max((one.attempt for one in facts if one.kind == "assigned"), default=0)
    of_attempt = [one for one in facts if one.attempt == fact.attempt]
    closed = any(one.kind == "closed" for one in facts)
    last = facts[-1].kind if facts else ""
    match fact.kind:
        case "closed":
            yield "no task is closed twice", closed
            yield "no task fails without a verdict", fact.detail == "failed" and last != "verdict"
            passed = any(one.kind == "verdict" and one.detail == "pass" for one in of_attempt)
            accepted = fact.detail == "accepted"
            yield (
                "nothing is accepted without a pass of what stands",
                accepted and not (passed and fact.attempt == current),
            )
        case "result" | "verdict" | "intended" | "asked":
            judged = fact.kind == "verdict" and any(one.kind == "verdict" for one in of_attempt)
            yield "no attempt has two standing verdicts", judged
            yield f"no {fact.kind} enters after its task moved on", closed or fact.attempt != current
            yield "nothing is done while a task waits for a person", last in {"asked", "answered"}
            over = fact.kind == "result" and any(one.kind in {"result", "verdict"} for one in of_attempt)
            yield "no result enters after its task moved on", over
            doubled = fact.kind == "intended" and fact.answers != len(told)
            yield "two workers with one assignment do not both begin an effect", doubled
        case "answered":
            earlier = [one for one in facts if one.kind == "answered" and one.refers == fact.refers]
            yield "a question is answered once", bool(earlier)
            yield "an answer follows its question", closed or last != "asked" or fact.refers != len(told)
        case "assigned":
            yield from _resumption_laws(told, fact) if fact.refers else _redo_laws(facts, fact, closed=closed)
        case _:
            pass


def _redo_laws(facts: Sequence[Fact], fact: Fact, *, closed: bool) -> Iterator[tuple[str, bool]]:
    of_attempt = [one for one in facts if one.kind == "assigned" and one.attempt == fact.attempt]
    yield "no attempt is assigned twice", bool(of_attempt)
    yield "no task goes on after it was closed", closed
    yield "nothing that passed is redone", any(one.kind == "verdict" and one.detail == "pass" for one in facts)
    same = any(one.kind == "result" and one.detail == "same" and one.attempt > 1 for one in facts)
    yield "the same result is not paid for twice", same


def _resumption_laws(facts: Sequence[Fact], fact: Fact) -> Iterator[tuple[str, bool]]:
    waits = facts[-1].kind == "asked"
    yield "a task that waits for a person is not assigned before the answer", waits
    yield "an answer is used once", any(one.kind == "assigned" and one.refers == fact.refers for one in facts)
    answer = facts[fact.refers - 1]
    own = answer.kind == "answered" and answer.attempt == fact.attempt
    yield "an attempt goes on from its own answer", not own


def _ends_of(world: World, ends: Sequence[Fact], step: str) -> list[Fact]:
    """Return the last entry of each task of ``step``."""
    return [end for chain, end in enumerate(ends) if chain and step_of(world, chain) == step]


def _needs(world: World, step: str) -> tuple[str, ...]:
    return next(one.needs for one in world.scenario.all_steps if one.step == step)


def _open_needs(world: World, ends: Sequence[Fact], step: str) -> bool:
    """Whether ``step`` needs something that is not over."""
    return any(one.kind != "closed" for need in _needs(world, step) for one in _ends_of(world, ends, need))


def _ends_in_force(world: World, ends: Sequence[Fact], job: Sequence[Fact]) -> Iterator[Fact]:
    """Yield the last entry of each task of the plan that the job follows."""
    if not any(one.kind == "planned" for one in job):
        return
    names = {one.step for one in world.scenario.version(stage_of(job).version)}
    yield from (end for chain, end in enumerate(ends) if chain and step_of(world, chain) in names)


def _beginning_law(world: World, ends: Sequence[Fact], job: Sequence[Fact], chain: int) -> str:
    step = step_of(world, chain)
    if step not in {one.step for one in world.scenario.version(stage_of(job).version)}:
        return "no task begins that the plan does not have"
    if _open_needs(world, ends, step):
        return "no task begins before what it needs is over"
    for need in _needs(world, step):
        of_need = _ends_of(world, ends, need)
        if of_need and not any(one.detail == "accepted" for one in of_need):
            return "no task begins on a need that delivered nothing"
    open_tasks = sum(end.kind not in {"", "closed", "put back"} for end in ends[1:])
    return "no more tasks are open than the limit" if open_tasks >= world.scenario.parallel else ""


def _attempts_law(world: World, chain: int, fact: Fact, before: int) -> str:
    """``before`` is the last attempt before the task was put back."""
    step = next(one for one in world.scenario.all_steps if one.step == step_of(world, chain))
    if fact.kind == "assigned" and fact.attempt <= before:
        return "attempts go on counting after a retry"
    return "no task has more attempts than its step allows" if fact.attempt > before + step.attempts else ""


def check_state(state: Any) -> None:
    """Check the machine's own picture of a log, whatever somebody wrote into it.

    :raises Violation: the picture breaks a law
    """
    for task in state.tasks.values():
        for law, broken in _picture_laws(task):
            if broken:
                raise Violation(law, task.id)
    asked = {task.id for task in state.tasks.values() if task.phase.value == "asked"}
    if state.asking != asked or asked & state.waiting:
        raise Violation("who waits for a person waits for nobody else", f"{state.asking} {state.waiting}")
    if state.closed is not None and state.open:
        raise Violation("no job is closed while a task is open", str(state.open))
    if any(step.open < 0 or step.closed > (step.size or 0) for step in state.steps.values()):
        raise Violation("a task counts once", str(dict(state.steps)))


def _picture_laws(task: Any) -> Iterator[tuple[str, bool]]:
    """Yield each law about the machine's picture of one task, and whether it is broken."""
    attempts = task.attempts
    judged = [one for one in attempts if one.verdict is not None]
    stands = attempts[task.stands - 1] if task.stands and task.stands <= len(attempts) else None
    yield "attempts are numbered without gaps", [one.number for one in attempts] != list(range(1, len(attempts) + 1))
    yield "a closed task stays closed", (task.outcome is not None) != (task.phase.value == "closed")
    yield "no verdict without a result", any(one.result is None for one in judged)
    yield "no attempt has another attempt's verdict", any(one.verdict.attempt != one.number for one in judged)
    results = [one for one in attempts if one.result is not None]
    yield "no attempt has another attempt's result", any(one.result.attempt != one.number for one in results)
    passed = [one for one in judged if one.verdict.verdict == "pass" and one in task.counting]
    yield "nothing that passed is redone", any(one is not attempts[-1] for one in passed)
    accepted = task.outcome == "accepted"
    yield "nothing is accepted without a pass of what stands", accepted and (stands not in passed or stands is None)
