"""Names do not matter: with other names for clients and requests the decisions are the same."""

from __future__ import annotations

import attrs

from fairprefix.core.config import PolicyConfig
from fairprefix.testing.checks.determinism import same_decisions
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import anything
from fairprefix.testing.events import History
from fairprefix.testing.lab import Lab


def check(lab: Lab, history: History) -> None:
    """Run again with names that sort the other way round."""
    renamed = Lab(attrs.evolve(lab.subject, config=_renamed(lab, history)), lab.deadline, lab.call_limit_s)
    plain = attrs.evolve(history, weights=())
    other = renamed.run(plain, client_name=mirrored, request_name=mirrored)
    same_decisions("with other names, the policy", lab.run(history).decisions(), other.decisions())


def mirrored(name: str) -> str:
    """Return a name for a name: what came before another one comes after it."""
    return "x" + "".join(chr(0x2000 - ord(letter)) for letter in name) + "\u2fff"


def _renamed(lab: Lab, history: History) -> PolicyConfig:
    config = lab.subject.configured(history)
    return attrs.evolve(config, weights={mirrored(client): weight for client, weight in config.weights.items()})


CHECK = Check(
    name="relabelling",
    claim="decisions do not depend on what clients and requests are called",
    run=check,
    data=anything,
)
