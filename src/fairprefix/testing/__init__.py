"""A conformance kit for scheduling policies: factory in, named checks out.

    from fairprefix.testing import Claims, check_policy

    check_policy(make_policy, claims=Claims(bound="dlpm")).raise_if_failed()

It works under any test runner, and needs the extra `fairprefix[testing]` (Hypothesis) and nothing else.
"""

from __future__ import annotations

try:
    import hypothesis as _hypothesis  # noqa: F401 (only to say clearly that it is missing)
except ImportError as _missing:
    if _missing.name != "hypothesis":
        raise
    raise ImportError("fairprefix.testing needs Hypothesis: pip install 'fairprefix[testing]'") from None

from fairprefix.testing import strategies
from fairprefix.testing.claims import Claims
from fairprefix.testing.report import ConformanceError, Report, Verdict
from fairprefix.testing.runner import check_policy
from fairprefix.testing.stateful import policy_machine

__all__ = ["Claims", "ConformanceError", "Report", "Verdict", "check_policy", "policy_machine", "strategies"]
