"""One trace through several workers: the run, its figures, and the bound that they are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from attrs import Factory, frozen

from fairprefix.core.bounds import Engine
from fairprefix.core.catalog import make_policy
from fairprefix.core.central_pool import CentralPool
from fairprefix.core.config import PolicyConfig
from fairprefix.core.dlpm import DLPM
from fairprefix.core.errors import at_least, one_of, reject
from fairprefix.core.guarantee import Arrangement, cluster_guarantee, guarantee
from fairprefix.core.ledger import Ledger
from fairprefix.core.ledger_view import LedgerView
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.refill_watch import RefillWatch
from fairprefix.core.request import BlockHash, Request
from fairprefix.core.router_base import BaseRouter
from fairprefix.core.router_catalog import make_router
from fairprefix.core.router_config import ROUTERS, RouterConfig
from fairprefix.core.shared_ledger import SharedLedger
from fairprefix.sim.cluster import Cluster, Fault, SimWorker, WorkerObserver
from fairprefix.sim.dispatch import LateBound, Pooled, Routed
from fairprefix.sim.engine import EngineConfig, VirtualEngine
from fairprefix.sim.job import Job, admissible
from fairprefix.sim.kvcache import KVCache
from fairprefix.sim.metrics import fairness, hit_rate, per_client, totals
from fairprefix.sim.record import RunRecord
from fairprefix.sim.simulate import RunResult, describe_engine, held_against
from fairprefix.sim.steptime import StepTimeModel
from fairprefix.sim.trace import Trace, TraceRequest

ARRANGEMENTS = (*ROUTERS, "central_pool", "shared_ledger")
"""How requests may come to the workers."""


MakePolicy = Callable[[PolicyConfig, PrefixIndex], Policy]
"""Makes a worker's policy, given its view of the cache."""


@frozen
class WorkerSpec:
    """One worker."""

    engine: EngineConfig
    step_time: StepTimeModel


@frozen(kw_only=True)
class Fleet:
    """The workers, and how requests come to them.

    Raises:
        ConfigError: an unknown arrangement, no worker, or a fault of a worker that does not exist.
    """

    workers: tuple[WorkerSpec, ...]
    arrangement: str = "d2lpm"
    """A router, `central_pool` or `shared_ledger`."""
    router: RouterConfig = Factory(RouterConfig)
    """The router's parameters; which router it names has no meaning."""
    faults: tuple[Fault, ...] = ()
    staleness_ns: int = 100_000_000
    """shared_ledger: how long a worker keeps its charges to itself."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        one_of("arrangement", self.arrangement, ARRANGEMENTS)
        at_least("staleness_ns", self.staleness_ns, 0)
        if not self.workers:
            raise reject("workers", self.workers, "at least one worker")
        for fault in self.faults:
            if fault.worker >= len(self.workers):
                raise reject("fault: worker", fault.worker, f"a number from 0 to {len(self.workers) - 1}")


def simulate_fleet(
    trace: Trace,
    config: PolicyConfig,
    fleet: Fleet,
    on_finish: Callable[[int], None] = lambda _count: None,
) -> RunResult:
    """Run a trace through several workers in virtual time.

    Args:
        trace: the requests.
        config: the policy of each worker, and its parameters.
        fleet: the workers.
        on_finish: called with the number of requests done so far, whenever it has changed.

    Raises:
        OversizeError: a request fits not every worker, and oversized ones are not rejected.
        NoWorkerError: all workers have failed for good, and requests are left.
        ConfigError: the shared ledger is asked for with another policy than DLPM's published gate.
    """
    run = FleetRun(trace, config, fleet)
    run.cluster.run(run.admissible(trace.requests), fleet.faults, on_finish)
    return run.result()


class _ReportingIndex(PrefixIndex):
    """A worker's prefix index that tells the router as well (exact index)."""

    def __init__(self, block_size: int, router: BaseRouter, worker: str) -> None:
        super().__init__(block_size)
        self._router = router
        self._worker = worker

    def cached(
        self, blocks: Sequence[BlockHash], *, start: int = 0, end: int | None = None, namespace: str = ""
    ) -> None:
        """Pass on and tell."""
        super().cached(blocks, start=start, end=end, namespace=namespace)
        self._router.stored(self._worker, blocks[start:end], namespace)

    def evicted(
        self, blocks: Sequence[BlockHash], *, start: int = 0, end: int | None = None, namespace: str = ""
    ) -> None:
        """Pass on and tell."""
        super().evicted(blocks, start=start, end=end, namespace=namespace)
        self._router.removed(self._worker, blocks[start:end], namespace)


