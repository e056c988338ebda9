"""A policy that fails in the middle of its work, to be named in --scheduler-cls."""

from __future__ import annotations

from fairprefix.adapters.vllm import FairScheduler
from fairprefix.core.config import PolicyConfig
from fairprefix.core.dlpm import DLPM
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import Prefixes
from fairprefix.core.request import Request

GOOD_LOOKS = 10


class Failing(DLPM):
    """DLPM, for a while."""

    looks = 0

    def peek(self) -> Request | None:
        """Offer somebody; fail from a certain time on."""
        self.looks += 1
        if self.looks > GOOD_LOOKS:
            raise RuntimeError("this policy fails on purpose")
        return super().peek()


class FailingScheduler(FairScheduler):
    """FairScheduler with that policy."""

    @staticmethod
    def make_policy(config: PolicyConfig, prefixes: Prefixes | None) -> Policy:  # type: ignore[override]
        """Return the policy that fails."""
        return Failing(config, prefixes)
