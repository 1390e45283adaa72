"""Where messages go: the NATS subjects of the log, of live progress and of control.

``il.<ns>.log.<part>.<job>.<task>.<kind>[.<role>][.<by>]``, where ``part`` shares jobs out between managers, ``task`` is
``_`` for the job's own chain, ``kind`` is the last word of the message's kind, ``role`` says whose queue it is for and
``by`` who sends it, which the broker holds senders to.
"""

import zlib
from dataclasses import dataclass
from functools import cache

from interlock.protocol.codec import kind_of
from interlock.protocol.messages import (
    JOB_TASK,
    EffectDone,
    EffectInDoubt,
    EffectIntended,
    Envelope,
    QuestionAsked,
    TaskAssigned,
    TaskResult,
    TaskVerdict,
)

__all__ = [
    "PARTITIONS",
    "LogSubject",
    "SubjectInvalid",
    "assigned_subjects",
    "chain_subjects",
    "closed_subject",
    "closed_subjects",
    "is_chained",
    "job_chains",
    "job_subjects",
    "live_subject",
    "live_subjects",
    "log_subject",
    "log_subjects",
    "parse_log_subject",
    "partition_of",
    "queue_subjects",
    "result_subjects",
    "sent_by",
    "submitted_subject",
    "submitted_subjects",
    "task_effects",
]

PARTITIONS = 16
"""How many parts the jobs of a namespace are shared into. Fixed: it is written into every subject of the log."""

_FOR_ROLE = frozenset({"assigned", "result"})
_SIGNED = frozenset({"result", "verdict", "asked", "intended", "done", "in_doubt"})
_RECORD_MARK = "!"
"""Ends the task token of what is recorded about a task outside its chain, so that a chain's wildcard leaves it out."""


class SubjectInvalid(ValueError):
    """A subject that is none of the log's."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        form = "il.<ns>.log.<part>.<job>.<task>.<kind>[.<role>][.<by>]"
        super().__init__(f"{subject!r} is no subject of the log: {form}")


@dataclass(frozen=True, slots=True)
class LogSubject:
    """The parts of a log subject."""

    ns: str
    part: int
    job: str
    task: str
    kind: str
    """The last word of the message's kind."""
    role: str | None
    """Whose queue it is for."""
    by: str | None
    """Who sent it; None: it is of a kind that no worker or verifier sends."""
    chained: bool
    """Whether the entry stands in its task's chain."""


def partition_of(job: str) -> int:
    """Return the partition of ``job``, from 0 to ``PARTITIONS - 1``, the same on every machine."""
    return zlib.crc32(job.encode()) % PARTITIONS


def log_subject(message: Envelope) -> str:
    """Return the subject that ``message`` is published to."""
    task = message.task if is_chained(message) else message.task + _RECORD_MARK
    return ".".join([_task_prefix(message.ns, message.job, task), _last_word(type(message)), *_roles_of(message)])


def is_chained(message: Envelope) -> bool:
    """Return whether ``message`` is an entry of its task's chain, and not a record beside it."""
    return not isinstance(message, EffectDone | EffectInDoubt)


def chain_subjects(ns: str, job: str, task: str = JOB_TASK) -> str:
    """Return the wildcard over one chain: what the broker compares the expected sequence with."""
    return f"{_task_prefix(ns, job, task)}.>"


def job_chains(ns: str) -> str:
    """Return the wildcard over the own chains of all jobs: a few entries each, whatever the number of tasks."""
    return f"il.{ns}.log.*.*.{JOB_TASK}.>"


def job_subjects(ns: str, job: str) -> str:
    """Return the wildcard over everything in the log about ``job``."""
    return f"il.{ns}.log.{partition_of(job)}.{job}.>"


def log_subjects(ns: str, part: int | None = None) -> str:
    """Return the wildcard over one partition of the log, or over all of it."""
    return f"il.{ns}.log.>" if part is None else f"il.{ns}.log.{part}.>"


