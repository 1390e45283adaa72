"""What a plan that the manager makes means for the laws, said about the job's chain alone."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tests.model.world import Fact, World

from interlock.protocol.plan import parse_task_id

__all__ = ["Stage", "planning_law", "planning_step_laws", "stage_of"]


class Stage(NamedTuple):
    """How far the plan is."""

    version: int = 0
    """The one that is followed."""
    pending: str = ""
    """What the model came to, as long as nothing is decided about it."""
    asked: bool = False
    """Whether a person is asked."""
    said: str = ""
    """What the person said to the plan that is pending."""
    tries: int = 0
    """How many proposals for the next version were rejected."""
    questions: int = 0
    """How many questions of the manager's were answered."""


def stage_of(job: Sequence[Fact]) -> Stage:
    """Return how far the plan is after the entries of the job's chain, none of which was refused."""
    stage = Stage()
    for fact in job:
        stage = _after(stage, fact)
    return stage


def _after(stage: Stage, fact: Fact) -> Stage:
    match fact.kind:
        case "proposed":
            return stage._replace(pending=fact.detail)
        case "planned":
            return Stage(fact.attempt or 1, questions=stage.questions)
        case "rejected":
            return stage._replace(pending="", said="", tries=stage.tries + 1)
        case "asked":
            return stage._replace(asked=True)
        case "answered" if stage.pending == "question":
            return stage._replace(pending="", asked=False, questions=stage.questions + 1)
        case "answered":
            return stage._replace(asked=False, said=fact.detail)
        case "retried":
            return stage._replace(pending="", asked=False, said="", tries=0)
        case _:
            return stage


def planning_law(world: World, ends: Sequence[Fact], job: Sequence[Fact], fact: Fact) -> str:
    """Return which law forbids ``fact`` after ``job``; ``ends`` are the last entries of all chains."""
    laws = _laws(world, ends, stage_of(job), fact)
    return next((law for law, broken in laws if broken), "")


def _laws(world: World, ends: Sequence[Fact], stage: Stage, fact: Fact) -> Iterator[tuple[str, bool]]:
    scenario = world.scenario
    open_tasks = [end for end in ends[1:] if end.kind not in {"", "closed"}]
    match fact.kind:
        case "proposed":
            yield "nothing is proposed while something is pending", bool(stage.pending)
            yield "no more is proposed than the tries", stage.tries >= scenario.plans
            yield "versions follow each other", fact.attempt != stage.version + 1
            yield "no more versions than the limit", stage.version > scenario.replans
            yield "a new version waits for what is open", bool(open_tasks) or not _is_over(world, ends, stage)
            yield "a plan is made anew where it failed", stage.version > 0 and not _failed(world, ends, stage)
        case "planned" if scenario.makes and not (scenario.given and not fact.attempt):
            yield "nothing is followed that was not proposed", stage.pending != "plan"
            yield "nothing is followed without the yes", scenario.approve and stage.said != "yes"
            yield "versions follow each other", (fact.attempt or 1) != stage.version + 1
        case "rejected":
            yield "a person is heard before a plan is rejected", stage.asked
            yield "an answer is given and not judged", stage.pending == "answer" and not stage.version
        case "asked":
            yield "a person is asked once", stage.asked or bool(stage.said)
            yield "questions come to an end", fact.detail == "input" and stage.questions >= scenario.plans
        case "answered":
            yield "an answer follows its question", not stage.asked
        case "ended" if fact.detail != "killed":
            yield "no job ends while a person is asked", stage.asked
            yield "no job ends for want of a plan before the tries are over", _ends_early(world, ends, stage)
        case _:
            pass


def _ends_of_plan(world: World, ends: Sequence[Fact], stage: Stage) -> list[Fact]:
    names = {one.step for one in world.scenario.version(stage.version)} if stage.version else set()
    return [end for chain, end in enumerate(ends) if chain and parse_task_id(world.chains[chain])[0] in names]


def _is_over(world: World, ends: Sequence[Fact], stage: Stage) -> bool:
    return all(end.kind == "closed" for end in _ends_of_plan(world, ends, stage))


def _ends_early(world: World, ends: Sequence[Fact], stage: Stage) -> bool:
    """Whether the job could still come to a plan, or to a new version after something failed."""
    if stage.pending in {"answer", "refusal"} or stage.said == "no" or stage.tries >= world.scenario.plans:
        return False
    if not stage.version:
        return True
    return _failed(world, ends, stage) and stage.version <= world.scenario.replans


def _failed(world: World, ends: Sequence[Fact], stage: Stage) -> bool:
    """Whether a task failed that leads to a new version of the plan."""
    steps = world.scenario.version(stage.version)
    told = [one for one in steps if not world.scenario.given or one.on_failure == "replan"]
    new = {one.step for one in told if stage.version == 1 or one not in world.scenario.steps}
    return any(
        end.detail == "failed" and parse_task_id(world.chains[chain])[0] in new
        for chain, end in enumerate(ends)
        if chain
    )


def planning_step_laws(world: World, before: Any, fact: Fact) -> Iterator[tuple[str, bool]]:
    """Yield each law about an entry of the job's chain that was followed, and whether it is broken."""
    asks = before.question is not None and before.question.answer is None
    match fact.kind:
        case "rejected":
            yield "a plan is rejected once", before.rejected is not None and before.proposed is None
            pending = before.proposed is not None and fact.attempt == before.proposed.version
            yield "a person is heard before a plan is rejected", asks and pending
            yield "only a plan that is there is rejected", not pending and (fact.attempt or 1) != (before.version or 1)
        case "proposed":
            yield "nothing is proposed while something is pending", before.proposed is not None
            yield "no more is proposed than the tries", before.tries >= world.scenario.plans
            yield "versions follow each other", fact.attempt != before.version + 1
            yield "no more versions than the limit", before.version > world.scenario.replans
            over = all(step.complete for step in before.steps.values())
            yield "a new version waits for what is open", not over
        case "planned" if world.scenario.makes and not (world.scenario.given and not fact.attempt):
            made = before.proposed.text if before.proposed else ""
            yield "nothing is followed that was not proposed", made not in {"plan", "bad"} or fact.detail == "other"
            said = before.question.answer.answer if before.question and before.question.answer else ""
            yield "nothing is followed without the yes", world.scenario.approve and said != "yes"
        case "asked":
            yield "a person is asked about something", before.proposed is None
            yield "a person is asked once", before.question is not None
            yield "only the manager asks", bool(fact.by)
            about = "input" if before.proposed and before.proposed.makes == "question" else "plan"
            yield "a person is asked what is pending", fact.detail != about
        case "answered":
            yield "an answer follows its question", not asks
            other = str(fact.refers) != str(before.question.asked.question if before.question else 0)
            yield "no answer is taken for another question", other
        case _:
            pass
