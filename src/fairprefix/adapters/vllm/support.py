"""Which vLLM this is, and whether the adapter can work in it."""

from __future__ import annotations

import re

from fairprefix.adapters.vllm.shapes import Theirs
from fairprefix.core.errors import ConfigError

ASYNC_FROM = (0, 15)
CONNECTORS_FROM = (0, 20)
"""Before, a request that waits for its KV cache from elsewhere does not tell how much of it will come."""
TESTED = ((0, 11), (0, 33))
"""First and last version that the tests run on (0.12 to 0.14 lie between and are not among them)."""


def parse_version(text: str) -> tuple[int, int] | None:
    """Return (major, minor), or None for a build without a version such as `dev`."""
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def warning_for(version: str) -> str | None:
    """Return what to warn of when the adapter runs in this version; None when it is tested there."""
    parsed = parse_version(version)
    oldest, newest = TESTED
    if parsed is not None and (parsed == oldest or ASYNC_FROM <= parsed <= newest):
        return None
    return (
        f"fairprefix is tested with vLLM {oldest[0]}.{oldest[1]} and {ASYNC_FROM[0]}.{ASYNC_FROM[1]} to "
        f"{newest[0]}.{newest[1]}, and this is {version}: it may or may not work"
    )


def refuse_what_cannot_work(vllm_config: Theirs, version: str) -> None:
    """Refuse configurations in which the adapter would be wrong.

    Raises:
        ConfigError: priority scheduling, asynchronous scheduling before 0.15, or a KV connector before 0.20.
    """
    scheduling = vllm_config.scheduler_config
    if str(getattr(scheduling.policy, "value", scheduling.policy)) == "priority":
        raise ConfigError(
            "scheduling_policy = 'priority' is not valid: expected 'fcfs' with FairScheduler, since under "
            "'priority' vLLM also preempts running requests of its own accord"
        )
    parsed = parse_version(version)
    if scheduling.async_scheduling and parsed is not None and parsed < ASYNC_FROM:
        raise ConfigError(
            f"async_scheduling = True is not valid: expected False with FairScheduler in vLLM {version}, which "
            f"allows no other scheduler then; it works from {ASYNC_FROM[0]}.{ASYNC_FROM[1]} on"
        )
    if getattr(vllm_config, "kv_transfer_config", None) and parsed is not None and parsed < CONNECTORS_FROM:
        raise ConfigError(
            f"kv_transfer_config is not valid: expected none with FairScheduler in vLLM {version}, which does "
            f"not tell what a request computes itself; it works from {CONNECTORS_FROM[0]}.{CONNECTORS_FROM[1]} on"
        )
