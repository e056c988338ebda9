"""Whom SGLang should admit in this pass, in which order: a plan as far as the prefill budget reaches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fairprefix.adapters.sglang.sharing import Sharing
from fairprefix.adapters.sglang.views import Tracked
from fairprefix.core.policy import Policy, Refusal
from fairprefix.core.request import Request

_ROUNDS = 3
"""How often a plan is made anew because of shared prefixes."""


class Planner:
    """Plans one pass.

    Args:
        policy: who decides.
        find: from requests to what is kept about them.
        sharing: thresholds of in-batch prefix sharing; None when nothing can be shared.
    """

    def __init__(
        self, policy: Policy, find: Callable[[Sequence[Request]], list[Tracked]], sharing: Sharing | None
    ) -> None:
        self._policy = policy
        self._find = find
        self._sharing = sharing

    def plan(self, most: int, budget: int) -> tuple[list[Tracked], bool]:
        """Return whom to admit, in order, and whether the policy admits nobody else in this pass.

        Args:
            most: requests for which there is room.
            budget: tokens that this pass can compute.
        """
        planned, complete = self._reach(most, budget)
        if self._sharing is None:
            return planned, complete
        first, followers = planned, list[Tracked]()
        for _ in range(_ROUNDS):
            found = self._sharing.followers(planned)
            if not found:
                break
            for entry in found:
                entry.put_back += 1
                self._policy.defer(entry.id, Refusal.NO_ROOM)
            followers += found
            planned, _ = self._reach(most, budget)
        if followers:
            # Those put back, and whoever was offered because they would go first, follow in the old order.
            planned = list(dict.fromkeys([*planned, *followers, *first]))
        return planned, complete

    def _reach(self, most: int, budget: int) -> tuple[list[Tracked], bool]:
        """Plan until the budget is used up, or the room, or nobody is left."""
        planned = self._find(self._policy.plan(most, budget=budget))
        complete = len(planned) < most and sum(entry.tokens - entry.matched for entry in planned) < budget
        return planned, complete
