"""Which of several servers of one model a request goes to: the one with the fewest open, none that fails. Pure.

A server that fails is put aside, longer each time. When its time is over it is on trial: whoever is given it looks
whether it answers before anything is sent there, and nobody else gets it meanwhile.
"""

from collections.abc import Collection
from dataclasses import dataclass

FIRST_ASIDE = 0.5
"""Seconds for which a server is put aside the first time; it doubles each time."""
LONGEST_ASIDE = 30.0


@dataclass(slots=True)
class Server:
    """One of the servers."""

    open: int = 0
    """Requests that it has not answered yet, of this process."""
    failures: int = 0
    """In a row."""
    back_at: float = 0.0
    """When it may be tried again, where it failed."""
    on_trial: bool = False


class Pool:
    """What is known of the servers, by their positions. Times are seconds of any one clock."""

    def __init__(self, size: int, start: int = 0) -> None:
        """Begin with all servers in order.

        :param start: where equal ones are counted from, so that many processes do not all begin with the same
        """
        self.servers = [Server() for _ in range(size)]
        self._next = start % size

    def pick(self, now: float, tried: Collection[int] = ()) -> int | None:
        """Return the server for a request that ``tried`` did not answer; None: no other is worth trying.

        One that was aside and is due goes first, on trial. Where all are aside, who has tried none yet gets the one
        that is due first, so that there is always an answer or a reason.
        """
        left = [index for index in self._in_turn() if index not in tried]
        due = [index for index in left if self._is_due(index, now)]
        if due:
            self.servers[due[0]].on_trial = True
            return due[0]
        fine = [index for index in left if not self.servers[index].failures]
        if fine:
            self._next = (min(fine, key=lambda index: self.servers[index].open) + 1) % len(self.servers)
            return (self._next - 1) % len(self.servers)
        return None if tried or not left else min(left, key=lambda index: self.servers[index].back_at)

    def began(self, index: int) -> None:
        """Count a request that is sent."""
        self.servers[index].open += 1

    def ended(self, index: int) -> None:
        """Count a request that came to an end, whichever."""
        self.servers[index].open -= 1

    def answered(self, index: int) -> None:
        """Take a server for sound."""
        server = self.servers[index]
        server.failures, server.on_trial = 0, False

    def failed(self, index: int, now: float, asked: float | None = None) -> None:
        """Put a server aside; many that fail at the same time count once.

        :param asked: seconds that it asked for itself
        """
        server = self.servers[index]
        if not server.failures or now >= server.back_at:
            server.failures += 1
            wait = min(LONGEST_ASIDE, FIRST_ASIDE * 2.0 ** min(server.failures - 1, 10))
            server.back_at = now + (wait if asked is None else min(LONGEST_ASIDE, max(wait, asked)))
        server.on_trial = False

    def _in_turn(self) -> list[int]:
        size = len(self.servers)
        return [(self._next + step) % size for step in range(size)]

    def _is_due(self, index: int, now: float) -> bool:
        server = self.servers[index]
        return bool(server.failures) and not server.on_trial and now >= server.back_at
