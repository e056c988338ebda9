"""The series under a story are what really happened: service, queues, and the counters of the claimed rule."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.dlpm import DLPM
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.vtc import VTC
from fairprefix.testing import Claims
from fairprefix.testing.checks.workloads import anything
from fairprefix.testing.events import Arrive, EngineLimits, History, Step
from fairprefix.testing.lab import Lab, Subject
from fairprefix.testing.rules import mirror_of
from fairprefix.testing.timeline import Timeline, timeline_of
from fairprefix.testing.trace import Trace

TWO = History(EngineLimits(kv_tokens=12, max_running=1), (Arrive("a", 2, 3), Step(1), Arrive("b", 1, 1, count=2)))
"""a is served for three steps, while b's two requests wait from step 1 on."""

DEFICIT = PolicyConfig(quantum=10)
CREDIT = PolicyConfig(quantum=10, slack=20, gate="credit")
VIRTUAL = PolicyConfig(policy="vtc")


def played(config: PolicyConfig, history: History, verdict: str = "") -> tuple[Timeline, Policy, Trace]:
    """Return the timeline of a history under a shipping policy, that policy as it is in the end, and the trace."""
    made: list[Policy] = []

    def make(given_config: PolicyConfig, index: PrefixIndex) -> Policy:
        made.append(make_policy(given_config, index))
        return made[-1]

    lab = Lab(Subject(make, config, Claims.of(config)))
    trace = lab.run(history)
    assert trace.broken is None
    return timeline_of(trace, verdict, config.cost, mirror_of(lab, history)), made[-1], trace


def test_a_timeline_says_what_happened_when() -> None:
    """Service rises where tokens are computed, queues are open while somebody waits, counters fall."""
    timeline, _, _ = played(DEFICIT, TWO, "step 3: b waits")
    assert (timeline.end, timeline.broke_at, timeline.counter) == (5, 3, "q")
    assert timeline.service == {"a": ((0, 4), (1, 6), (2, 8)), "b": ((0, 0), (3, 3), (4, 6))}
    assert timeline.backlogged == {"a": ((0, 0),), "b": ((1, 4),)}
    assert timeline.counters == {"a": ((0, 6), (1, 4), (2, 2)), "b": ((0, 0), (3, 7), (4, 4))}
    assert timeline.to_mapping()["service"] == {"a": [[0, 4], [1, 6], [2, 8]], "b": [[0, 0], [3, 3], [4, 6]]}


def test_without_a_rule_there_are_no_counters() -> None:
    """A policy that claims no rule has service and queues, and no counter; nor need a verdict name a step."""
    timeline, _, _ = played(PolicyConfig(policy="fcfs"), TWO, "something else")
    assert (timeline.counters, timeline.counter, timeline.broke_at) == ({}, "", None)
    assert timeline.service["b"][-1] == (4, 6)


@pytest.mark.parametrize("config", [DEFICIT, CREDIT, VIRTUAL], ids=["dlpm", "credit", "vtc"])
@settings(max_examples=30)
@given(data=st.data())
def test_counters_end_where_the_policy_s_own_do(config: PolicyConfig, data: st.DataObject) -> None:
    """Over any history, the counters drawn for a correct policy are those that it keeps itself."""
    subject = Subject(make_policy, config, Claims.of(config))
    history = data.draw(anything(subject))
    timeline, policy, trace = played(config, history)
    for client in set(trace.clients.values()):
        drawn = timeline.counters[client][-1][1]
        if isinstance(policy, VTC):
            assert int(drawn) == policy.counter(client)
        else:
            assert isinstance(policy, DLPM)
            assert drawn == policy.deficit(client)
