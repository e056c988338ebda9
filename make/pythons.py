"""Runs the core's tests on every supported Python that is at hand: each in an environment of its own.

`make test-pythons`; with a version (`python make/pythons.py 3.12`) on that one alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SUPPORTED = ("3.10", "3.11", "3.12", "3.13")
PINNED_FROM = (3, 11)
"""What constraints.txt pins has left older ones behind: there the package's own ranges decide."""
TESTS = ("tests/property", "tests/core", "--ignore=tests/core/test_scale.py")


def interpreters(version: str) -> Iterator[Path]:
    """Yield what may be a Python of this version: on the path, and where pyenv keeps others."""
    found = shutil.which(f"python{version}")
    if found:
        yield Path(found)
        yield from sorted(Path(found).parents[1].glob(f"versions/{version}.*/bin/python"))


def works(python: Path, version: str) -> bool:
    """Return whether it starts, is of that version, and can make environments (pyenv's stand-ins may not)."""
    told = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    ran = subprocess.run([python, "-c", told], capture_output=True, text=True, check=False)  # noqa: S603
    return ran.returncode == 0 and ran.stdout.strip() == version


def test(python: Path, version: str) -> None:
    """Install the package with its testing extra alone, and run the tests."""
    folder = Path(f".venv-py{version}")
    subprocess.run([python, "-m", "venv", folder], check=True)  # noqa: S603
    own = folder / "bin" / "python"
    pinned = tuple(map(int, version.split("."))) >= PINNED_FROM
    constraint: list[str | Path] = ["--constraint", "constraints.txt"] if pinned else []
    pip: list[str | Path] = [own, "-m", "pip", "install", "--quiet", *constraint]
    subprocess.run([*pip, ".[testing]", "pytest"], check=True)  # noqa: S603
    quick = os.environ | {"HYPOTHESIS_PROFILE": "mutation"}
    subprocess.run([own, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS], check=True, env=quick)  # noqa: S603
    subprocess.run([own, "-m", "fairprefix", "simulate", "--quiet"], check=True, stdout=subprocess.DEVNULL)  # noqa: S603


def main(versions: list[str]) -> None:
    """Test on each version; one that is not at hand is named."""
    tested = 0
    for version in versions or SUPPORTED:
        python = next((each for each in interpreters(version) if works(each, version)), None)
        print(f"Python {version}: {python or 'not on this machine'}", flush=True)
        if python:
            test(python, version)
            tested += 1
    sys.exit(0 if tested else "no supported Python was found")


if __name__ == "__main__":
    main(sys.argv[1:])
