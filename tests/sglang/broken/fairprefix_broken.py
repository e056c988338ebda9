"""A plugin of SGLang's that breaks the policy after a few plans: what a bug of ours would do to a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_PLANS = 3


def register() -> None:
    """Hook the policy through SGLang's own registry."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register("fairprefix.core.dlpm.DLPM.plan", _Breaking(), HookType.AROUND)


class _Breaking:
    def __init__(self) -> None:
        self._plans = 0

    def __call__(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._plans += 1
        if self._plans > _PLANS:
            raise RuntimeError("broken on purpose")
        return original(*args, **kwargs)
