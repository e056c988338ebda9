"""Types as API: pyright on the cases of tests/typing, and its verdict on every name that the package exports.

`make types`. mypy reads the same cases in `make lint`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGE = "fairprefix"
FOREIGN = {
    "fairprefix.adapters.ray.router.D2LPMRouter": "its base class is Ray's, which is not installed here",
    "fairprefix.adapters.ray.llm.FairLLMServer": "likewise",
}
"""What cannot be known without an engine."""


def pyright(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it on this environment."""
    own = Path(sys.executable).parent
    environment = os.environ | {"PATH": os.pathsep.join([str(own), os.environ["PATH"]])}
    command = [own / "basedpyright", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603


def incomplete(symbols: list[dict[str, Any]]) -> list[str]:
    """Return what is wrong with the types of exported names: unknown, or for a checker to guess."""
    return [
        f"{symbol['name']}: {diagnostic['message'].splitlines()[0]}"
        for symbol in symbols
        if symbol["isExported"] and symbol["name"] not in FOREIGN
        if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]
        for diagnostic in symbol["diagnostics"]
    ]


def main() -> None:
    """Judge the cases, then the package."""
    cases = pyright()
    if cases.returncode:
        sys.exit(cases.stdout + cases.stderr)
    verdict = pyright("--verifytypes", PACKAGE, "--ignoreexternal", "--outputjson")
    found = json.loads(verdict.stdout)["typeCompleteness"]
    wrong = incomplete(found["symbols"])
    exported = sum(symbol["isExported"] for symbol in found["symbols"]) - len(FOREIGN)
    print(f"pyright: tests/typing is right; of {exported:,} exported names {len(wrong)} have no full type")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
