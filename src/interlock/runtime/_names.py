"""What the streams of a namespace and the queues of its roles are called at the broker."""

from typing import Literal, TypeAlias

from interlock.protocol.base import Role

LANES = 16
"""How many jobs of one team can have queues of their own at one time, where agents have credentials of their own."""

QueueKind: TypeAlias = Literal["assigned", "result"]
"""What is in a queue: assignments for workers, or results for verifiers."""

QUEUE_JOB = "interlock-job"
"""What the metadata of a queue call the job that it is for."""


def log_stream(ns: str) -> str:
    """Return the name of the stream that the log is."""
    return f"IL_{ns}"


def control_stream(ns: str) -> str:
    """Return the name of the stream of orders and policy."""
    return f"IL_{ns}_CONTROL"


def state_stream(ns: str) -> str:
    """Return the name of the stream of what changes: presence, partitions, teams."""
    return f"IL_{ns}_STATE"


def state_subject(ns: str, key: str) -> str:
    """Return the subject of a key there, or of many."""
    return f"il.{ns}.state.{key}"


def budget_stream(ns: str) -> str:
    """Return the name of the stream of what jobs have used of their budgets."""
    return f"IL_{ns}_BUDGET"


def budget_subject(ns: str, key: str) -> str:
    """Return the subject of a counter there, or of many."""
    return f"il.{ns}.budget.{key}"


def bucket(ns: str) -> str:
    """Return the name of the object store for large bodies."""
    return f"IL_{ns}"


def bucket_stream(ns: str) -> str:
    """Return the name of the stream that the object store is."""
    return f"OBJ_{bucket(ns)}"


def streams_of(ns: str) -> tuple[str, ...]:
    """Return the names of all streams of the namespace."""
    return log_stream(ns), control_stream(ns), bucket_stream(ns), state_stream(ns), budget_stream(ns)


def queue_name(kind: QueueKind, role: Role, lane: int) -> str:
    """Return the name of a role's queue: lane 0 is that of all jobs, each of the others that of one.

    No two roles share a name: none of them begins with a digit, and a team may end in one.
    """
    return f"{kind}-{lane}-{role}" if lane else f"{kind}-{role}"
