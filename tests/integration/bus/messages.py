"""Messages for tests of the bus."""

import itertools
import uuid
from datetime import UTC, datetime

from interlock.protocol.messages import EffectDone, Grant, JobSubmitted, TaskAssigned, TaskResult
from interlock.protocol.team import Team

READER = "reader@digest"
CHECKER = "checker@digest"

_number = itertools.count()


def assigned(
    ns: str, job: str = "j1", task: str = "t", *, answers: int = 0, attempt: int = 1, instruction: str = "do it"
) -> TaskAssigned:
    """Return an assignment with an id of its own."""
    return TaskAssigned(
        id=uuid.uuid4().hex,
        ns=ns,
        job=job,
        task=task,
        attempt=attempt,
        answers=answers,
        at=datetime.now(UTC),
        step="s",
        role=READER,
        verifier=CHECKER,
        instruction=instruction,
        grant=Grant(seconds=10),
    )


def result(of: TaskAssigned, answers: int, output: str = "done") -> TaskResult:
    """Return a result of an assignment at the sequence ``answers``."""
    return TaskResult(
        id=uuid.uuid4().hex,
        ns=of.ns,
        job=of.job,
        task=of.task,
        attempt=of.attempt,
        answers=answers,
        at=datetime.now(UTC),
        by=of.role,
        role=CHECKER,
        status="done",
        output=output,
    )


def effect_done(ns: str, job: str = "j1", task: str = "t") -> EffectDone:
    """Return a record that stands outside its task's chain."""
    return EffectDone(
        id=uuid.uuid4().hex, ns=ns, job=job, task=task, at=datetime.now(UTC), by=READER, key="k", outcome="sent"
    )


def submitted(ns: str, job: str) -> JobSubmitted:
    """Return the first message of a job."""
    team = Team.model_validate(
        {
            "interlock": 1,
            "team": "digest",
            "model": {"engine": "openai", "name": "m"},
            "agents": {"reader": {"kind": "worker", "prompt": "p"}},
            "plan": [{"step": "s", "agent": "reader", "do": "x"}],
        }
    )
    return JobSubmitted(id=uuid.uuid4().hex, ns=ns, job=job, at=datetime.now(UTC), team=team, goal="g")
