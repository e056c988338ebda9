"""The policy leaves alone what it is given, and what it hands out is a copy."""

from __future__ import annotations

import copy
from typing import Any

from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import without_weights
from fairprefix.testing.driver import Driver
from fairprefix.testing.events import History
from fairprefix.testing.lab import Lab


def _look(driver: Driver) -> None:
    """Compare what was given to the policy with what it was before."""
    taken = driver.slot.mutated
    assert taken is None, f"{taken}() changed the mapping that it was given"
    known, cached = driver.cache.index.cached_blocks(), len(driver.cache.chains)
    assert known == cached, f"the prefix index was changed: {known} blocks in it, {cached} cached"
    policy = driver.slot.asked
    snapshot = policy.snapshot()
    expected = copy.deepcopy(snapshot)
    _spoil(snapshot)
    assert policy.snapshot() == expected, "the snapshot shares its data with the policy"


def check(lab: Lab, history: History) -> None:
    """Compare before and after."""
    config = lab.subject.configured(history)
    before = config.to_mapping()
    policy, _ = lab.build(history, config)
    with lab.limited(history, lambda: "reweigh"):
        for client in history.clients():
            policy.reweigh(client, 2)
    assert config.to_mapping() == before, "the configuration was changed"
    broken = lab.run(history, hook=_look).broken
    if broken and broken.kind == "input":
        raise AssertionError(broken.text)


def _spoil(data: Any) -> None:  # noqa: ANN401 (plain data of any form)
    if isinstance(data, dict):
        for value in data.values():
            _spoil(value)
        data.clear()
    elif isinstance(data, list):
        for value in data:
            _spoil(value)
        data.clear()


CHECK = Check(
    name="inputs",
    claim="requests, mappings, configuration and prefix index are not changed, and a snapshot is a copy",
    run=check,
    data=without_weights,
)
