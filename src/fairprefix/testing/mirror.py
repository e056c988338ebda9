"""A trace told to an oracle, fact by fact: what the published algorithm thinks of each decision."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fairprefix.core.config import PolicyConfig
from fairprefix.core.request import Client
from fairprefix.testing import trace as tr
from fairprefix.testing.claims import Claims
from fairprefix.testing.oracle import DLPMOracle, FCFSOracle, Job, LPMOracle, Oracle, Settings, VTCOracle


def oracle_of(claims: Claims, config: PolicyConfig, block: int, clients: Iterable[Client]) -> Oracle:
    """Return the transcription that a policy with these claims is measured against."""
    settings = Settings(
        block_size=block,
        quantum=config.quantum,
        weights={client: config.weight(client) for client in clients},
        w_e=config.cost_extend,
        w_q=config.cost_output,
        bounded_wait=claims.bounded_wait,
        slack=config.slack if claims.rule == "credit" else None,
        overdraft=config.overdraft,
        recompute_is_charged=config.recompute == "charged",
        vtc_charges_extend=config.vtc_charge == "extend",
    )
    if claims.rule in ("dlpm", "credit"):
        return DLPMOracle(settings)
    if claims.rule == "vtc":
        return VTCOracle(settings)
    return LPMOracle(settings) if claims.locality_aware else FCFSOracle(settings)


class Mirror:
    """Keeps an oracle in step with a trace."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        jobs = oracle.jobs
        self._steps: dict[type[tr.Fact], Callable[[Any], None]] = {
            tr.Arrived: lambda fact: oracle.arrive(
                Job(fact.id, fact.client, fact.prompt, fact.longest, fact.prefix)
            ),
            tr.Passed: lambda _fact: oracle.begin_pass(),
            tr.Taken: lambda fact: oracle.admit(jobs[fact.id], fact.extend, fact.reserve),
            tr.Refunded: lambda fact: oracle.refund(jobs[fact.id]),
            tr.Deferred: lambda fact: oracle.refuse(jobs[fact.id]),
            tr.Blocked: lambda fact: oracle.block(jobs[fact.id]),
            tr.Unblocked: lambda fact: oracle.unblock(jobs[fact.id]),
            tr.Produced: self._produce,
            tr.Preempted: lambda fact: oracle.preempt(jobs[fact.id], held=fact.hold),
            tr.Finished: lambda fact: oracle.finish(jobs[fact.id]),
            tr.Reweighed: lambda fact: oracle.reweigh(fact.client, fact.weight),
            tr.Cached: lambda fact: oracle.cache.update(("", block) for block in fact.blocks),
            tr.Evicted: lambda fact: oracle.cache.discard(("", fact.blocks[-1])),
        }

    def feed(self, fact: tr.Fact) -> None:
        """Tell the oracle what happened; facts that the driver only concluded are none of its business."""
        step = self._steps.get(type(fact))
        if step:
            step(fact)

    def _produce(self, fact: tr.Produced) -> None:
        for id, tokens in fact.tokens:
            self.oracle.produce(self.oracle.jobs[id], tokens)
