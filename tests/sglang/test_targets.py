"""What the plugin hooks is there in this version of SGLang, and takes what it is expected to take."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sglang.srt.plugins.hook_registry import HookRegistry

from fairprefix.adapters.sglang import register
from fairprefix.adapters.sglang.support import TARGETS, check_targets, check_version


@pytest.fixture
def registry() -> Iterator[type[HookRegistry]]:
    """Give SGLang's registry of hooks, empty before and afterwards."""
    HookRegistry.reset()
    yield HookRegistry
    HookRegistry.reset()


def test_this_version_is_supported_and_has_every_target() -> None:
    """Neither check ends the process."""
    check_version()
    check_targets()


def test_once_configured_the_plugin_hooks_every_target(
    registry: type[HookRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SGLang's own registry holds a hook for each target after `register`, and none before it is configured."""
    monkeypatch.delenv("FAIRPREFIX_CONFIG", raising=False)
    monkeypatch.delenv("FAIRPREFIX_POLICY", raising=False)
    register()
    assert not registry._hooks
    monkeypatch.setenv("FAIRPREFIX_POLICY", "dlpm")
    register()
    assert set(registry._hooks) == set(TARGETS)
