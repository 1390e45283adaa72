"""When a request to a model is sent again, and after how long."""

import random
from dataclasses import dataclass

from interlock.backends.errors import (
    ModelError,
    ModelRateLimited,
    ModelServerFailed,
    ModelTimedOut,
    ModelUnreachable,
)

__all__ = ["RetrySettings", "seconds_before_retry"]


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How persistent a client is. All times are seconds."""

    attempts: int = 4
    """How often a request is sent at most, the first time included."""
    first_wait: float = 0.5
    """The longest wait before the second attempt; it doubles with each further one."""
    longest_wait: float = 20.0
    """No wait that the client chooses itself is longer."""
    longest_retry_after: float = 60.0
    """A server that asks for a longer wait than this gets no further attempt: coming sooner would only be refused."""
    patience: float = 0.0
    """For how long a server that takes no connection is tried, whatever ``attempts`` says: it is being started."""
    longest_knock: float = 2.0
    """No wait is longer while there is patience."""


def seconds_before_retry(error: ModelError, attempt: int, settings: RetrySettings, waited: float = 0.0) -> float | None:
    """Return how long to wait after the failed ``attempt`` (from 1), or None where another one is pointless.

    :param waited: seconds since the first attempt began

    What the server asks for is kept to, plus a little that differs from client to client; otherwise the wait is random
    between nothing and a bound that doubles each time, so that many clients do not come back at once.
    """
    if isinstance(error, ModelUnreachable) and waited < settings.patience:
        return _jitter(min(settings.longest_knock, settings.first_wait * 2.0 ** min(attempt - 1, 10)))
    if attempt >= settings.attempts:
        return None
    match error:
        case ModelRateLimited(retry_after=float(asked)) | ModelServerFailed(retry_after=float(asked)):
            return None if asked > settings.longest_retry_after else asked + _jitter(settings.first_wait)
        case ModelRateLimited() | ModelServerFailed() | ModelUnreachable() | ModelTimedOut():
            return _jitter(min(settings.longest_wait, settings.first_wait * 2 ** (attempt - 1)))
        case _:
            return None


def _jitter(most: float) -> float:
    return random.uniform(0, most)  # noqa: S311 -- it spreads load and keeps no secret
