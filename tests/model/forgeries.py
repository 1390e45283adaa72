"""What somebody with a broker's key and no manners may write: entries out of turn, and in another's name."""

from tests.model.world import VERIFIER, WORKER, Fact, World

__all__ = ["forgeries_of"]

_OF_A_JOB = (Fact("submitted"), Fact("planned"), Fact("rejected"), Fact("expanded", detail="nothing=1"))

_OF_A_TASK = (
    *(Fact("assigned", attempt, "w") for attempt in (1, 2, 3)),
    *(Fact("result", attempt, "new") for attempt in (1, 2)),
    Fact("result", 1, "new", by=VERIFIER),
    *(Fact("verdict", attempt, verdict) for attempt in (1, 2) for verdict in ("pass", "fail")),
    Fact("verdict", 1, "pass", by=WORKER),
    *(Fact("closed", stands, "accepted") for stands in (0, 1, 2)),
    Fact("closed", 1, "failed"),
    Fact("closed", 0, "cancelled"),
    Fact("intended", 3),
    Fact("intended", 1, by="x@t"),
    Fact("asked", 1, by="x@t"),
    Fact("answered", 1, "yes", refers=1),
    Fact("assigned", 1, "w", refers=1),
)

_OF_A_TASK_THAT_ASKS = (
    *(Fact("asked", attempt) for attempt in (1, 2)),
    *(Fact("answered", 1, "yes", refers=question) for question in (2, 4)),
    *(Fact("assigned", 1, agent, refers=answer) for agent in ("w", "x") for answer in (2, 3, 4)),
    Fact("assigned", 2, "w", refers=3),
)


_OF_A_PLAN = (
    *(Fact("proposed", version, made) for version in (1, 2) for made in ("plan", "question")),
    Fact("planned", 0, "other"),
    Fact("planned", 2),
    Fact("planned", 2, "other"),
    *(Fact("rejected", version, "proposal") for version in (1, 2)),
    *(Fact("asked", 1, about) for about in ("plan", "input")),
    Fact("asked", 1, "input", by="x@t"),
    *(Fact("answered", 0, "yes", refers=question) for question in (2, 3)),
)


def forgeries_of(world: World, chain: int) -> tuple[Fact, ...]:
    """Return what may be written; an early end of the job only where it is known what came before and what after."""
    scenario = world.scenario
    if chain:
        return scenario.forged or (*_OF_A_TASK, *(_OF_A_TASK_THAT_ASKS if scenario.asks else ()))
    if scenario.forged_plan:
        return scenario.forged_plan
    of_job = (*_OF_A_JOB, *(_OF_A_PLAN if scenario.makes else ()))
    return (*of_job, Fact("ended", detail="failed")) if scenario.ordered else of_job
