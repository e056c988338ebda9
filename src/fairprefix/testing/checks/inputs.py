"""The policy leaves alone what it is given, and what it hands out is a copy."""

from __future__ import annotations

import copy
from typing import Any

from fairprefix.core.prefixes import PrefixIndex
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import without_weights
from fairprefix.testing.driver import Driver
from fairprefix.testing.events import History
from fairprefix.testing.lab import Lab

_FIELDS = ("id", "client", "input_tokens", "max_output", "blocks", "namespace")


class _Watch:
    """Compares what was given to the policy with copies made before."""

    def __init__(self) -> None:
        self._given: dict[str, tuple[Any, ...]] = {}

    def look(self, driver: Driver) -> None:
        for job in driver.jobs.values():
            fields = tuple(getattr(job.request, name) for name in _FIELDS)
            before = self._given.setdefault(job.id, fields)
            assert fields == before, f"the request {job.id} was changed from {before} to {fields}"
        taken = driver.slot.mutated
        assert taken is None, f"{taken}() changed the mapping that it was given"
        policy = driver.slot.policy
        snapshot = policy.snapshot()
        expected = copy.deepcopy(snapshot)
        _spoil(snapshot)
        assert policy.snapshot() == expected, "the snapshot shares its data with the policy"


def check(lab: Lab, history: History) -> None:
    """Compare before and after."""
    config = lab.subject.configured(history)
    before = config.to_mapping()
    policy = lab.subject.make_policy(config, PrefixIndex(history.limits.block))
    for client in history.clients():
        policy.reweigh(client, 2)
    assert config.to_mapping() == before, "the configuration was changed"
    lab.run(history, hook=_Watch().look)


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
    claim="requests, mappings and the configuration are not changed, and a snapshot is a copy",
    run=check,
    data=without_weights,
)
