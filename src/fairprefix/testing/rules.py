"""Whether each offer follows the rule that is claimed: deficit counters refilled together, or virtual counters.

The counters are the oracle's, computed from what really happened; a policy is judged by whom it offers, never
by what it says about itself. Any order inside a client is accepted here, and any among those who may be admitted.
"""

from __future__ import annotations

from fairprefix.testing import trace as tr
from fairprefix.testing.events import History
from fairprefix.testing.lab import Lab
from fairprefix.testing.mirror import Mirror, oracle_of
from fairprefix.testing.oracle import DLPMOracle, Job, Oracle, VTCOracle


def follow(lab: Lab, history: History) -> None:
    """Run a history, and check every offer against the rule."""
    mirror = mirror_of(lab, history)
    for fact in lab.run(history).facts:
        if isinstance(fact, tr.Offered):
            judge(mirror.oracle, fact)
        mirror.feed(fact)


def mirror_of(lab: Lab, history: History) -> Mirror:
    """Return an oracle that has seen nothing yet, for the rule that is claimed."""
    config = lab.subject.configured(history)
    return Mirror(oracle_of(lab.claims, config, history.limits.block, history.clients()))


def judge(oracle: Oracle, offer: tr.Offered) -> None:
    """Check one offer."""
    job = oracle.jobs.get(offer.id) if offer.id is not None else None
    if isinstance(oracle, VTCOracle):
        _judge_vtc(oracle, offer, job)
    elif isinstance(oracle, DLPMOracle) and job is not None:
        _judge_dlpm(oracle, offer, job)


def able(oracle: Oracle) -> list[Job]:
    """Return the requests that may be offered now, whatever the order among them."""
    if not isinstance(oracle, DLPMOracle):
        return [job for job in oracle.queue() if not job.refused]
    _, q, _ = oracle.look()
    fitting = [job for job in oracle.queue() if oracle.may_be_next(job)]
    with_credit = [job for job in fitting if oracle.has_credit(job.client, q)]
    overdraft = oracle.settings.overdraft
    return with_credit or [job for job in fitting if overdraft and q[job.client] > -overdraft]


def _judge_dlpm(oracle: DLPMOracle, offer: tr.Offered, job: Job) -> None:
    _, q, rounds = oracle.look()
    client = job.client
    if oracle.has_credit(client, q):
        return
    creditors = sorted(other for other in oracle.queued_clients() if oracle.has_credit(other, q))
    allowed = oracle.settings.overdraft
    if allowed and q[client] > -allowed:
        unserved = [r.id for r in oracle.queue() if r.client in creditors and oracle.may_be_next(r)]
        assert not unserved, f"step {offer.at}: {job.id} is offered on overdraft while {unserved[0]} has credit"
        return
    counters = ", ".join(f"q_{other} = {q[other]}" for other in dict.fromkeys([client, *creditors]))
    refills = f" after {rounds} refills" if rounds else ""
    held = f", h_{client} = {oracle.h(client)}" if oracle.settings.slack is not None else ""
    waits = f" while {', '.join(creditors)} waits with credit" if creditors else ""
    raise AssertionError(f"step {offer.at}: {job.id} is offered without credit{waits}: {counters}{held}{refills}")


def _judge_vtc(oracle: VTCOracle, offer: tr.Offered, job: Job | None) -> None:
    refused = [r.id for r in oracle.queue() if r.refused]
    if job is None:
        assert refused or not oracle.queue(), f"step {offer.at}: nobody is offered although nobody was refused"
        return
    assert not refused, f"step {offer.at}: {job.id} is offered past {refused[0]}, which has no room"
    lowest = min(oracle.queued_clients(), key=lambda client: (oracle.c[client], client))
    assert oracle.c[job.client] == oracle.c[lowest], (
        f"step {offer.at}: {job.id} is offered with c_{job.client} = {oracle.c[job.client]}, "
        f"but c_{lowest} = {oracle.c[lowest]} is lower"
    )
