"""The configuration, and what of the engine a bound depends on."""

from __future__ import annotations

import os
from collections.abc import Mapping

from fairprefix.adapters.vllm.shapes import Theirs
from fairprefix.core.bounds import Engine
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError
from fairprefix.hosting import host_config
from fairprefix.hosting.settings import CONFIG_VARIABLE

SECTION = "fairprefix"
"""Where `--additional-config` holds our settings."""


def read_config(vllm_config: Theirs, environ: Mapping[str, str] = os.environ) -> PolicyConfig:
    """Return the configuration: FAIRPREFIX_CONFIG, or the section `fairprefix` of `--additional-config`.

    Raises:
        ConfigError: a setting is wrong, or both places have settings.
    """
    additional = getattr(vllm_config, "additional_config", None)
    section = additional.get(SECTION) if isinstance(additional, Mapping) else None
    if section is not None and environ.get(CONFIG_VARIABLE, "").strip():
        raise ConfigError(
            f"settings are given in {CONFIG_VARIABLE} and in --additional-config ({SECTION}): keep one of them"
        )
    if section is not None and not isinstance(section, Mapping | str):
        raise ConfigError(
            f"--additional-config: {SECTION} = {section!r} is not valid: expected a table of settings, or a path"
        )
    return host_config(section, reservation="none", environ=environ)


def limits_of(scheduler: Theirs) -> Engine:
    """Return what a bound has to know of this engine.

    vLLM admits on present occupancy, and resumes whom it preempts by itself.
    """
    return Engine(
        reservation="none",
        resume="held",
        kv_tokens=scheduler.cache_config.num_gpu_blocks * scheduler.block_size,
        max_running=scheduler.max_num_running_reqs,
        longest_input=scheduler.max_model_len,
        longest_output=scheduler.max_model_len,
    )
