"""A storm that was only late gets a second look; one that lost or doubled something never does."""

import pytest
from tests.chaos.storm.__main__ import Account
from tests.oracle import Finding


@pytest.mark.parametrize(
    ("account", "again"),
    [
        (Account("x"), False),
        (Account("x", late=["taken over after 40 s"]), True),
        (Account("x", late=["late"], faults=["exit status 3"]), False),
        (Account("x", Finding(doubled=["one"]), late=["late"]), False),
        (Account("x", Finding(lost=["one"]), late=["late"]), False),
        (Account("x", Finding(lost=["one"]), late=["stopped"], stopped=True), True),
        (Account("x", Finding(doubled=["one"]), late=["stopped"], stopped=True), False),
    ],
)
def test_only_what_was_late_is_looked_at_again(account: Account, again: bool) -> None:
    assert account.only_late is again


def test_what_stays_open_is_told_though_the_agents_stopped_themselves() -> None:
    account = Account("x", Finding(lost=["one"]), late=["stopped"], stopped=True)
    assert account.offences == ["stopped", "lost: one"]
