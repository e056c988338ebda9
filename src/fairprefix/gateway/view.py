"""What operators see of the gateway, as JSON: clients, workers, and how fair it is."""

from __future__ import annotations

from collections.abc import Sequence
from time import time
from typing import Any

from attrs import asdict

from fairprefix.gateway.feed import SharedLedgers, WorkerEvents
from fairprefix.gateway.fleet import Fleet
from fairprefix.gateway.worker import Worker

SCHEMA = 1


def describe(
    fleet: Fleet,
    spoofed: int,
    *,
    events: Sequence[WorkerEvents] = (),
    ledgers: SharedLedgers | None = None,
) -> dict[str, Any]:
    """Return the present state.

    `gap` is the largest difference of what two clients got while both waited, in service units per unit of weight;
    `bound` is what the theory promises for the history so far, or None, and `bound_parts` what it consists of
    (`fairprefix.gateway.promise`). Names are as clients gave them: whoever shows them has to escape them.
    """
    # Of what clients get through other gateways nothing is known here.
    found = fleet.promise.bound() if ledgers is None else None
    bound = found.total if found else None
    gap = float(fleet.tally.gap)
    return {
        "schema": SCHEMA,
        "time": time(),
        "policy": fleet.settings.policy.policy,
        "router": fleet.router.name,
        "clients": _clients(fleet),
        "workers": [_worker(worker) for worker in fleet.workers.values()],
        "quantum": fleet.settings.policy.quantum,
        "usual_cost": fleet.tally.usual_cost,
        "waiting": fleet.waiting,
        "hit_rate": fleet.tally.hit_rate,
        "jain": fleet.tally.jain(),
        "gap": gap,
        "bound": bound,
        "bound_parts": {name: float(part) for name, part in asdict(found).items()} if found else None,
        "bound_ratio": gap / bound if bound else None,
        "missed_refills": fleet.promise.missed_refills,
        "retries": fleet.retries,
        "spoofed": spoofed,
        "events": {feed.worker: feed.state() for feed in events},
        "sharing": None if ledgers is None else ledgers.state(),
    }


def _clients(fleet: Fleet) -> list[dict[str, Any]]:
    service = fleet.tally.service()
    total = sum(service.values())
    policy = fleet.settings.policy
    return [
        {
            "name": name,
            "weight": policy.weight(name),
            "deficit": deficit_of(fleet, name),
            "queued": of.queued,
            "running": of.running,
            "service": service[name],
            "share": service[name] / total if total else 0.0,
            "hit_rate": of.hit_rate,
            "requests": of.requests,
            "failed": of.failed,
            "refused": of.refused,
            "input_tokens": of.input_tokens,
            "cached_tokens": of.cached_tokens,
            "output_tokens": of.output_tokens,
        }
        for name, of in fleet.tally.clients.items()
    ]


def deficit_of(fleet: Fleet, client: str) -> int | None:
    """Return a client's deficit, summed over the queues; None where no queue keeps one."""
    found = [d for w in fleet.workers.values() if (d := w.queue.policy.deficit(client)) is not None]
    return sum(found) if found else None


def _worker(worker: Worker) -> dict[str, Any]:
    queue, counts = worker.queue, worker.counts
    return {
        "name": worker.name,
        "url": worker.config.url,
        "fairprefix": worker.config.fairprefix,
        "alive": worker.alive,
        "why": worker.why,
        "window": queue.window,
        "in_flight": queue.taken,
        "queued": len(queue.waiting),
        "hit_rate": counts.hit_rate,
        "requests": counts.requests,
        "failures": counts.failures,
        "input_tokens": counts.input_tokens,
        "cached_tokens": counts.cached_tokens,
        "output_tokens": counts.output_tokens,
        "policy_failed": queue.policy.failed,
        "stalls": queue.stalls,
    }
