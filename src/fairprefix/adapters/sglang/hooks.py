"""The hooks inside SGLang's scheduler processes: whatever goes wrong in here, SGLang goes on in its own order."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import attrs

from fairprefix.adapters.sglang.bridge import Bridge
from fairprefix.adapters.sglang.decisionlog import DecisionLog, log_for
from fairprefix.adapters.sglang.engine import SchedulerView, arguments_of, ranks_of
from fairprefix.adapters.sglang.metrics import Exporter, exporter_for
from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.history import Recorder
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import Prefixes
from fairprefix.hosting import HostedPolicy, Identity

logger: logging.Logger = logging.getLogger("fairprefix.sglang")

ATTACHED = "_fairprefix"
_DEFAULT_SLACK = PolicyConfig().slack


@attrs.define(eq=False)
class Attached:
    """What belongs to one scheduler."""

    bridge: Bridge
    exporter: Exporter | None = None
    broken: bool = False
    """The adapter itself failed: SGLang is left alone."""

    @property
    def stopped(self) -> bool:
        """Whether SGLang's own order has taken over."""
        return self.broken or self.bridge.policy.failed

    def tell(self, call: Callable[..., None], *args: object) -> None:
        """Make a call that must not fail SGLang."""
        if self.broken:
            return
        try:
            call(*args)
        except Exception as problem:  # noqa: BLE001 (whatever it is, the engine must go on)
            self.broken = True
            self.bridge.policy.errors += 1
            give_up(problem)
            self.export()

    def export(self) -> None:
        """Write the figures, if it is time."""
        if self.exporter is not None:
            self.exporter.changed()


def give_up(problem: Exception) -> None:
    """Say once that SGLang's own order has taken over."""
    logger.error("fairprefix failed, SGLang's own order takes over: %r", problem, exc_info=problem)


class SchedulerHooks:
    """The hooks of a scheduler process.

    Args:
        config: of the policy.
        make: makes the policy.
    """

    def __init__(
        self,
        config: PolicyConfig,
        make: Callable[[PolicyConfig, Prefixes | None], Policy] = make_policy,
    ) -> None:
        self._config = config
        self._make = make

    def made(self, _result: None, scheduler: Any, *args: Any, **kwargs: Any) -> None:
        """After `Scheduler.__init__`: refuse what cannot be served, and attach a policy."""
        arguments = arguments_of(type(scheduler).__init__, (scheduler, *args), kwargs)
        view = SchedulerView(scheduler, ranks_of(arguments))
        view.check()
        attached = self.attach(view)
        setattr(scheduler, ATTACHED, attached)
        setattr(scheduler.policy, ATTACHED, attached)

    def attach(self, view: SchedulerView) -> Attached:
        """Return a policy for a scheduler, and what translates for it."""
        config = fit(self._config, view)
        log = log_for(os.environ, view.ranks)

        def host(prefixes: Prefixes) -> HostedPolicy:
            return HostedPolicy(
                config, prefixes, limits=view.limits, on_error=give_up, make=_recorded(self._make, log)
            )

        bridge = Bridge(view, host, Identity(config.identity), log)
        samples = bridge.policy.samples
        attached = Attached(bridge, exporter_for(samples, view.ranks) if view.metrics_enabled else None)
        attached.export()
        logger.info("fairprefix: %s, quantum %d, gate %s", config.policy, config.quantum, config.gate)
        return attached

    @staticmethod
    def order(
        original: Callable[..., Any],
        policy: Any,
        waiting_queue: list[Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Around `SchedulePolicy.calc_priority`: put at the head of the list whom to admit next."""
        attached: Attached | None = getattr(policy, ATTACHED, None)
        if attached is None:
            return original(policy, waiting_queue, *args, **kwargs)
        was_stopped = attached.stopped
        if not was_stopped:
            running = args[0] if args else kwargs.get("running_batch")
            attached.tell(attached.bridge.order, waiting_queue, running)
            if not attached.stopped:
                return None
            attached.bridge.arrival_order(waiting_queue)
        return original(policy, waiting_queue, *args, **kwargs)

    @staticmethod
    def new_batch(original: Callable[..., Any], scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        """Around `Scheduler.get_new_batch_prefill`: charge what was admitted."""
        attached: Attached = getattr(scheduler, ATTACHED)
        try:
            result = original(scheduler, *args, **kwargs)
        finally:
            attached.bridge.restore()
        batch = getattr(result, "batch_to_run", result)
        if batch is not None:
            attached.tell(attached.bridge.admitted, batch)
        return result

    @staticmethod
    def processed(_result: Any, scheduler: Any, batch: Any, *_args: Any, **_kwargs: Any) -> None:
        """After `Scheduler.process_batch_result`: charge the output, settle what is finished."""
        attached: Attached = getattr(scheduler, ATTACHED)
        attached.tell(attached.bridge.processed, batch)
        attached.export()

    @staticmethod
    def idle(scheduler: Any) -> None:
        """Before `Scheduler.on_idle`: the last figures."""
        attached: Attached = getattr(scheduler, ATTACHED)
        if attached.exporter is not None:
            attached.exporter.idle()

    @staticmethod
    def queued(_result: Any, scheduler: Any, req: Any, *_args: Any, **_kwargs: Any) -> None:
        """After `Scheduler._add_request_to_queue`."""
        attached: Attached = getattr(scheduler, ATTACHED)
        attached.tell(attached.bridge.queued, req)


def fit(config: PolicyConfig, view: SchedulerView) -> PolicyConfig:
    """Return the configuration with a slack at which one client alone can keep this engine busy.

    Under the credit gate a client waits while the output that its running requests may still produce exceeds its
    credit, which grows to the slack at most. A slack that is configured stays as it is.
    """
    limits = view.limits
    most = config.cost_output * limits.max_running * min(limits.longest_output, view.output_estimate)
    if config.gate != "credit" or config.slack != _DEFAULT_SLACK or most <= config.slack:
        return config
    logger.info("fairprefix: slack raised from %d to %d, what a full batch may still produce", config.slack, most)
    return attrs.evolve(config, slack=most)


def _recorded(
    make: Callable[[PolicyConfig, Prefixes | None], Policy], log: DecisionLog | None
) -> Callable[[PolicyConfig, Prefixes | None], Policy]:
    return make if log is None else lambda config, prefixes: Recorder(make(config, prefixes), log)
