"""The core compiled by mypyc against the same sources interpreted, by turns in one run.

    make compiled && python benchmarks/compiled.py .venv-compiled/bin/python .venv/bin/python

Each interpreter runs the steady state of `policy_step.py`, three times by turns; the medians of the medians count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from policy_step import measure
print(json.dumps({name: measure(name, 1000, 20, 600).step for name in ("dlpm", "vtc", "lpm")}))
"""


def measured(python: str) -> dict[str, float]:
    """Return microseconds per step of each policy under an interpreter."""
    run = [str(Path(python).absolute()), "-c", PROGRAM, str(HERE)]
    done = subprocess.run(run, check=True, capture_output=True, text=True, cwd="/")  # noqa: S603 (given by the user)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("compiled", help="python of an environment with the compiled wheel")
    parser.add_argument("interpreted", help="python of an environment with the sources")
    options = parser.parse_args()
    rounds = [(measured(options.compiled), measured(options.interpreted)) for _ in range(3)]
    print(f"{'policy':<8}{'compiled us':>12}{'interpreted us':>16}{'ratio':>7}")
    for name in rounds[0][0]:
        fast, slow = (statistics.median(both[side][name] for both in rounds) for side in (0, 1))
        print(f"{name:<8}{fast:>12.0f}{slow:>16.0f}{slow / fast:>7.2f}")


if __name__ == "__main__":
    main()
