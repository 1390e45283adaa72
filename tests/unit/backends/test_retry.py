import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.backends._openai_wire import parse_retry_after
from interlock.backends.errors import (
    ModelAnswerMalformed,
    ModelError,
    ModelRateLimited,
    ModelRefusedRequest,
    ModelServerFailed,
    ModelTimedOut,
    ModelUnauthorised,
    ModelUnreachable,
)
from interlock.backends.retry import RetrySettings, seconds_before_retry

SETTINGS = RetrySettings(attempts=5, first_wait=1, longest_wait=3, longest_retry_after=10)
PASSING = [
    ModelUnreachable("u", "m", "r"),
    ModelTimedOut("u", "m", 1),
    ModelRateLimited("u", "m", None, ""),
    ModelServerFailed("u", "m", 500, None, ""),
]
FINAL = [
    ModelRefusedRequest("u", "m", 400, ""),
    ModelUnauthorised("u", "m", 401, "K"),
    ModelAnswerMalformed("u", "m", "", ""),
]


@given(st.sampled_from(PASSING), st.integers(1, 4))
def test_the_wait_grows_up_to_its_bound(error: ModelError, attempt: int) -> None:
    """A wait that the client chooses is at most the first one doubled with each attempt, and never over the bound."""
    wait = seconds_before_retry(error, attempt, SETTINGS)
    assert wait is not None
    assert 0 <= wait <= min(3, 2 ** (attempt - 1))


@given(st.floats(0, 10), st.integers(1, 4))
def test_what_the_server_asks_for_is_kept_to(asked: float, attempt: int) -> None:
    """The wait is never shorter than asked for, and longer only by the jitter."""
    wait = seconds_before_retry(ModelRateLimited("u", "m", asked, ""), attempt, SETTINGS)
    assert wait is not None
    assert asked <= wait <= asked + 1


@pytest.mark.parametrize("error", [*PASSING, *FINAL])
def test_the_last_attempt_is_the_last(error: ModelError) -> None:
    """There is no wait after the last attempt."""
    assert seconds_before_retry(error, 5, SETTINGS) is None


@pytest.mark.parametrize("error", FINAL)
def test_what_cannot_pass_is_not_tried_again(error: ModelError) -> None:
    """Refusals and malformed answers are final at once."""
    assert seconds_before_retry(error, 1, SETTINGS) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2),
        ("0.5", 0.5),
        ("-3", 0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0),
        ("soon", None),
        ("", None),
        ("inf", None),
        ("nan", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    """Both forms of the header are understood, and nonsense counts as absent."""
    assert parse_retry_after({"retry-after": value}, now=60) == seconds


@given(st.text(max_size=40))
def test_any_retry_after_is_survived(value: str) -> None:
    """No header makes the client crash, and what is understood is a usable time."""
    seconds = parse_retry_after({"retry-after": value}, now=60)
    assert seconds is None or 0 <= seconds < float("inf")
