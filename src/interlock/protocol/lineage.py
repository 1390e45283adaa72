"""Whose child a job is: the id of a child's job says it, so that whoever knows a job knows all jobs around it.

A child's id is its parent's, a colon, and a digest of the attempt that it does the work of. So an attempt has one
child, however often it is begun, and orders and budgets of a job reach everything below it without a look into the
log. An id that a person chooses has no colon.
"""

from hashlib import sha256

from interlock.protocol.messages import Token

__all__ = ["SEPARATOR", "ancestors_of", "child_job", "depth_of", "is_within", "root_of"]

SEPARATOR = ":"
_DIGITS = 12


def child_job(parent: Token, task: Token, attempt: int) -> Token:
    """Return the id of the job that does the work of one attempt of a task of ``parent``."""
    return f"{parent}{SEPARATOR}{sha256(f'{task} {attempt}'.encode()).hexdigest()[:_DIGITS]}"


def ancestors_of(job: Token) -> tuple[Token, ...]:
    """Return the jobs that ``job`` is a part of, outermost first, itself left out."""
    parts = job.split(SEPARATOR)
    return tuple(SEPARATOR.join(parts[:length]) for length in range(1, len(parts)))


def root_of(job: Token) -> Token:
    """Return the outermost job that ``job`` is a part of, which may be itself."""
    return job.partition(SEPARATOR)[0]


def depth_of(job: Token) -> int:
    """Return at which level a job is: 1 for one that is part of no other."""
    return job.count(SEPARATOR) + 1


def is_within(job: Token, other: Token) -> bool:
    """Whether ``job`` is ``other`` or a part of it, at any depth."""
    return job == other or job.startswith(f"{other}{SEPARATOR}")
