"""Credit decides: a client is offered only while its deficit counter allows it, and refills happen together."""

from __future__ import annotations

from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import anything, contests
from fairprefix.testing.rules import follow

CHECK = Check(
    name="refill_rules",
    claim="only clients with credit are offered, and all due clients are refilled when every queued one is due",
    run=follow,
    data=lambda subject: anything(subject) | contests(subject),
    enabled_by="bound = dlpm or credit",
    applies=lambda claims, _config: claims.rule in ("dlpm", "credit"),
)
