"""What must hold of a log, said about its chains alone and without the machine's code."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.model.world import ROOT, Fact, Heads, World

from interlock.protocol.plan import parse_task_id

__all__ = ["Violation", "check_append", "check_state"]


class Violation(Exception):
    """An entry that must never stand in a log, or a state that must never be; ``log`` says how it came to be."""

    def __init__(self, law: str, where: str = "") -> None:
        super().__init__(f"{law}: {where}" if where else law)
        self.law = law
        self.log: list[str] = []


def check_append(world: World, heads: Heads, chain: int, fact: Fact) -> None:
    """Check that ``fact`` may stand after what the chains hold.

    :raises Violation: it may not
    """
    where = f"{world.chains[chain]} {fact.kind} {fact.attempt or ''} {fact.detail}"
    job, facts = world.tree.facts(heads[0]), world.tree.facts(heads[chain])
    if any(one.kind == "ended" for one in job):
        raise Violation("nothing enters after the job is closed", where)
    if chain == 0:
        law = _job_law(world, heads, job, fact)
    else:
        law = _task_law(facts, fact) or (_beginning_law(world, heads, chain) if _begins(facts, fact) else "")
        law = law or _attempts_law(world, chain, fact)
    if law:
        raise Violation(law, where)


def _begins(facts: Sequence[Fact], fact: Fact) -> bool:
    return not facts and fact.kind == "assigned"


def _job_law(world: World, heads: Heads, job: Sequence[Fact], fact: Fact) -> str:
    kinds = {one.kind for one in job}
    if fact in job or (fact.kind in {"planned", "rejected"} and fact.kind in kinds):
        return "nothing is said twice in the job's chain"
    if fact.kind == "planned" and "rejected" in kinds:
        return "a plan that was rejected is not accepted"
    if fact.kind == "ended" and "planned" not in kinds and fact.detail not in {"failed", "killed"}:
        return "a job without a plan comes to nothing"
    if fact.kind == "expanded" and _open_needs(world, heads, fact.detail.partition("=")[0]):
        return "no step is counted before what it needs is over"
    if fact.kind != "ended":
        return ""
    last = [world.tree.fact[head] for head in heads[1 : world.past_tasks]]
    if any(one.kind not in {"", "closed"} for one in last):
        return "no job is closed while a task is open"
    if fact.detail == "succeeded" and any(one.detail != "accepted" for one in last):
        return "a job succeeds only with every task accepted"
    return ""


def _task_law(facts: Sequence[Fact], fact: Fact) -> str:
    return next((law for law, broken in _task_laws(facts, fact) if broken), "")


def _task_laws(facts: Sequence[Fact], fact: Fact) -> Iterator[tuple[str, bool]]:
    """Yield each law about what may follow ``facts`` in a task's chain, and whether it is broken."""
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
            doubled = fact.kind == "intended" and fact.answers != len(facts)
            yield "two workers with one assignment do not both begin an effect", doubled
        case "answered":
            earlier = [one for one in facts if one.kind == "answered" and one.refers == fact.refers]
            yield "a question is answered once", bool(earlier)
            yield "an answer follows its question", closed or last != "asked" or fact.refers != len(facts)
        case "assigned":
            yield from _resumption_laws(facts, fact) if fact.refers else _redo_laws(facts, fact, closed=closed)
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


def _ends_of(world: World, heads: Heads, step: str) -> list[Fact]:
    """Return the last entry of each task of ``step``."""
    chains = (
        position
        for position, task in enumerate(world.chains[: world.past_tasks])
        if position and parse_task_id(task)[0] == step
    )
    return [world.tree.fact[heads[chain]] for chain in chains]


def _needs(world: World, step: str) -> tuple[str, ...]:
    return next(one.needs for one in world.scenario.steps if one.step == step)


def _open_needs(world: World, heads: Heads, step: str) -> bool:
    """Whether ``step`` needs something that is not over."""
    return any(one.kind != "closed" for need in _needs(world, step) for one in _ends_of(world, heads, need))


def _beginning_law(world: World, heads: Heads, chain: int) -> str:
    step = parse_task_id(world.chains[chain])[0]
    if _open_needs(world, heads, step):
        return "no task begins before what it needs is over"
    for need in _needs(world, step):
        ends = _ends_of(world, heads, need)
        if ends and not any(one.detail == "accepted" for one in ends):
            return "no task begins on a need that delivered nothing"
    tasks = heads[1 : world.past_tasks]
    open_tasks = sum(head != ROOT and world.tree.fact[head].kind != "closed" for head in tasks)
    return "no more tasks are open than the limit" if open_tasks >= world.scenario.parallel else ""


def _attempts_law(world: World, chain: int, fact: Fact) -> str:
    step = next(one for one in world.scenario.steps if one.step == parse_task_id(world.chains[chain])[0])
    return "no task has more attempts than its step allows" if fact.attempt > step.attempts else ""


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
    passed = [one for one in judged if one.verdict.verdict == "pass"]
    yield "nothing that passed is redone", any(one is not attempts[-1] for one in passed)
    accepted = task.outcome == "accepted"
    yield "nothing is accepted without a pass of what stands", accepted and (stands not in passed or stands is None)
