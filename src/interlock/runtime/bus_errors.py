"""Why the bus did not do what it was asked: one flat class per condition.

::

    BusError
    +-- AnswerRefused        the task has moved on: a normal outcome
    +-- BrokerUnreachable    there is no connection; nothing was sent and nothing will be
    +-- BrokerRefused        the broker does not let these credentials in
    +-- AppendInDoubt        the connection broke during the append; append the same message again to find out
    +-- PublishDenied        these credentials may not publish there
    +-- PayloadTooLarge      the broker takes no message of that size
    +-- LogFull              the log has reached its limit, and nothing enters until there is room
    +-- SubscribeDenied      these credentials may not read there
    +-- ReplyMissing         a request was sent and not answered
    +-- NobodyListens        no stream or consumer stands behind a subject
    +-- LeaderMissing        the cluster has no leader for it right now; nothing was done
    +-- BrokerComplaint      the broker answered a request with an error
    +-- BodyMissing          a stored body is not in the object store
    +-- BodyCorrupt          a stored body is not what its digest says
    +-- SubjectForged        a message says something else than the subject it was let in at
    +-- EntryMissing         there is no entry at a sequence
    +-- NamespaceWrong       a message belongs to another namespace than the bus
    +-- LanesTaken           too many jobs of one team have queues of their own
"""

__all__ = [
    "AnswerRefused",
    "AppendInDoubt",
    "BodyCorrupt",
    "BodyMissing",
    "BrokerComplaint",
    "BrokerRefused",
    "BrokerUnreachable",
    "BusError",
    "EntryMissing",
    "LanesTaken",
    "LeaderMissing",
    "LogFull",
    "NamespaceWrong",
    "NobodyListens",
    "PayloadTooLarge",
    "PublishDenied",
    "ReplyMissing",
    "SubjectForged",
    "SubscribeDenied",
]


class BusError(Exception):
    """The bus did not do what it was asked."""


class AnswerRefused(BusError):
    """The task has moved on: somebody else's message stands where this one would have."""

    def __init__(self, task: str, answers: int, last: int) -> None:
        self.task = task
        self.answers = answers
        """The sequence that the refused message answers."""
        self.last = last
        """The sequence of the chain's head."""
        super().__init__(f"task {task} has moved on: this answers entry {answers}, the last one is {last}")


class BrokerUnreachable(BusError):
    """There is no connection to the broker. What was asked was not sent, and will not be by itself."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(f"the broker at {url} cannot be reached: {reason}")


class BrokerRefused(BusError):
    """The broker does not let these credentials in."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(f"the broker at {url} refused the login: {reason}; check the user, password, token or key")


class AppendInDoubt(BusError):
    """The connection broke during an append and did not come back in time to look."""

    def __init__(self, subject: str, message_id: str) -> None:
        self.subject = subject
        self.message_id = message_id
        super().__init__(
            f"it is not known whether message {message_id} entered the log at {subject}: "
            "append the same message again once the broker is back, it enters only once"
        )


class PublishDenied(BusError):
    """These credentials may not publish to a subject."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        super().__init__(f"the broker's permissions do not let this user publish to {subject}")


class PayloadTooLarge(BusError):
    """The broker takes no message of that size."""

    def __init__(self, subject: str, size: int, limit: int) -> None:
        self.subject = subject
        self.size = size
        self.limit = limit
        """The broker's ``max_payload``, bytes."""
        super().__init__(f"a message of {size} bytes to {subject} is more than the {limit} that the broker takes")


class LogFull(BusError):
    """The log has reached its limit. The message did not enter; the same may be tried again once there is room."""

    def __init__(self, subject: str, text: str) -> None:
        self.subject = subject
        self.text = text
        """What the broker said."""
        super().__init__(
            f"the log takes nothing more ({text}): `interlock archive` makes room by taking finished jobs out of it, "
            "and --log-bytes gives it more"
        )


class SubscribeDenied(BusError):
    """These credentials may not read a subject."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        super().__init__(f"the broker's permissions do not let this user subscribe to {subject}")


class ReplyMissing(BusError):
    """A request was sent and not answered: whether it was carried out is not known."""

    def __init__(self, subject: str, reason: str) -> None:
        self.subject = subject
        self.reason = reason
        super().__init__(f"no answer to a request to {subject}: {reason}")


class NobodyListens(BusError):
    """No stream or consumer stands behind a subject."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        super().__init__(f"nothing listens at {subject}: is JetStream on, and was the stream or consumer deleted?")


class LeaderMissing(BusError):
    """No node of the cluster leads what was asked for: too few nodes are there, or they are choosing one right now.

    What was asked was not done, and will not be by itself.
    """

    def __init__(self, subject: str, reason: str) -> None:
        self.subject = subject
        self.reason = reason
        super().__init__(f"the cluster has no leader for {subject} right now: {reason}")


class BrokerComplaint(BusError):
    """The broker answered a request with an error."""

    def __init__(self, subject: str, code: int, text: str, *, temporary: bool = False) -> None:
        self.subject = subject
        self.code = code
        """The broker's ``err_code``."""
        self.temporary = temporary
        """Whether the broker says that it cannot just now, as it does without a leader."""
        self.text = text
        super().__init__(f"the broker answered {subject} with error {code}: {text}")


class BodyMissing(BusError):
    """A stored body is not in the object store, or not all of it."""

    def __init__(self, digest: str, reason: str) -> None:
        self.digest = digest
        self.reason = reason
        super().__init__(f"the object store lacks body {digest}: {reason}")


class BodyCorrupt(BusError):
    """A stored body is not what its digest says."""

    def __init__(self, digest: str, size: int, found: str, found_size: int) -> None:
        self.digest = digest
        self.found = found
        super().__init__(
            f"the stored body should be {size} bytes with {digest}; the object store has {found_size} with {found}"
        )


class SubjectForged(BusError):
    """A message says something else than the subject that the broker let it in at, which is what its sender may say."""

    def __init__(self, subject: str, claimed: str) -> None:
        self.subject = subject
        self.claimed = claimed
        super().__init__(f"a message for {claimed} was published to {subject}")


class EntryMissing(BusError):
    """There is no entry at a sequence: never written, or purged."""

    def __init__(self, stream: str, sequence: int) -> None:
        self.stream = stream
        self.sequence = sequence
        super().__init__(f"stream {stream} has no entry {sequence}")


class NamespaceWrong(BusError):
    """A message belongs to another namespace than the bus."""

    def __init__(self, ns: str, expected: str) -> None:
        self.ns = ns
        self.expected = expected
        super().__init__(f"a message of namespace {ns} was given to the bus of namespace {expected}")


class LanesTaken(BusError):
    """Too many jobs of one team have queues of their own."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        """How many can at one time."""
        super().__init__(
            f"{lanes} jobs of this team have queues of their own on this broker: wait until one is over, or kill those "
            "that nobody runs any more with `interlock kill --job`"
        )
