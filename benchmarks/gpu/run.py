"""All there is to check and measure on one GPU, in one command of at most ten minutes.

    python benchmarks/gpu/run.py                      on a machine with a GPU, torch, triton and flashinfer
    python benchmarks/gpu/run.py --device cpu --small the same code on tiny models, through Triton's interpreter

First every kernel path is held against a float32 reference. Then 256 requests with inputs and outputs of 100 to
1024 tokens (seed 0: 142,827 and 133,966 tokens, the workload of nano-vllm's and mini-sglang's benchmarks) run
through the engine, on random weights in the shapes of Llama-3.2-1B, Qwen3-0.6B and Llama-3.1-8B. Beside the
measured time stand the time between the events around each step on the GPU, where the CPU's time went, and what
a roofline model of an H200 gives the same steps. The figures go to a JSON file; the exit code is 1 if a check has
failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import datetime, timezone
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHAPES_MEASURED = ("llama-3.2-1b", "qwen3-0.6b", "llama-3.1-8b")
TIME_LIMIT_S = 600.0
FAILED = 1


def main(arguments: list[str] | None = None) -> int:
    """Check, measure, write, and return the exit code."""
    args = _arguments(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if args.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    started = perf_counter()
    result: dict[str, Any] = {"schema": 1, "started": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    result |= _machine(args.device) | {"small": args.small, "checks": [], "runs": []}
    failed = _check(args, result)
    _measure(args, result, started)
    result["wall_s"] = perf_counter() - started
    path = Path(args.out) if args.out else _default_path(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{len(result['checks'])} checks, {failed} failed; {result['wall_s']:.0f} s in all; written to {path}")
    return FAILED if failed or any("problem" in run for run in result["runs"]) else 0


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check and measure the engine on one GPU.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny models and a tiny workload")
    parser.add_argument("--backend", default="auto", help="of attention, in the workload")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each workload")
    parser.add_argument("--skip-checks", action="store_true")
    parser.add_argument("--models", default=",".join(SHAPES_MEASURED), help="which of them to measure")
    parser.add_argument("--out", help="the JSON file (default: benchmarks/results/...)")
    return parser.parse_args(arguments)


def _machine(device: str) -> dict[str, Any]:
    import torch  # noqa: PLC0415 (after the environment is set)

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here: run with --device cpu --small")
    versions: dict[str, str | None] = {"torch": torch.__version__, "python": sys.version.split()[0]}
    for name in ("triton", "flashinfer"):
        versions[name] = str(import_module(name).__version__) if find_spec(name) else None
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {"device": device, "gpu": gpu, "cuda": torch.version.cuda, "versions": versions, "cpus": os.cpu_count()}


def _shapes(*, small: bool) -> dict[str, Any]:
    """Return the shapes by name, scaled down to what an interpreter can do if they are to be small."""
    import attrs  # noqa: PLC0415

    from fairprefix.gpu_ref_engine.shapes import SHAPES  # noqa: PLC0415

    shapes = {name: SHAPES[name] for name in SHAPES_MEASURED}
    if not small:
        return shapes
    return {
        name: attrs.evolve(
            shape, layers=2, hidden=64, heads=4, kv_heads=2, head_dim=32, intermediate=96, vocabulary=512,
            longest=512, divisors=shape.divisors[:16],
        )
        for name, shape in shapes.items()
    }  # fmt: skip


def _check(args: argparse.Namespace, result: dict[str, Any]) -> int:
    """Carry out the checks and return how many have failed."""
    if args.skip_checks:
        return 0
    import attrs  # noqa: PLC0415
    import torch  # noqa: PLC0415

    from benchmarks.gpu.checks import all_checks  # noqa: PLC0415

    on_gpu, failed = args.device == "cuda", 0
    dtype = torch.bfloat16 if on_gpu else torch.float32
    flashinfer = ["flashinfer"] if on_gpu and result["versions"]["flashinfer"] else []
    for check in all_checks(
        _shapes(small=args.small), torch.device(args.device), dtype, [*flashinfer, "triton", "sdpa"]
    ):
        result["checks"].append(attrs.asdict(check) | {"passed": check.passed})
        failed += not check.passed
        verdict = "ok" if check.passed else "FAILED"
        print(
            f"{verdict:6} {check.name:60} {check.error:.1e} (limit {check.limit:.0e}) {check.problem}", flush=True
        )
    return failed


def _measure(args: argparse.Namespace, result: dict[str, Any], started: float) -> None:
    """Run the workload on each model for which there is time."""
    import torch  # noqa: PLC0415

    from benchmarks.gpu.workload import SMALL, Workload, measure  # noqa: PLC0415

    workload = SMALL if args.small else Workload()
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    shapes, slowest = _shapes(small=args.small), 0.0
    for name in args.models.split(","):
        begun = perf_counter()
        if begun - started + 2 * slowest > TIME_LIMIT_S:
            result["runs"].append({"model": name, "problem": "left out: the time limit is near"})
            continue
        try:
            run = measure(
                name, shapes[name], workload, device=torch.device(args.device), dtype=dtype, backend=args.backend,
                repeats=args.repeats,
            )  # fmt: skip
        except Exception as problem:  # noqa: BLE001 (the other models go on)
            run = {"model": name, "problem": f"{type(problem).__name__}: {problem}"}
        result["runs"].append(run)
        slowest = max(slowest, perf_counter() - begun)
        print(_line(run), flush=True)
        if args.device == "cuda":
            torch.cuda.empty_cache()


def _line(run: dict[str, Any]) -> str:
    if "problem" in run:
        return f"{run['model']}: {run['problem']}"
    busy = "" if run["gpu_busy_share"] is None else f", GPU busy {run['gpu_busy_share']:.0%}"
    share = run["share_of_modelled_ideal"]
    return (
        f"{run['model']}: {run['seconds']:.2f} s, {run['output_tokens_per_s']:,.0f} output tok/s "
        f"in {run['steps']} steps; roofline of an H200 {run['modelled_ideal_s']:.2f} s ({share:.0%}){busy}"
    )


def _default_path(result: dict[str, Any]) -> Path:
    device = (result["gpu"] or "cpu").lower().replace(" ", "-")
    size = "-small" if result["small"] else ""
    return ROOT / "benchmarks" / "results" / f"gpu-{device}{size}-{result['started'][:10]}.json"


if __name__ == "__main__":
    sys.exit(main())
