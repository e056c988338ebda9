"""Everything that a fair scheduler has beside vLLM's own state, put together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from itertools import chain

from fairprefix.adapters.vllm.cacheindex import IndexedPrefixes
from fairprefix.adapters.vllm.client import engine_identity
from fairprefix.adapters.vllm.config import limits_of, read_config
from fairprefix.adapters.vllm.export import Export
from fairprefix.adapters.vllm.guard import Shield
from fairprefix.adapters.vllm.prefixes import View, make_view
from fairprefix.adapters.vllm.queue import NoQueue, PolicyQueue
from fairprefix.adapters.vllm.readiness import Readiness
from fairprefix.adapters.vllm.shapes import RUNNING, EngineRequest, StepOutputs, StepPlan, Theirs
from fairprefix.adapters.vllm.shieldedqueue import ShieldedQueue
from fairprefix.adapters.vllm.support import warning_for
from fairprefix.adapters.vllm.translator import Standing, Translator
from fairprefix.core.catalog import make_policy as make_builtin_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import NoPrefixes, Prefixes
from fairprefix.core.request import Request
from fairprefix.hosting import HostedPolicy, Sample

logger: logging.Logger = logging.getLogger(
    "vllm.fairprefix"
)  # below vLLM's own logger, whose handlers and format it shares

_BLIND = ("fcfs", "vtc")
"""Policies that never look at the cache."""


class Host:
    """Attaches a policy to one of vLLM's schedulers.

    Args:
        scheduler: ready to be used, and empty.
        make_policy: makes the policy.

    Raises:
        ConfigError: a setting is wrong.
    """

    def __init__(
        self,
        scheduler: Theirs,
        make_policy: Callable[[PolicyConfig, Prefixes | None], Policy],
    ) -> None:
        self.config: PolicyConfig = read_config(scheduler.vllm_config)
        self.shield: Shield = Shield(lambda problem: self._failed("the adapter", problem))
        self._scheduler = scheduler
        looks = make_policy is not make_builtin_policy or self.config.policy not in _BLIND
        self.view: View = make_view(scheduler, self._engine_request, self.shield, looks=looks)
        self.policy: HostedPolicy = HostedPolicy(
            self.config,
            self.view,
            limits=limits_of(scheduler),
            on_error=lambda problem: self._failed("the policy", problem),
            make=make_policy,
        )
        indexed = isinstance(self.view, IndexedPrefixes)
        self.translator: Translator = Translator(
            self.policy,
            engine_identity(self.config.identity),
            block_size=scheduler.block_size if indexed else 0,
            longest=scheduler.max_model_len,
        )
        readiness = Readiness(scheduler)
        self.queue: PolicyQueue = PolicyQueue(self.translator, readiness.of, readiness.seats_left)
        self._replace_queues()
        self._export = Export(self.samples, _rank(scheduler.vllm_config.parallel_config))
        self._greet()

    # What the scheduler calls.

    def before_step(self) -> None:
        """A step is about to be planned."""
        self.shield.run(self._before_step)

    def after_step(self, plan: StepPlan) -> None:
        """A step has been planned."""
        self.shield.run(self._after_step, plan)

    def delivered(self, outputs: Mapping[int, StepOutputs]) -> None:
        """A step's output is on its way."""
        self.shield.run(self._delivered, outputs.values())

    def aborted(self, ids: str | Iterable[str] | None) -> None:
        """Some requests, or all, have been aborted."""
        self.shield.run(self._aborted, ids)

    def cache_reset(self) -> None:
        """The prefix cache is empty."""
        if isinstance(self.view, IndexedPrefixes):
            self.shield.run(self.view.reset)

    def samples(self) -> list[Sample]:
        """Return every figure."""
        samples = [
            Sample(sample.name, sample.help, sample.value + self.shield.errors, sample.labels, sample.kind)
            if sample.name == "fairprefix_policy_errors_total"
            else sample
            for sample in self.policy.samples()
        ]
        stalls = "Times that the policy offered nobody although nothing ran."
        samples.append(Sample("fairprefix_stalls_total", stalls, self.queue.stalls, {}, "counter"))
        if isinstance(self.view, IndexedPrefixes):
            help = "Times that more was cached than the index had."
            samples.append(
                Sample("fairprefix_index_corrections_total", help, self.view.corrections, {}, "counter")
            )
        return samples

    # Inside.

    def _before_step(self) -> None:
        # Whatever ended without an output, and in whatever way, stands here until the step is planned.
        finished = self._scheduler.finished_req_ids
        if finished:
            self.translator.gone(finished)
        if not isinstance(self.view, NoPrefixes):
            self.view.refresh()
        self.queue.begin_pass()

    def _after_step(self, plan: StepPlan) -> None:
        def computed(request: EngineRequest) -> int:
            """Return what was computed when the step began: vLLM has counted the step in by now."""
            return request.num_computed_tokens - plan.num_scheduled_tokens.get(request.request_id, 0)

        self.queue.end_pass(computed)
        self._notice_admissions(plan, computed)

    def _notice_admissions(self, plan: Theirs, computed: Callable[[EngineRequest], int]) -> None:
        """Notice who was admitted from a queue of vLLM's own: those that hold memory already."""
        resumed = getattr(plan.scheduled_cached_reqs, "resumed_req_ids", ())
        for id in chain((new.req_id for new in plan.scheduled_new_reqs), resumed):
            tracked = self.translator.get(id)
            if tracked is None or tracked.standing is not Standing.ADMITTED:
                request = self._scheduler.requests[id]
                if request.status.name == RUNNING:
                    self.translator.admitted(tracked or self.translator.arrived(request), computed(request))

    def _delivered(self, outputs: Iterable[StepOutputs]) -> None:
        self.translator.delivered(outputs)
        self._export.update(idle=not len(self.translator))

    def _aborted(self, ids: str | Iterable[str] | None) -> None:
        if ids is None:
            ids = self.translator.ids()
        self.translator.gone((ids,) if isinstance(ids, str) else ids)
        self._export.update(idle=not len(self.translator))

    def _engine_request(self, request: Request) -> EngineRequest:
        return self.translator.engine_request(request)

    def _replace_queues(self) -> None:
        scheduler = self._scheduler
        assert not scheduler.waiting, "requests wait already"
        queue = ShieldedQueue(self.queue, self.shield)
        scheduler.waiting = queue
        if hasattr(scheduler, "skipped_waiting"):
            scheduler.skipped_waiting = NoQueue(queue)

    def _greet(self) -> None:
        import vllm  # noqa: PLC0415 (whoever calls this has it)

        warning = warning_for(vllm.__version__)
        if warning:
            logger.warning(warning)
        config, bound = self.config, self.policy.figures.monitor.bound
        logger.info(
            "fairprefix: policy %s, quantum %d, gate %s, cached prefixes by %s, bound %s",
            config.policy, config.quantum, config.gate, type(self.view).__name__, bound.value if bound else "none",
        )  # fmt: skip

    def _failed(self, who: str, problem: Exception) -> None:
        logger.error(
            "fairprefix: %s failed, arrival order takes over: %s: %s",
            who, type(problem).__name__, problem, exc_info=problem,
        )  # fmt: skip


def _rank(parallel: Theirs) -> int:
    """Return the number of this data-parallel rank (`data_parallel_rank` is 0 for all ranks of a dense model)."""
    index = getattr(parallel, "data_parallel_index", None)
    return int(parallel.data_parallel_rank if index is None else index)
