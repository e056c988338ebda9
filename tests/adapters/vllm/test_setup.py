"""What is decided when the server starts: configuration, versions, and where figures go."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from types import SimpleNamespace

import pytest

from fairprefix.adapters.vllm.config import limits_of, read_config
from fairprefix.adapters.vllm.export import Export
from fairprefix.adapters.vllm.support import parse_version, refuse_what_cannot_work, warning_for
from fairprefix.core.errors import ConfigError
from fairprefix.hosting import Sample


def vllm_config(section: object = None, *, policy: str = "fcfs", asynchronous: bool = False) -> SimpleNamespace:
    """Return a configuration of vLLM."""
    return SimpleNamespace(
        additional_config={} if section is None else {"fairprefix": section},
        scheduler_config=SimpleNamespace(policy=policy, async_scheduling=asynchronous),
    )


def test_the_default_is_dlpm_with_the_credit_gate() -> None:
    """And vLLM's own way of admitting."""
    config = read_config(vllm_config(), {})
    assert (config.policy, config.gate, config.reservation, config.recompute) == ("dlpm", "credit", "none", "free")
    assert read_config(None, {}) == config


def test_settings_come_from_one_of_two_places() -> None:
    """The environment or the additional configuration, and not both."""
    environ = {"FAIRPREFIX_CONFIG": '{"quantum": 7}'}
    assert read_config(vllm_config(), environ).quantum == 7
    assert read_config(vllm_config({"quantum": 8}), {}).quantum == 8
    with pytest.raises(ConfigError, match="keep one of them"):
        read_config(vllm_config({"quantum": 8}), environ)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"quantumm": 8}, "unknown setting 'quantumm' \\(did you mean 'quantum'\\?\\)"),
        ({"reservation": "full"}, "this engine admits by 'none'"),
        (7, "expected a table of settings"),
    ],
)
def test_wrong_settings_are_refused(section: object, message: str) -> None:
    """With what is wrong and what would be right."""
    with pytest.raises(ConfigError, match=message):
        read_config(vllm_config(section), {})


def test_the_bound_knows_the_engine() -> None:
    """Memory, seats and lengths; the preempted resume by themselves."""
    scheduler = SimpleNamespace(
        cache_config=SimpleNamespace(num_gpu_blocks=100), block_size=16, max_num_running_reqs=8, max_model_len=512
    )
    limits = limits_of(scheduler)
    assert (limits.kv_tokens, limits.max_running, limits.longest_input) == (1600, 8, 512)
    assert (limits.reservation, limits.resume) == ("none", "held")


@pytest.mark.parametrize(
    ("version", "warned"),
    [("0.11.0", False), ("0.11.2", False), ("0.12.0", True), ("0.14.1", True), ("0.15.0", False),
     ("0.32.0+cpu", False), ("0.33.1", False), ("0.34.0", True), ("1.0", True), ("dev", True)],
)  # fmt: skip
def test_untested_versions_are_warned_of(version: str, *, warned: bool) -> None:
    """Those that the tests run on are not."""
    assert (warning_for(version) is not None) == warned


def test_what_cannot_work_is_refused() -> None:
    """Priority scheduling anywhere, asynchronous scheduling before 0.15, connectors for KV caches before 0.20."""
    with pytest.raises(ConfigError, match="'priority' is not valid"):
        refuse_what_cannot_work(vllm_config(policy="priority"), "0.32.0")
    with pytest.raises(ConfigError, match="async_scheduling = True is not valid"):
        refuse_what_cannot_work(vllm_config(asynchronous=True), "0.11.0")
    refuse_what_cannot_work(vllm_config(asynchronous=True), "0.15.0")
    refuse_what_cannot_work(vllm_config(), "0.11.0")
    disaggregated = vllm_config()
    disaggregated.kv_transfer_config = SimpleNamespace(kv_role="kv_consumer")
    with pytest.raises(ConfigError, match=r"kv_transfer_config is not valid: .* from 0\.20 on"):
        refuse_what_cannot_work(disaggregated, "0.19.1")
    refuse_what_cannot_work(disaggregated, "0.20.0")
    assert parse_version("nightly") is None


class Clock:
    """Seconds, as a test wants them."""

    now = 0.0

    def __call__(self) -> float:
        """Return them."""
        return self.now


def test_an_endpoint_of_its_own_shows_the_rank(free_port: int) -> None:
    """At the port plus the rank; figures are at most a second old, and final when nothing is left."""
    clock, value = Clock(), 1.0
    export = Export(
        lambda: [Sample("fairprefix_x_total", "x", value, {"fairness_id": "a"}, "counter")],
        rank=1,
        environ={"FAIRPREFIX_METRICS_PORT": f"127.0.0.1:{free_port - 1}"},
        clock=clock,
    )

    def shown() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/metrics") as answer:
            return str(answer.read().decode())

    assert "fairprefix_x" not in shown()
    export.update(idle=False)
    assert 'fairprefix_x_total{engine="1",fairness_id="a"} 1.0' in shown()
    value = 2.0
    export.update(idle=False)
    assert 'fairness_id="a"} 1.0' in shown(), "not yet"
    export.update(idle=True)
    assert 'fairness_id="a"} 2.0' in shown()
    value, clock.now = 3.0, 1.5
    export.update(idle=False)
    assert 'fairness_id="a"} 3.0' in shown()


@pytest.mark.parametrize("text", ["x", "0", "99999", "host:", "1.5"])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    """By name."""
    with pytest.raises(ConfigError, match="FAIRPREFIX_METRICS_PORT"):
        Export(list, 0, {"FAIRPREFIX_METRICS_PORT": text})


def test_a_port_that_is_taken_is_refused() -> None:
    """By number."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}"):
            Export(list, 0, {"FAIRPREFIX_METRICS_PORT": str(port)})


def test_without_a_place_for_them_no_figures_are_collected() -> None:
    """Collecting costs time."""

    def never() -> list[Sample]:
        raise AssertionError("collected")

    Export(never, 0, {}).update(idle=True)


_WRITER = """
from fairprefix.adapters.vllm.export import Export
from fairprefix.hosting import Sample
Export(lambda: [Sample("fairprefix_y", "y", 5, {"fairness_id": "a"})], 2).update(idle=True)
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def test_another_process_shows_the_figures(tmp_path: object) -> None:
    """With Prometheus' multi-process mode they are in the folder that vLLM's /metrics reads."""
    shown = subprocess.run(  # noqa: S603 (our own code)
        [sys.executable, "-c", _WRITER],
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert 'fairprefix_y{engine="2",fairness_id="a"} 5.0' in shown


def test_the_adapter_does_not_import_vllm() -> None:
    """Naming it in a command line must not cost anything, and its tests run without it."""
    code = "import fairprefix.adapters.vllm, sys; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout  # noqa: S603
    for heavy in ("vllm", "torch", "prometheus_client", "numpy"):
        assert f"'{heavy}'" not in loaded
