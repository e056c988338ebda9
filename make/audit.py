"""Asks PyPI's advisory database about every version that constraints.txt pins: `make audit`.

Where the database cannot be reached it says so: then nothing has been audited. With `--must` that is a failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
AUDIT = (
    sys.executable,
    "-m",
    "pip_audit",
    "--no-deps",
    "--disable-pip",
    "--progress-spinner=off",
    "--format=json",
)


def main(*, must: bool) -> None:
    """Print what is known of the pinned versions."""
    command = [*AUDIT, "--requirement", ROOT / "constraints.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        pinned = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        _not_audited(f"the advisory database gave no answer: {last}", must=must)
        return
    asked = [each for each in pinned if "vulns" in each]
    for each in asked:
        for found in each["vulns"]:
            fix = ", ".join(found["fix_versions"]) or "none yet"
            print(f"{each['name']} {each['version']}: {found['id']} (fixed in: {fix})")
    if not asked:
        _not_audited(f"none of {len(pinned)} packages is known to the advisory database from here", must=must)
        return
    found_any = any(each["vulns"] for each in asked)
    print(
        f"audited {len(asked)} of {len(pinned)} pinned versions: {'see above' if found_any else 'nothing known'}"
    )
    sys.exit(int(found_any or (must and len(asked) < len(pinned))))


def _not_audited(why: str, *, must: bool) -> None:
    print(f"NOT AUDITED: {why}", file=sys.stderr)
    sys.exit(int(must))


if __name__ == "__main__":
    main(must="--must" in sys.argv[1:])
