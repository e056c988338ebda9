"""The plugin's entry point: check everything, then hook SGLang."""

from __future__ import annotations

import os
from importlib import import_module

from fairprefix.adapters.sglang.hooks import SchedulerHooks
from fairprefix.adapters.sglang.identity import IdentityHooks
from fairprefix.adapters.sglang.ranks import MANAGER, RankHooks, check_rank_field
from fairprefix.adapters.sglang.ranks import TARGETS as RANK_TARGETS
from fairprefix.adapters.sglang.support import (
    ORDER,
    PLUGINS,
    SCHEDULER,
    TARGETS,
    check_targets,
    check_version,
    refuse,
)
from fairprefix.core.errors import ConfigError
from fairprefix.hosting import host_config, is_configured
from fairprefix.hosting.ranks import rank_config


def register() -> None:
    """Hook SGLang, if fairprefix is configured in the environment; otherwise do nothing.

    Raises:
        SystemExit: the configuration is wrong, or this SGLang is not supported; one line says why.
    """
    if not is_configured(os.environ):
        return
    try:
        config = host_config(reservation="none")
        routed = rank_config(config)
    except ConfigError as problem:
        refuse("; ".join(str(problem).splitlines()))
    check_version()
    check_targets()
    scheduler, identity = SchedulerHooks(config), IdentityHooks(config.identity)
    plugins = import_module(PLUGINS)
    kinds = plugins.HookType
    hooks = {
        ORDER: (scheduler.order, kinds.AROUND),
        f"{SCHEDULER}.__init__": (scheduler.made, kinds.AFTER),
        f"{SCHEDULER}.get_new_batch_prefill": (scheduler.new_batch, kinds.AROUND),
        f"{SCHEDULER}.process_batch_result": (scheduler.processed, kinds.AFTER),
        f"{SCHEDULER}._add_request_to_queue": (scheduler.queued, kinds.AFTER),
        f"{SCHEDULER}.on_idle": (scheduler.idle, kinds.BEFORE),
    }
    for target in TARGETS:
        if target.endswith("generate_request"):
            hooks[target] = (identity.generating, kinds.BEFORE)
        elif target.endswith("__getitem__"):
            hooks[target] = (identity.split, kinds.AFTER)
        elif target.endswith("_convert_to_internal_request"):
            hooks[target] = (identity.converted, kinds.AFTER)
    if routed:
        check_rank_field()
        check_targets(RANK_TARGETS)
        ranks = RankHooks(routed)
        hooks[f"{MANAGER}._send_one_request"] = (ranks.sending, kinds.BEFORE)
        hooks[f"{MANAGER}._send_batch_request"] = (ranks.sending_batch, kinds.BEFORE)
        hooks[f"{MANAGER}._handle_batch_output"] = (ranks.received, kinds.BEFORE)
    for target, (hook, kind) in hooks.items():
        plugins.HookRegistry.register(target, hook, kind)
