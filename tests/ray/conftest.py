"""These tests need Ray Serve: `make test-ray` runs them in an environment of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "150",
    "RAY_SERVE_DEPLOYMENT_ACTOR_HEALTH_CHECK_PERIOD_S": "1",
    "OMP_NUM_THREADS": "1",
}

if find_spec("ray") is None:
    collect_ignore_glob = ["test_*.py"]
elif find_spec("vllm") is None:
    collect_ignore = ["test_llm.py"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Three raylets on this machine, and Serve on them."""
    import ray  # noqa: PLC0415 (not everywhere)
    from ray import serve  # noqa: PLC0415 (not everywhere)
    from ray.cluster_utils import Cluster  # noqa: PLC0415 (not everywhere)

    memory = 100 << 20
    head = {"num_cpus": 8, "object_store_memory": memory, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        nodes.add_node(num_cpus=8, object_store_memory=memory)
    ray.init(address=nodes.address, log_to_driver=False)
    yield
    serve.shutdown()
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is configured outside does not count."""
    for name in ("FAIRPREFIX_CONFIG", "FAIRPREFIX_POLICY"):
        monkeypatch.delenv(name, raising=False)
