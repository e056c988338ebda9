"""The smallest virtual counter decides, a returning client is lifted, and nobody passes a request without room."""

from __future__ import annotations

from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import anything, contests
from fairprefix.testing.rules import follow

CHECK = Check(
    name="lift_rules",
    claim="the smallest counter is offered, a returning client is lifted, and nobody passes a refused request",
    run=follow,
    data=lambda subject: anything(subject) | contests(subject),
    enabled_by="bound = vtc",
    applies=lambda claims, _config: claims.rule == "vtc",
)
