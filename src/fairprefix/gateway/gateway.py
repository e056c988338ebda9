"""Puts the gateway together, and keeps it going: state, health checks, and those who read too slowly."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from fairprefix.core.catalog import make_policy, restore_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import SnapshotError
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import Prefixes
from fairprefix.core.request import Request
from fairprefix.core.router_base import BaseRouter
from fairprefix.core.router_catalog import make_router, restore_router
from fairprefix.core.router_config import RouterConfig
from fairprefix.gateway.advice import quantum_advice
from fairprefix.gateway.caller import Callers
from fairprefix.gateway.config import Settings, WorkerConfig
from fairprefix.gateway.estimate import Estimates
from fairprefix.gateway.exchange import Exchange
from fairprefix.gateway.feed import SharedLedgers, WorkerEvents
from fairprefix.gateway.fleet import Fleet
from fairprefix.gateway.health import Checkup
from fairprefix.gateway.prefix import Prompt, TextBlocks
from fairprefix.gateway.state import FORMAT, SCHEMA, FileStore, NoStore, StateStore
from fairprefix.gateway.tally import Tally
from fairprefix.gateway.upstream import Upstream

LOG = logging.getLogger("fairprefix.gateway")
_SWEEP_S = 1.0
_SLOW_S = 0.5
"""A client that takes longer over what it is sent is slow."""


class Gateway:
    """Everything behind the two listeners. Make it, `start` it in an event loop, and `stop` it there.

    Args:
        settings: the operator's.
        store: keeps deficits over restarts; by default the file that is configured.
        prompt: hashes prompts; by default their text.
        events: sources of the workers' cache events, with the router's index "exact".
        ledgers: deficits that are shared with other gateways.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: StateStore | None = None,
        prompt: Prompt | None = None,
        events: Sequence[WorkerEvents] = (),
        ledgers: SharedLedgers | None = None,
    ) -> None:
        limits = settings.gateway
        self.settings = settings
        self.store: StateStore = store or (FileStore(limits.state) if limits.state else NoStore())
        self.prompt: Prompt = prompt or TextBlocks(settings.router.block_size, limits.bytes_per_token)
        self.callers: Callers = Callers(settings.policy, settings.keys, limits.trusted)
        self.estimates: Estimates = Estimates(limits.bytes_per_token, limits.assumed_output)
        self.upstreams: dict[str, Upstream] = {}
        self.exchanges: set[Exchange] = set()
        """Requests under way."""
        self.responses: Counter[int] = Counter()
        """Errors of the gateway's own, by status."""
        self.cut_off: int = 0
        """Clients that did not read what they were sent."""
        self.draining = False
        self.fleet: Fleet
        self.events = events
        self.ledgers = ledgers
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Restore the state, and begin to look after the workers.

        Raises:
            ConfigError: the saved state cannot be used, or a worker's key is missing.
        """
        settings = self.settings
        saved = await self.store.load() or {}
        queues = saved.get("queues", {})
        tally = Tally(settings.policy, names=settings.gateway.names)
        tally.load(saved.get("tally", {}))

        def make(worker: WorkerConfig, policy: PolicyConfig, prefixes: Prefixes) -> Policy:
            if self.ledgers is not None and not worker.fairprefix:
                return self.ledgers.policy(worker.name, policy, lambda asked: self._cached(worker.name, asked))
            return restored_policy(queues.get(worker.name), policy, prefixes)

        router = restored_router(saved.get("router"), settings.router, settings.workers)
        self.fleet = Fleet(settings, router, make, tally)
        self.fleet.promise.load(saved.get("promise", {}))
        for config in settings.workers:
            self.upstreams[config.name] = Upstream(
                config, settings.gateway, hides_authorization=bool(settings.keys), naming=self.callers.naming
            )
        checkups = [
            Checkup(self.fleet, worker, self.upstreams[worker.name], settings.gateway)
            for worker in self.fleet.workers.values()
        ]
        await asyncio.gather(*(checkup.look() for checkup in checkups))
        jobs = [checkup.run() for checkup in checkups]
        jobs += [self._save_at_intervals(), self._sweep(), *(events.run(router) for events in self.events)]
        if self.ledgers is not None:
            jobs.append(self.ledgers.run(lambda name: self.fleet.workers[name].queue.pump()))
        self._tasks = [asyncio.create_task(job) for job in jobs]

    async def stop(self) -> None:
        """Save the state, and close all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.save()
        await self.store.close()
        for upstream in self.upstreams.values():
            await upstream.close()

    async def save(self) -> None:
        """Save the state now; if that fails the log says so, and the next interval tries again."""
        try:
            await self.store.save(self.state())
        except OSError as problem:
            LOG.error("the state cannot be saved: %s", problem)  # noqa: TRY400 (the message says it all)

    def state(self) -> dict[str, Any]:
        """Return what has to survive a restart."""
        fleet = self.fleet
        queues = {name: worker.queue.policy.snapshot() for name, worker in fleet.workers.items()}
        return {
            "format": FORMAT,
            "schema": SCHEMA,
            "router": fleet.router.snapshot(),
            "queues": {name: saved_queue(queue) for name, queue in queues.items()},
            "tally": fleet.tally.dump(),
            "promise": fleet.promise.dump(),
        }

    def _cached(self, worker: str, request: Request) -> int:
        return self.fleet.workers[worker].cached(request)

    async def _save_at_intervals(self) -> None:
        while True:
            await asyncio.sleep(self.settings.gateway.state_interval_s)
            if not isinstance(self.store, NoStore):
                await self.save()

    async def _sweep(self) -> None:
        """Read ahead of slow clients, which would hold places at workers; cut off those that do not read.

        Say, too, if the quantum does not suit: once.
        """
        patience = self.settings.gateway.write_timeout_s
        advised = False
        while True:
            await asyncio.sleep(_SWEEP_S)
            advice = None if advised else quantum_advice(self.settings.policy, self.fleet.tally)
            if advice is not None:
                LOG.warning("%s", advice)
                advised = True
            now = monotonic()
            for exchange in list(self.exchanges):
                since = exchange.blocked_since
                if since is None or now - since < _SLOW_S:
                    continue
                exchange.read_ahead()
                if now - since > patience:
                    self.cut_off += 1
                    exchange.cut_off()


