"""The figures appear in Prometheus under their names, whichever way they are exported."""

from __future__ import annotations

import pytest

prometheus_client = pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest  # noqa: E402

from fairprefix.core.bounds import Engine  # noqa: E402
from fairprefix.core.config import PolicyConfig  # noqa: E402
from fairprefix.core.request import Request  # noqa: E402
from fairprefix.hosting import HostedPolicy  # noqa: E402
from fairprefix.hosting.metrics import FigureGauges, FiguresCollector  # noqa: E402

ENGINE = Engine(reservation="full", kv_tokens=1000, max_running=4, longest_input=100, longest_output=100)
EXPECTED = {
    'fairprefix_request_total{fairness_id="<b>\\"x\\"",rank="0"} 1.0',
    'fairprefix_request_output_tokens_total{fairness_id="<b>\\"x\\"",rank="0"} 3.0',
    'fairprefix_request_cached_tokens_total{fairness_id="<b>\\"x\\"",rank="0"} 60.0',
    'fairprefix_deficit_tokens{fairness_id="<b>\\"x\\"",rank="0"} 2002.0',
    'fairprefix_attained_service_tokens{fairness_id="<b>\\"x\\"",rank="0"} 46.0',
    'fairprefix_policy_errors_total{rank="0"} 0.0',
    'fairprefix_prefix_hit_ratio{rank="0"} 0.6',
    'fairprefix_bound_ratio{bound="a_priori",rank="0"} 0.0',
}


def served() -> HostedPolicy:
    """Return a policy under which one request of an unpleasant name has run."""
    policy = HostedPolicy(PolicyConfig(), limits=ENGINE)
    policy.arrive(Request("1", '<b>"x"', 100, 10))
    policy.take("1", extend=40, reserve=10)
    policy.produced({'<b>"x"': 3})
    policy.finish("1", output=3)
    return policy


@pytest.mark.parametrize("way", ["collector", "gauges"])
def test_figures_are_exported(way: str) -> None:
    """Names, labels and values; label values are escaped."""
    registry, policy = CollectorRegistry(), served()
    if way == "collector":
        registry.register(FiguresCollector(policy.samples, {"rank": "0"}))
    else:
        gauges = FigureGauges(policy.samples, {"rank": "0"}, registry)
        gauges.update()
        gauges.update()
    lines = {_in_order(line) for line in generate_latest(registry).decode().splitlines()}
    assert {_in_order(line) for line in EXPECTED} <= lines


def _in_order(line: str) -> str:
    """Return a line with its labels sorted: their order means nothing."""
    name, brace, rest = line.partition("{")
    labels, _, value = rest.rpartition("}")
    return f"{name}{brace}{','.join(sorted(labels.split(',')))}{value}"
