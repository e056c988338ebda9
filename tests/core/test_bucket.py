"""The accounts whose gate opens in one round: who of them is offered."""

from __future__ import annotations

import pytest

from fairprefix.core.lane import Lane
from fairprefix.core.refill import Bucket, Standing


def standing(reach: int) -> Standing:
    """Return an account that overdraft reaches in that round."""
    account = Standing("a", 1, Lane(None), 0, quantum=1, settled_at=0)
    account.reach = reach
    return account


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_the_best_of_all_reaches_is_offered(order: tuple[int, ...]) -> None:
    """Whatever the order in which they came, the longest prefix is first, among those that overdraft reaches."""
    bucket = Bucket(5)
    offers = [(standing(1), -9, 3), (standing(2), -12, 2), (standing(3), -10, 1)]
    for place in order:
        account, rank, seq = offers[place]
        bucket.push(account, rank, seq)
    best = bucket.best()
    assert best is not None
    assert best[3] is offers[1][0]
    reached = bucket.best(1)
    assert reached is not None
    assert reached[3] is offers[0][0]
    assert bucket.best(0) is None
