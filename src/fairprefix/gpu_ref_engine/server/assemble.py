"""From a loaded model and the operator's settings to a service."""

from __future__ import annotations

import logging

from fairprefix.core.bounds import Engine as EngineLimits
from fairprefix.core.config import PolicyConfig
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.gpu_ref_engine.batch import Runner
from fairprefix.gpu_ref_engine.config import EngineConfig
from fairprefix.gpu_ref_engine.engine import Engine
from fairprefix.gpu_ref_engine.server.metrics import Metrics
from fairprefix.gpu_ref_engine.server.service import Service
from fairprefix.gpu_ref_engine.server.settings import ServerConfig
from fairprefix.gpu_ref_engine.server.worker import EngineWorker
from fairprefix.gpu_ref_engine.tokenizer import Tokenizer
from fairprefix.hosting import HostedPolicy

LOG = logging.getLogger("fairprefix.engine")


def limits(runner: Runner, config: EngineConfig, *, longest_output: int) -> EngineLimits:
    """Return what a bound needs to know of an engine.

    Prompts are computed in chunks, so not all requests produce in every step: that is an engine that holds them.
    """
    memory = runner.pages * runner.page_size
    longest = min(runner.longest, memory)
    return EngineLimits(
        reservation=config.reservation,
        # A token is stored one step after it was produced.
        kv_tokens=memory + config.max_batch,
        max_running=config.max_batch,
        longest_input=longest,
        longest_output=min(longest_output, longest),
        resume="held",
    )


def make_service(
    runner: Runner, tokenizer: Tokenizer, policy: PolicyConfig, engine: EngineConfig, server: ServerConfig
) -> Service:
    """Return a service whose policy is guarded and watched."""
    metrics = Metrics(server.model)
    bounds = limits(runner, engine, longest_output=server.max_output)

    def make(config: PolicyConfig, index: PrefixIndex) -> HostedPolicy:
        return HostedPolicy(config, index, limits=bounds, on_error=_policy_failed)

    made = Engine(runner, policy, engine, eos=tokenizer.eos, make=make, observer=metrics)
    return Service(EngineWorker(made), tokenizer, server, metrics)


def _policy_failed(problem: Exception) -> None:
    LOG.error("the policy failed, requests are served in the order of arrival from now on", exc_info=problem)
