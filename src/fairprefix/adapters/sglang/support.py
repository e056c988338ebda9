"""Which SGLang this adapter knows, checked before anything is changed.

SGLang logs an exception of a plugin and goes on without it: the server would run unfair in silence. Only
SystemExit ends the process, so that is what `refuse` raises.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

OLDEST = (0, 5, 11)
NEWEST = (0, 5, 23)
PLUGINS = "sglang.srt.plugins.hook_registry"

ORDER = "sglang.srt.managers.schedule_policy.SchedulePolicy.calc_priority"
SCHEDULER = "sglang.srt.managers.scheduler.Scheduler"
SCHEDULE_POLICY = "sglang.srt.managers.schedule_policy"
MATCH_PARAMS = "sglang.srt.mem_cache.base_prefix_cache.MatchPrefixParams"
KEY = "sglang.srt.mem_cache.radix_cache.RadixKey"
NAMES = (
    MATCH_PARAMS,
    KEY,
    f"{SCHEDULE_POLICY}.CLIP_MAX_NEW_TOKENS",
    f"{SCHEDULE_POLICY}.IN_BATCH_PREFIX_CACHING_CHECK_THRESHOLD",
    f"{SCHEDULE_POLICY}.IN_BATCH_PREFIX_CACHING_DEPRIORITIZE_THRESHOLD",
)
"""Everything else that is used by name."""

TARGETS = {
    ORDER: ("self", "waiting_queue", "running_batch"),
    f"{SCHEDULER}.__init__": ("self", "server_args"),
    f"{SCHEDULER}.get_new_batch_prefill": ("self",),
    f"{SCHEDULER}.process_batch_result": ("self", "batch"),
    f"{SCHEDULER}._add_request_to_queue": ("self", "req", "is_retracted"),
    f"{SCHEDULER}.on_idle": ("self",),
    "sglang.srt.managers.tokenizer_manager.TokenizerManager.generate_request": ("self", "obj", "request"),
    "sglang.srt.managers.io_struct.GenerateReqInput.__getitem__": ("self",),
    "sglang.srt.entrypoints.openai.serving_chat.OpenAIServingChat._convert_to_internal_request": (
        "self", "request", "raw_request",
    ),
    "sglang.srt.entrypoints.openai.serving_completions.OpenAIServingCompletion._convert_to_internal_request": (
        "self", "request", "raw_request",
    ),
}  # fmt: skip
"""Everything that is hooked, and how its parameters have to begin."""


def refuse(reason: str) -> NoReturn:
    """End the process with one clear line.

    Raises:
        SystemExit: always.
    """
    raise SystemExit(f"fairprefix: {reason}")


def check_version() -> None:
    """Refuse an SGLang that this adapter was not tried with.

    Raises:
        SystemExit: it is older or newer, or its version cannot be told.
    """
    supported = f"{_dotted(OLDEST)} to {_dotted(NEWEST)}"
    try:
        found = version("sglang")
    except PackageNotFoundError:
        refuse(f"SGLang is not installed; supported: {supported}")
    numbers = _numbers(found)
    if not OLDEST <= numbers <= NEWEST:
        refuse(
            f"SGLang {found} is not supported, only {supported}; unset FAIRPREFIX_CONFIG and FAIRPREFIX_POLICY "
            "to run it without fairprefix"
        )


def check_targets(targets: Mapping[str, tuple[str, ...]] = TARGETS) -> None:
    """Refuse an SGLang in which something that has to be hooked is missing, or takes other parameters.

    Args:
        targets: what is to be hooked, and how its parameters have to begin.

    Raises:
        SystemExit: naming the first such target.
    """
    for target, expected in targets.items():
        found = tuple(inspect.signature(resolve(target)).parameters)[: len(expected)]
        if found != expected:
            refuse(f"{target} of this SGLang takes {', '.join(found)}; expected {', '.join(expected)}")
    for path in NAMES:
        module, _, name = path.rpartition(".")
        if not hasattr(_module(module, path), name):
            refuse(f"this SGLang has no {path}")


def resolve(target: str) -> Any:
    """Return what a dotted path `module.Class.method` leads to.

    Raises:
        SystemExit: it leads nowhere.
    """
    module_path, class_name, name = target.rsplit(".", 2)
    try:
        return getattr(getattr(_module(module_path, target), class_name), name)
    except AttributeError as problem:
        refuse(f"this SGLang has no {target} ({problem})")


def _module(path: str, target: str) -> Any:
    try:
        return import_module(path)
    except ImportError as problem:
        refuse(f"this SGLang has no {target} ({problem})")


def _numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version; a suffix as in 0.5.23.post1 or 0.5.24rc1 counts for nothing."""
    numbers: list[int] = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers[:3])


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
