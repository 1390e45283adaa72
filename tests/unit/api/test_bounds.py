"""How often, and from where."""

import pytest

from interlock.runtime.api.bounds import Rates
from interlock.runtime.api.settings import is_loopback


def test_a_bucket_fills_again_with_time() -> None:
    """As many as the burst at once, then one for each of its moments; one who asks takes nothing from another."""
    rates = Rates(per_second=2, burst=3)
    assert [rates.take("a", 0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert rates.take("b", 0) == 0
    assert rates.take("a", 0.25) == pytest.approx(0.25)
    assert rates.take("a", 0.5) == 0
    assert rates.take("a", 0.5) == pytest.approx(0.5)
    assert [rates.take("a", 100) for _ in range(4)] == [0, 0, 0, 0.5]


def test_not_everybody_is_remembered() -> None:
    """However many addresses ask, what is remembered of them is bounded."""
    rates = Rates(per_second=1, burst=1)
    for number in range(20_000):
        rates.take(str(number), 0)
    assert len(rates._buckets) <= 10_000


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("0.0.0.0", False),  # noqa: S104 -- it is told from the loopback here
        ("192.168.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_what_is_this_machine(host: str, local: bool) -> None:
    """Only names and addresses of the loopback interface are."""
    assert is_loopback(host) is local
