"""Sharing agents out between jobs: whole, fair, and never nothing."""

from hypothesis import given
from hypothesis import strategies as st

from interlock.protocol.shares import Wish, shares

_WISHES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.builds(Wish, limit=st.integers(1, 200), weight=st.sampled_from([1, 4, 16])),
    max_size=8,
)


@given(_WISHES, st.integers(0, 500))
def test_nobody_gets_nothing_or_more_than_it_may(wishes: dict[str, Wish], room: int) -> None:
    """Every job gets at least one task and at most its limit."""
    given_out = shares(wishes, room)
    assert given_out.keys() == wishes.keys()
    assert all(1 <= given_out[job] <= wish.limit for job, wish in wishes.items())


@given(_WISHES, st.integers(0, 500))
def test_the_room_is_used_and_not_exceeded(wishes: dict[str, Wish], room: int) -> None:
    """All the room is given away as long as somebody wants it; only the one task for each may exceed it."""
    given_out = sum(shares(wishes, room).values())
    wanted = sum(wish.limit for wish in wishes.values())
    assert given_out <= max(room, 0) + len(wishes)
    if room >= len(wishes):
        assert given_out >= min(room, wanted)
    if room >= 21 * len(wishes):  # then even the lightest part is a whole task
        assert given_out == min(room, wanted)


@given(_WISHES, st.integers(0, 500))
def test_nobody_gets_less_than_its_part(wishes: dict[str, Wish], room: int) -> None:
    """What the others do not use only adds to a job's part by weight."""
    weights = sum(wish.weight for wish in wishes.values())
    given_out = shares(wishes, room)
    for job, wish in wishes.items():
        assert given_out[job] >= min(wish.limit, room * wish.weight // weights)


@given(st.integers(1, 100), st.integers(1, 400))
def test_a_heavier_job_gets_more(limit: int, room: int) -> None:
    """Of two jobs that want the same, the one of higher priority never gets less."""
    given_out = shares({"light": Wish(limit, 1), "heavy": Wish(limit, 16)}, room)
    assert given_out["heavy"] >= given_out["light"]
