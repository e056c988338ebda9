"""A policy restored from its snapshot, at any moment, goes on as the original does."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from fairprefix.core.prefixes import PrefixIndex
from fairprefix.testing.checks.determinism import same_decisions
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import anything
from fairprefix.testing.driver import Driver
from fairprefix.testing.events import History
from fairprefix.testing.lab import Lab, Subject

Case = tuple[History, int]
"""A history, and at every how many questions the policy is exchanged for a restored one."""


def check(lab: Lab, case: Case) -> None:
    """Exchange the policy for a restored one again and again."""
    history, every = case
    asked = 0

    def exchange(driver: Driver) -> None:
        nonlocal asked
        asked += 1
        if asked % every == 0:
            _exchange(driver)

    restored = lab.run(history, hook=exchange)
    same_decisions("the restored policy", lab.run(history).decisions(), restored.decisions())


def _exchange(driver: Driver) -> None:
    policy: Any = driver.slot.asked
    snapshot = policy.snapshot()
    through_json = json.loads(json.dumps(snapshot))
    assert through_json == snapshot, "the snapshot does not survive JSON"
    restore = getattr(type(driver.slot.policy), "restore", None)
    if restore is None:
        return  # a policy may leave restoring to its host
    index = PrefixIndex(driver.limits.block)
    for chain in sorted(driver.cache.chains.values(), key=len):
        index.cached(chain, start=len(chain) - 1)
    driver.slot.calling = "restore"
    copy = restore(through_json, index)
    assert copy.canonical() == policy.canonical(), "the restored policy is in another state"
    assert copy.snapshot() == snapshot, "the restored policy has another snapshot"
    driver.slot.policy, driver.cache.index = copy, index


def _cases(subject: Subject) -> st.SearchStrategy[Case]:
    return st.tuples(anything(subject), st.sampled_from((1, 2, 5)))


CHECK = Check(
    name="snapshots",
    claim="a snapshot survives JSON, and a policy restored from it decides as the original",
    run=check,
    data=_cases,
)
