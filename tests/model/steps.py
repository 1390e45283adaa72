"""What must hold of each step of the machine when anything may be written: only the next entry is ever followed."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.model.laws import Violation
from tests.model.planning import planning_step_laws
from tests.model.world import Fact, World

__all__ = ["check_effects", "check_step", "substance"]


def check_step(world: World, before: Any, chain: int, head: int) -> None:
    """Check that the machine does right with the entry at ``head`` in the state ``before``.

    :raises Violation: it followed what it should have refused, or let what it refused change something
    """
    fact, after = world.tree.fact[head], world.core.evolve(before, world.entry(chain, head))
    where = f"{world.chains[chain]} {fact}"
    if after.refused != before.refused:
        if substance(after) != substance(before):
            raise Violation("what is refused changes nothing", where)
    elif chain == 0:
        for law, broken in planning_step_laws(world, before, fact):
            if broken:
                raise Violation(law, where)
    elif 0 < chain < world.past_tasks:
        facts = world.tree.facts(world.tree.parent[head])
        for law, broken in _step_laws(before, before.tasks.get(world.chains[chain]), facts, fact):
            if broken:
                raise Violation(law, where)


def substance(state: Any) -> object:
    """Return all of a state that a refused entry must leave as it is."""
    tasks = {task.id: (task.phase, task.attempts, task.outcome, task.question) for task in state.tasks.values()}
    job = state.version, state.submitted, state.rejected, state.closed, state.order, state.queue
    plan = state.proposed, state.question, state.tries, state.answers, state.plans, dict(state.dropped)
    return tasks, dict(state.steps), job, plan, state.asking, dict(state.effects)


def _step_laws(before: Any, task: Any, facts: Sequence[Fact], fact: Fact) -> Iterator[tuple[str, bool]]:
    """Yield each law about an entry that was followed, and whether it is broken; ``task`` is as it was before."""
    phase = task.phase.value if task else ""
    current: Any = task.current if task and task.attempts else None
    match fact.kind:
        case "result" | "intended" | "asked":
            yield f"no {fact.kind} is taken out of turn", phase != "assigned"
            yield f"no {fact.kind} is taken of an attempt that is not current", fact.attempt != current.number
            yield f"no {fact.kind} is taken from another role", (fact.by or "w@t") != current.role
            known = before.effects.get(fact.detail) if fact.kind == "intended" else None
            yield "no task takes another task's effect", known is not None and known.task != task.id
        case "verdict":
            yield "no verdict is taken out of turn", phase != "result"
            yield "no verdict is taken of an attempt that is not current", fact.attempt != current.number
            yield "no verdict is taken from another role", (fact.by or "v@t") != current.verifier
        case "answered":
            yield "no answer is taken out of turn", phase != "asked"
            yield "no answer is taken for another question", str(fact.refers) != task.question.asked.question
        case "assigned" if fact.refers:
            yield "an answer is used once, and before anything else", phase != "answered"
            yield "no answer is used by another attempt", fact.attempt != current.number
            yield "an attempt goes on with its worker", f"{fact.detail}@t" != current.role
            answers = facts[fact.refers - 1 : fact.refers]
            told = [("answered", task.question.asked.question)]
            yield "an attempt goes on from its answer", [(one.kind, str(one.refers)) for one in answers] != told
        case "assigned":
            yield (
                "a task that waits for a person is not assigned before the answer",
                phase not in {"", "verdict", "retried"},
            )
        case "closed" if fact == Fact("closed", 0, "failed", fact.answers):  # only managers write it
            yield "no stray entry ends the wait for a person", phase == "asked"
            yield "no stray entry fails what was put back", phase == "retried"


def check_effects(world: World, log: Sequence[tuple[int, int]], state: Any) -> None:
    """Check what the machine makes of the effects in ``log``, whose chains hold nothing that it refuses.

    :raises Violation: it forgets what was done, or believes too much
    """
    facts = [(world.chains[chain], world.tree.fact[node], world.tree.depth[node]) for chain, node in log]
    intents = [(place, *entry) for place, entry in enumerate(facts) if entry[1].kind == "intended"]
    for task in {name for _, name, _, _ in intents}:
        begun, _, _, newest = [one for one in intents if one[1] == task][-1]
        first = next(place for place, name, _, _ in intents if name == task)
        told = [(place, one) for place, (name, one, _) in enumerate(facts) if name == task and place > first]
        own = [(place, one) for place, one in told if one.detail == task and not one.by]
        known, status = [one.kind for _, one in own], state.effects[task].status.value
        if ("done" in known) != (status == "done"):
            raise Violation("a done effect stays done, and no other is", f"{known} {status}")
        informed = any(one.kind == "failed" and place > begun and one.answers >= newest for place, one in own)
        if status == "failed" and not informed:
            raise Violation("an effect under way is not taken for failed", f"{known} {status}")
        if not known and status != "intended":
            raise Violation("nobody else tells what came of an effect", f"{told} {status}")
