"""The account of how a job came to its plan."""

from interlock.protocol.base import Strict
from interlock.protocol.state import JobState

__all__ = ["PlanReport", "RejectedReport", "VersionReport", "plan_report"]


class RejectedReport(Strict):
    """A proposal of the manager that was rejected."""

    version: int
    """Which version of the plan it was to be."""
    reasons: tuple[str, ...]


class VersionReport(Strict):
    """A version of the plan that was followed."""

    version: int
    steps: tuple[str, ...]
    why: str
    """What the manager said of it: with a later version what changed and why."""


class PlanReport(Strict):
    """How a job came to its plan."""

    version: int
    """The one that is followed; 0: there is none."""
    versions: tuple[VersionReport, ...]
    proposed: int
    """How often the manager proposed something; 0 where the team file has the plan."""
    rejected: tuple[RejectedReport, ...]
    """Of what it proposed."""


def plan_report(state: JobState) -> PlanReport:
    """Return how the job in ``state`` came to its plan."""
    return PlanReport(
        version=state.version,
        versions=tuple(VersionReport(version=one.version, steps=one.steps, why=one.why) for one in state.plans),
        proposed=state.proposals,
        rejected=tuple(RejectedReport(version=one.version, reasons=one.reasons) for one in state.rejections),
    )