def queue_subjects(ns: str, kind: str, role: str, job: str | None = None) -> str:
    """Return the wildcard over a role's queue, of one job or of all; ``kind`` is ``assigned`` or ``result``."""
    jobs = "*.*" if job is None else f"{partition_of(job)}.{job}"
    return f"il.{ns}.log.{jobs}.*.{kind}.{role}{'.*' if kind in _SIGNED else ''}"


def sent_by(ns: str, kind: str, by: str) -> str:
    """Return the wildcard over what one role sends; ``kind`` is the last word of the kind of messages."""
    return f"il.{ns}.log.*.*.*.{kind}.{'*.' if kind in _FOR_ROLE else ''}{by}"


def submitted_subject(ns: str, job: str) -> str:
    """Return the subject of the first entry of ``job``."""
    return f"{_task_prefix(ns, job, JOB_TASK)}.submitted"


def submitted_subjects(ns: str) -> str:
    """Return the wildcard over the first entry of every job."""
    return f"il.{ns}.log.*.*.{JOB_TASK}.submitted"


def closed_subject(ns: str, job: str) -> str:
    """Return the subject of the end of ``job``."""
    return f"{_task_prefix(ns, job, JOB_TASK)}.closed"


def closed_subjects(ns: str) -> str:
    """Return the wildcard over the end of every job."""
    return f"il.{ns}.log.*.*.{JOB_TASK}.closed"


def assigned_subjects(ns: str, job: str, task: str) -> str:
    """Return the wildcard over a task's assignments; the last one is what an open result answers to."""
    return f"{_task_prefix(ns, job, task)}.assigned.*"


def result_subjects(ns: str, job: str) -> str:
    """Return the wildcard over all results of ``job``."""
    return f"{_task_prefix(ns, job, '*')}.result.>"


def task_effects(ns: str, job: str, task: str) -> tuple[str, str]:
    """Return the wildcards over the effects of a task: those that were intended, and what became of them."""
    return f"{_task_prefix(ns, job, task)}.intended.>", f"{_task_prefix(ns, job, task + _RECORD_MARK)}.>"


def live_subject(ns: str, job: str, by: str, event: str) -> str:
    """Return the subject of a progress event that nobody must keep; ``by`` is the role that tells of it."""
    return f"il.{ns}.live.{job}.{by}.{event}"


def live_subjects(ns: str, job: str) -> str:
    """Return the wildcard over the progress of ``job``."""
    return f"il.{ns}.live.{job}.>"


def parse_log_subject(subject: str) -> LogSubject:
    """Return the parts of ``subject``.

    :raises SubjectInvalid: it is no subject of the log
    """
    match subject.split("."):
        case ["il", ns, "log", part, job, task, kind, *roles] if (
            len(roles) == (kind in _FOR_ROLE) + (kind in _SIGNED)
            and part.isascii()
            and part.isdecimal()
            and all((ns, job, task, kind, *roles))
        ):
            role = roles[0] if kind in _FOR_ROLE else None
            by = roles[-1] if kind in _SIGNED else None
            chained = not task.endswith(_RECORD_MARK)
            return LogSubject(ns, int(part), job, task.removesuffix(_RECORD_MARK), kind, role, by, chained)
        case _:
            raise SubjectInvalid(subject)


@cache
def _last_word(message: type[Envelope]) -> str:
    """Return the last word of a message's kind."""
    return kind_of(message).rpartition(".")[2]


def _roles_of(message: Envelope) -> list[str]:
    match message:
        case TaskAssigned():
            return [message.role]
        case TaskResult():
            return [message.role, message.by]
        case TaskVerdict() | QuestionAsked() | EffectIntended() | EffectDone() | EffectInDoubt():
            return [message.by]
        case _:
            return []


def _task_prefix(ns: str, job: str, task: str) -> str:
    return f"il.{ns}.log.{partition_of(job)}.{job}.{task}"
