"""The kit as a test class: one test per check, for pytest and unittest alike.

    from fairprefix.testing import Claims
    from fairprefix.testing.suite import PolicySuite

    class TestMine(PolicySuite):
        make_policy = staticmethod(my_make_policy)
        claims = Claims(bound="dlpm")

`pytest -k bound` then runs the checks whose name holds "bound"; checks that need a claim which you do not make are
skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar
from unittest import SkipTest

from fairprefix.core.config import PolicyConfig
from fairprefix.testing.checks import CHECKS, Check
from fairprefix.testing.claims import Claims
from fairprefix.testing.report import SKIPPED
from fairprefix.testing.runner import SMALL, check_policy

__all__ = ["PolicySuite"]

EXAMPLES = "FAIRPREFIX_EXAMPLES"
SEED = "FAIRPREFIX_SEED"
"""Environment variables that have the last word; the pytest plugin sets them from its options."""


class PolicySuite:
    """One test method for each check of the kit; a subclass says what is tested."""

    make_policy: ClassVar[Any]  # a `MakePolicy`; type checkers would bind it to the instance
    """Called with (config, prefixes) for each history; wrap a plain function in `staticmethod`."""
    claims: ClassVar[Claims] = Claims()
    config: ClassVar[PolicyConfig] = SMALL
    examples: ClassVar[int] = 100
    seed: ClassVar[int] = 0

    def run_check(self, name: str) -> None:
        """Run one check.

        Raises:
            ConformanceError: it failed; the message is the story.
            SkipTest: the policy does not claim what it checks.
        """
        report = check_policy(
            type(self).make_policy,
            claims=self.claims,
            config=self.config,
            examples=int(os.environ.get(EXAMPLES, self.examples)),
            seed=int(os.environ.get(SEED, self.seed)),
            only=(name,),
        )
        verdict = report[name]
        if verdict.status == SKIPPED:
            raise SkipTest(verdict.detail)
        report.raise_if_failed()


def _test_of(check: Check) -> Callable[[PolicySuite], None]:
    def test(self: PolicySuite) -> None:
        self.run_check(check.name)

    test.__doc__ = check.claim
    test.__name__ = test.__qualname__ = f"test_{check.name}"
    return test


for _check in CHECKS:
    setattr(PolicySuite, f"test_{_check.name}", _test_of(_check))