class FleetRun:
    """Everything of one run.

    Args:
        trace: the requests, for their sizes and the block size; `cluster.run` is given what arrives.
        config: the policy of each worker, and its parameters.
        fleet: the workers.
        record: takes down what happens in the cluster; a full one unless given.
        own: makes the record of each worker.
        make: makes the policy of each worker.
    """

    def __init__(
        self,
        trace: Trace,
        config: PolicyConfig,
        fleet: Fleet,
        record: RunRecord | None = None,
        own: Callable[[Ledger], RunRecord] = RunRecord,
        make: MakePolicy = make_policy,
    ) -> None:
        self._trace, self._config, self._fleet = trace, config, fleet
        self._own, self._make = own, make
        self.seen: RunRecord = record or RunRecord(Ledger(config.cost, config.weights, config.default_weight))
        self.cluster: Cluster = Cluster(self.seen)
        self._policies: list[Policy] = []
        self._caches: list[KVCache] = []
        self._records: list[RunRecord] = []
        self._router, self._ledger = self._arrange()
        self._queue: dict[str, Job] | None = {} if self._ledger else None
        for place, spec in enumerate(fleet.workers):
            self._add(place, spec)
        dlpms = [policy for policy in self._policies if isinstance(policy, DLPM)]
        if self._router and dlpms:
            quanta = {client: weight * config.quantum for client, weight in config.weights.items()}
            self.cluster.watch = RefillWatch(dlpms, quanta, config.default_weight * config.quantum)

    def admissible(self, requests: Sequence[TraceRequest]) -> Iterable[tuple[int, TraceRequest]]:
        """Yield the requests that fit every worker, each with its number; reject the others or raise."""
        smallest = min((spec.engine for spec in self._fleet.workers), key=lambda engine: engine.kv_tokens)
        return admissible(requests, smallest, self.seen)

    def _arrange(self) -> tuple[BaseRouter | None, SharedLedger | None]:
        """Give the cluster its dispatcher."""
        fleet, cluster = self._fleet, self.cluster
        if fleet.arrangement == "shared_ledger":
            if self._config.policy != "dlpm":
                raise reject("policy", self._config.policy, "dlpm with router shared_ledger")
            ledger = SharedLedger(self._config)
            cluster.dispatcher = LateBound(ledger, cluster.hand_to_all, cluster.waits, fleet.staleness_ns)
            return None, ledger
        if fleet.arrangement == "central_pool":
            pool = CentralPool(block_size=self._trace.block_size)
            cluster.dispatcher = Pooled(pool, cluster.hand_at_once, cluster.waits)
            return None, None
        values = fleet.router.to_mapping() | {
            "router": fleet.arrangement,
            "block_size": self._trace.block_size,
            "weights": self._config.weights,
            "default_weight": self._config.default_weight,
            "cost_extend": self._config.cost_extend,
            "cost_output": self._config.cost_output,
        }
        router = make_router(RouterConfig.from_mapping(values))
        cluster.dispatcher = Routed(router, cluster.hand)
        return router, None

    def _add(self, place: int, spec: WorkerSpec) -> None:
        name, block_size = f"w{place}", self._trace.block_size
        blocks = max(spec.engine.kv_tokens // block_size, 1)
        if self._router and self._router.config.index == "exact":
            index: PrefixIndex = _ReportingIndex(block_size, self._router, name)
        else:
            index = PrefixIndex(block_size)
        cache = KVCache(spec.engine.kv_tokens, index)
        if self._ledger:
            policy: Policy = LedgerView(self._ledger, name, partial(_cached_tokens, index))
        else:
            policy = self._make(self._config, index)
        record = self._own(Ledger(self._config.cost, self._config.weights, self._config.default_weight))
        observer = WorkerObserver(self.cluster, place, record)
        engine = VirtualEngine(spec.engine, spec.step_time, cache, policy, observer, shared_queue=self._queue)
        self._policies.append(policy)
        self._caches.append(cache)
        self._records.append(record)
        self.cluster.add(SimWorker(name, engine, blocks))
        self.cluster.dispatcher.join(name, blocks)

    # Figures.

    @property
    def evicted_blocks(self) -> int:
        """Blocks that the workers' caches have dropped."""
        return sum(cache.evicted_blocks for cache in self._caches)

    def held(self) -> dict[str, Any]:
        """Return the largest gap, the bound that it is held against, and their ratio."""
        return self._bounds([describe_engine(self._trace, spec.engine) for spec in self._fleet.workers])

    def result(self) -> RunResult:
        """Return the figures of the run."""
        cluster, seen, fleet = self.cluster, self.seen, self._fleet
        engines = [describe_engine(self._trace, spec.engine) for spec in fleet.workers]
        duration = max(worker.engine.clock_ns for worker in cluster.workers) - self._trace.requests[0].arrival_ns
        figures = (
            totals(seen, duration)
            | fairness(seen)
            | self._bounds(engines)
            | {
                "preemptions": sum(worker.engine.preemptions for worker in cluster.workers),
                "evicted_blocks": self.evicted_blocks,
                "steps": sum(worker.engine.steps for worker in cluster.workers),
                "refill_rounds": self._rounds(),
                "lost": len(seen.lost_jobs),
                "rerouted": cluster.rerouted,
                "clients": per_client(seen),
                "workers": [self._of_worker(place, engine) for place, engine in enumerate(engines)],
            }
        )
        return RunResult(self._config.policy, figures, seen.timeline, fleet.arrangement)

    def _rounds(self) -> int | None:
        if self._ledger:
            return self._ledger.rounds
        dlpms = [policy for policy in self._policies if isinstance(policy, DLPM)]
        return sum(policy.rounds for policy in dlpms) if dlpms else None

    def _bounds(self, engines: Sequence[Engine]) -> dict[str, Any]:
        watch, clients = self.cluster.watch, self.seen.ledger.clients()
        missed = watch.most_missed() if watch else 0
        kind = self._fleet.arrangement if self._router is None else "routed"
        how = Arrangement(kind=kind, misses=missed, unsettled=self._ledger.unsettled if self._ledger else 0)
        promised = cluster_guarantee(self._config, engines, clients, how)
        published = cluster_guarantee(
            self._config, engines, clients, Arrangement(kind=kind, unsettled=how.unsettled)
        )
        return held_against(self.seen, promised) | {
            "missed_refills": missed if watch else None,
            "bound_without_misses": published.bound.value if published else None,
            "unsettled": self._ledger.unsettled if self._ledger else None,
        }

    def _of_worker(self, place: int, engine: Engine) -> dict[str, Any]:
        worker, record = self.cluster.workers[place], self._records[place]
        spec = self._fleet.workers[place]
        jobs = record.finished_jobs
        ledger = record.ledger
        promised = None if self._ledger else guarantee(self._config, engine, ledger.clients())
        gap = held_against(record, promised)
        return {
            "worker": worker.name,
            "step_time": spec.step_time.name,
            "kv_tokens": spec.engine.kv_tokens,
            "completed": len(jobs),
            "total_input": sum(job.request.input_tokens for job in jobs),
            "total_output": sum(job.produced for job in jobs),
            "prefix_hit_rate": hit_rate(jobs),
            "steps": worker.engine.steps,
            "preemptions": worker.engine.preemptions,
            "evicted_blocks": self._caches[place].evicted_blocks,
            "refill_rounds": getattr(self._policies[place], "rounds", None),
            "failures": worker.failures,
            "charged_gap": gap["charged_gap"],
            "bound": gap["bound"],
            "bound_ratio": gap["bound_ratio"],
        }


def _cached_tokens(index: PrefixIndex, request: Request) -> int:
    matched = index.matched_blocks(request.blocks, request.namespace)
    return min(matched * index.block_size, request.input_tokens - 1)
