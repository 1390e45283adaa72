"""Why bytes are not a message: one flat class per condition.

::

    ProtocolError
    +-- BodyTooLarge        more bytes than a reader takes
    +-- BodyNotJson         not JSON, or nested too deeply to read
    +-- VersionUnknown      a schema version that this reader does not know
    +-- KindUnknown         no such kind of message
    +-- MessageInvalid      a known kind with wrong, missing or unknown fields
    `-- NotInVersion        a message that cannot be said to readers of an older version
"""

__all__ = [
    "BodyNotJson",
    "BodyTooLarge",
    "KindUnknown",
    "MessageInvalid",
    "NotInVersion",
    "ProtocolError",
    "VersionUnknown",
]


class ProtocolError(Exception):
    """Bytes that should have been a message are none."""


class BodyTooLarge(ProtocolError):
    """More bytes than a reader takes."""

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(f"a message body of {size} bytes exceeds the limit of {limit}")


class BodyNotJson(ProtocolError):
    """Not JSON at all, or nested too deeply to be read."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"a message body must be one JSON object in UTF-8: {reason}")


class VersionUnknown(ProtocolError):
    """A schema version that this reader does not know."""

    def __init__(self, version: object, known: int) -> None:
        self.version = version
        self.known = known
        knows = f"versions 1 to {known}" if known > 1 else "version 1"
        super().__init__(f"message schema version {version!r} is unknown here; this reader knows {knows}")


class KindUnknown(ProtocolError):
    """No such kind of message."""

    def __init__(self, kind: object, known: tuple[str, ...]) -> None:
        self.kind = kind
        super().__init__(f"message kind {kind!r} is unknown; known kinds are {', '.join(known)}")


class MessageInvalid(ProtocolError):
    """A known kind with wrong, missing or unknown fields."""

    def __init__(self, kind: str, problems: tuple[str, ...]) -> None:
        self.kind = kind
        self.problems = problems
        super().__init__(f"{kind} is invalid: {'; '.join(problems)}")


class NotInVersion(ProtocolError):
    """A message says what readers of an older version cannot be told."""

    def __init__(self, kind: str, what: str, since: int, version: int) -> None:
        self.kind = kind
        self.version = version
        super().__init__(
            f"{kind} cannot be written in version {version} of the messages, which some machines still read: {what} "
            f"came with version {since}; upgrade them first"
        )
