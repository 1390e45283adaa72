"""Which kill orders stand, and whom they bind."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.protocol.control import (
    AgentScope,
    AllScope,
    ControlOrder,
    JobScope,
    Order,
    TeamScope,
    control_subject,
    decode_order,
    standing,
    stop_of,
)
from interlock.protocol.errors import ProtocolError

_SCOPES = (
    AllScope(),
    TeamScope(team="digest"),
    TeamScope(team="other"),
    JobScope(job="digest-1"),
    JobScope(job="digest-2"),
    AgentScope(team="digest", agent="reader"),
    AgentScope(team="other", agent="reader"),
)
_orders = st.lists(st.tuples(st.sampled_from(_SCOPES), st.booleans()), max_size=12)


def _order(epoch: int, scope: AllScope | TeamScope | JobScope | AgentScope, *, stop: bool) -> Order:
    return Order(epoch, ControlOrder(id=f"o{epoch}", stop=stop, scope=scope, at=datetime(2026, 1, 1, tzinfo=UTC)))


@given(_orders, st.randoms(use_true_random=False))
def test_the_newest_order_of_a_scope_stands(given_orders: list[tuple[TeamScope, bool]], chance: object) -> None:
    """In whatever sequence orders are read, the one with the highest epoch of each scope stands."""
    orders = [_order(epoch, scope, stop=stop) for epoch, (scope, stop) in enumerate(given_orders, 1)]
    shuffled = list(orders)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis's Random
    last = {control_subject("main", order.order.scope): order for order in orders}
    assert standing(shuffled, "main") == last


@pytest.mark.parametrize(
    ("scope", "job", "reader", "checker"),
    [
        (AllScope(), True, True, True),
        (TeamScope(team="digest"), True, True, True),
        (TeamScope(team="other"), False, False, False),
        (JobScope(job="digest-1"), True, True, True),
        (JobScope(job="digest-2"), False, False, False),
        (AgentScope(team="digest", agent="reader"), False, True, False),
        (AgentScope(team="other", agent="reader"), False, False, False),
    ],
)
def test_a_kill_binds_its_scope_and_nothing_else(
    scope: AllScope | TeamScope | JobScope | AgentScope, *, job: bool, reader: bool, checker: bool
) -> None:
    """An order stops exactly what it is about: a job with all its agents, or one agent and no job."""
    orders = standing([_order(1, scope, stop=True)], "main")
    found = [stop_of(orders, team="digest", job="digest-1", agent=agent) for agent in (None, "reader", "checker")]
    assert [one is not None for one in found] == [job, reader, checker]


def test_a_resume_lifts_its_own_scope_only() -> None:
    """A team stays killed by ``all`` when the team is resumed, and is free once both are."""
    killed = [_order(1, AllScope(), stop=True), _order(2, TeamScope(team="digest"), stop=True)]
    team_resumed = [*killed, _order(3, TeamScope(team="digest"), stop=False)]
    both_resumed = [*team_resumed, _order(4, AllScope(), stop=False)]
    left = stop_of(standing(team_resumed, "main"), team="digest", job="j")
    assert left is not None
    assert left.epoch == 1
    assert stop_of(standing(both_resumed, "main"), team="digest", job="j") is None


@pytest.mark.parametrize("scope", _SCOPES)
def test_an_order_comes_through_the_wire(scope: AllScope | TeamScope | JobScope | AgentScope) -> None:
    """An order reads as it was written, and its subject is one of the control subjects, with no wildcard in it."""
    order = _order(1, scope, stop=True).order
    assert decode_order(order.model_dump_json().encode()) == order
    subject = control_subject("main", scope)
    assert subject.startswith("il.main.control.")
    assert not {"*", ">"} & set(subject.split("."))


@given(st.binary(max_size=200))
def test_what_is_no_order_is_a_typed_error(body: bytes) -> None:
    """Any bytes are an order or a ``ProtocolError``."""
    try:
        decode_order(body)
    except ProtocolError as error:
        assert str(error)  # noqa: PT017 -- most bytes raise, and some may not