def saved_queue(snapshot: dict[str, Any]) -> dict[str, Any]:
    """Return what to save of a queue: of its requests nothing but what has to be settled."""
    for entry in snapshot.get("entries", ()):
        entry["request"]["blocks"] = []
    return snapshot


def restored_policy(saved: Mapping[str, Any] | None, config: PolicyConfig, prefixes: Prefixes) -> Policy:
    """Return the policy that was saved, without the requests that were under way; a new one if there is none.

    Weights are those of the configuration now. Where anything else has changed the deficits mean something else,
    and begin anew.
    """
    if saved is None:
        return make_policy(config, prefixes)
    weights = {"weights": config.to_mapping()["weights"], "identity": list(config.identity)}
    same = {**saved.get("config", {}), **weights} == config.to_mapping()
    if not same or saved.get("policy") != config.policy:
        LOG.warning("the policy's settings have changed: deficits begin anew")
        return make_policy(config, prefixes)
    try:
        policy = restore_policy(saved, prefixes)
        for entry in saved["entries"]:
            policy.finish(entry["request"]["id"], output=entry["done"])
    except (SnapshotError, KeyError, TypeError, ValueError) as problem:
        LOG.warning("the saved deficits cannot be used (%s): they begin anew", problem)
        return make_policy(config, prefixes)
    for client, weight in config.weights.items():
        policy.reweigh(client, weight)
    return policy


def restored_router(
    saved: Mapping[str, Any] | None, config: RouterConfig, workers: Sequence[WorkerConfig]
) -> BaseRouter:
    """Return the router that was saved, with the workers of now and no requests; a new one if there is none."""
    if saved is None:
        return make_router(config)
    same = {**saved.get("config", {}), "weights": dict(config.weights)} == config.to_mapping()
    try:
        if not same:
            return make_router(config)
        router = restore_router(saved)
        for dispatched in saved["dispatched"]:
            router.refund(dispatched["request"])
        names = {worker.name for worker in workers}
        for worker in list(router.workers):
            if worker.name not in names:
                router.worker_left(worker.name)
            elif worker.suspended:
                router.worker_resumed(worker.name)
    except (SnapshotError, KeyError, TypeError, ValueError) as problem:
        LOG.warning("the saved router cannot be used (%s): it begins anew", problem)
        return make_router(config)
    for client, weight in config.weights.items():
        router.reweigh(client, weight)
    return router
