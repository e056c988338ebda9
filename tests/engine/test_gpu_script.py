"""The script that checks and measures a GPU runs through on a CPU, and notices a wrong kernel."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest
import torch
from torch import Tensor

from benchmarks.gpu.checks import Check, all_checks
from benchmarks.gpu.run import main
from benchmarks.gpu.workload import SMALL, Workload
from fairprefix.gpu_ref_engine.kernels import TritonOps
from fairprefix.gpu_ref_engine.shapes import SHAPES
from tests.engine.steps import CPU

TINY = attrs.evolve(
    SHAPES["qwen3-0.6b"], hidden=32, heads=2, kv_heads=1, head_dim=16, intermediate=48, vocabulary=64
)  # fmt: skip


def test_the_script_runs_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --device cpu --small it makes every check and every run, and writes the figures as JSON."""
    target = tmp_path / "results" / "gpu.json"
    assert main(["--device", "cpu", "--small", "--repeats", "1", "--out", str(target)]) == 0
    result = json.loads(target.read_text())
    assert len(result["checks"]) > 40
    assert all(check["passed"] for check in result["checks"])
    assert [run["model"] for run in result["runs"]] == ["llama-3.2-1b", "qwen3-0.6b", "llama-3.1-8b"]
    expected = sum(SMALL.draw(512)[1])
    for run in result["runs"]:
        assert run["output_tokens"] == expected
        assert run["gpu_busy_s"] is None
        assert run["modelled_ideal_s"] > 0
        assert sum(run["step_profile_share"].values()) == pytest.approx(1)
    assert "0 failed" in capsys.readouterr().out


def test_a_wrong_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is off by one percent, or does not start, is a failed check, and the other checks go on."""
    right = TritonOps.gate
    monkeypatch.setattr(TritonOps, "gate", lambda self, gate_up: right(self, gate_up) * 1.01)

    def broken(_self: TritonOps, _values: Tensor, _weight: Tensor) -> Tensor:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(TritonOps, "norm", broken)
    found = list(all_checks({"tiny": TINY}, CPU, torch.float32, ["sdpa"]))
    failed = {check.name: check for check in found if not check.passed}
    assert set(failed) == {"tiny: kernel norm", "tiny: kernel gate"}
    assert failed["tiny: kernel norm"].problem == "RuntimeError: no kernel image"
    assert failed["tiny: kernel gate"].error == pytest.approx(0.01, rel=0.01)


def test_not_a_number_is_not_agreement() -> None:
    """A check whose error is not a number has failed."""
    assert not Check(name="x", error=float("nan"), limit=1.0).passed
    assert Check(name="x", error=1.0, limit=1.0).passed


def test_the_workload_is_the_one_that_others_use() -> None:
    """Seed 0 gives 256 requests with 142,827 input and 133,966 output tokens."""
    prompts, outputs = Workload().draw(128_256)
    assert (len(prompts), sum(map(len, prompts)), sum(outputs)) == (256, 142_827, 133_966)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_what_to_do() -> None:
    """Where there is no GPU, one sentence says how to run it all the same."""
    with pytest.raises(SystemExit, match="run with --device cpu --small"):
        main(["--device", "cuda"])
