"""Which of several servers gets a request."""

from itertools import pairwise

from interlock.backends._pool import FIRST_ASIDE, LONGEST_ASIDE, Pool


def test_the_least_busy_server_is_next() -> None:
    """Requests go where the fewest are open; equal ones take turns."""
    pool = Pool(3)
    picked: list[int | None] = []
    for _ in range(6):
        index = pool.pick(0.0)
        assert index is not None
        pool.began(index)
        picked.append(index)
    assert picked == [0, 1, 2, 0, 1, 2]
    pool.ended(1)
    assert pool.pick(0.0) == 1
    assert Pool(3, start=7).pick(0.0) == 1, "processes begin with different servers"


def test_a_failed_server_is_put_aside_and_comes_back_on_trial() -> None:
    """It gets nothing until its time is over, then one request at a time, and all again once it answered."""
    pool = Pool(2)
    pool.failed(0, 10.0)
    assert [pool.pick(10.1) for _ in range(3)] == [1, 1, 1]
    late = 10.0 + FIRST_ASIDE
    assert pool.pick(late) == 0
    assert pool.servers[0].on_trial
    assert [pool.pick(late) for _ in range(2)] == [1, 1], "on trial it is nobody else's"
    pool.answered(0)
    assert {pool.pick(late) for _ in range(2)} == {0, 1}


def test_who_failed_again_is_left_alone_for_longer() -> None:
    """The time doubles up to its bound; a server can ask for more itself; many failures at once count once."""
    pool, now, waits = Pool(1), 0.0, []
    for _ in range(10):
        pool.failed(0, now)
        pool.failed(0, now)
        waits.append(pool.servers[0].back_at - now)
        now = pool.servers[0].back_at
    assert waits[:3] == [FIRST_ASIDE, FIRST_ASIDE * 2, FIRST_ASIDE * 4]
    assert waits[-1] == LONGEST_ASIDE
    assert all(one <= other for one, other in pairwise(waits))
    busy = Pool(1)
    busy.failed(0, 0.0, asked=7.0)
    assert busy.servers[0].back_at == 7.0


def test_a_request_tries_each_server_once() -> None:
    """Where all are aside there is still one to ask, the one that is due first; then there is none left."""
    pool = Pool(2)
    pool.failed(0, 0.0, asked=9.0)
    pool.failed(1, 0.0, asked=5.0)
    assert pool.pick(1.0) == 1
    assert pool.pick(1.0, {1}) is None
    assert Pool(2).pick(0.0, {0, 1}) is None
