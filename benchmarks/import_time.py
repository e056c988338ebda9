"""How long `import fairprefix` takes: fresh interpreters, in turn with ones that import nothing, and attrs alone.

    python benchmarks/import_time.py

A limit that the project sets itself: less than 100 ms beyond the interpreter's own start.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from statistics import median
from time import perf_counter

CASES = {
    "nothing": "pass",
    "attrs": "import attrs",
    "fairprefix": "import fairprefix",
    "fairprefix, every name": "from fairprefix import *",
}


def seconds(code: str) -> float:
    """Return how long an interpreter lives that runs this."""
    began = perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
    return perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    for code in CASES.values():
        seconds(code)  # writes the bytecode
    lived: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, code in CASES.items():
            lived[name].append(seconds(code))
    start = median(lived["nothing"])
    attrs = median(lived["attrs"]) - start
    print(
        f"{'import':24} {'median':>8} {'fastest':>8}   beyond the start of {1000 * start:.0f} ms; {rounds} rounds"
    )
    for name in list(CASES)[1:]:
        took = median(lived[name]) - start
        fastest = min(lived[name]) - min(lived["nothing"])
        print(f"{name:24} {1000 * took:5.0f} ms {1000 * fastest:5.0f} ms   {took / attrs:.1f} x attrs")


if __name__ == "__main__":
    main()
