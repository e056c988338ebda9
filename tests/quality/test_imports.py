"""Importing the package costs little: counted in modules, since time depends on the machine.

`benchmarks/import_time.py` prints the time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

import fairprefix

HEAVY = {
    "asyncio",
    "concurrent",
    "http",
    "json",
    "logging",
    "multiprocessing",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
}
FOREIGN = {"attr", "attrs"}
OURS_AT_MOST = 24


def modules(code: str) -> set[str]:
    """Return what a fresh interpreter has loaded after this, beyond what it starts with."""
    program = f"import sys; before = set(sys.modules)\n{code}\nprint(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    return set(done.stdout.split())


def test_importing_the_package_loads_the_policies_and_attrs_alone() -> None:
    """No library but attrs, nothing heavy of the standard library, and few modules of ours."""
    loaded = modules("import fairprefix")
    tops = {name.partition(".")[0] for name in loaded}
    assert tops - sys.stdlib_module_names == {"fairprefix", *FOREIGN}
    assert not tops & HEAVY
    ours = {name for name in loaded if name.startswith("fairprefix")}
    assert len(ours) <= OURS_AT_MOST, sorted(ours)
    assert all(name.startswith("fairprefix.core") for name in ours - {"fairprefix"})


@pytest.mark.parametrize("name", fairprefix.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """Also the names that are imported when they are first used: each is what its module calls so."""
    thing = getattr(fairprefix, name)
    assert getattr(thing, "__name__", name).endswith(name) or name in {"BlockHash", "Client"}
    assert name in dir(fairprefix)


def test_a_star_brings_everything() -> None:
    """`from fairprefix import *` binds all public names, as type checkers think."""
    names = json.loads(
        subprocess.run(
            [sys.executable, "-c", "from fairprefix import *\nimport json; print(json.dumps(list(globals())))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert set(fairprefix.__all__) <= set(names)


def test_the_version_is_that_of_the_package() -> None:
    """What is asked for in every bug report."""
    assert fairprefix.__version__ == version("fairprefix")


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """So that `hasattr` works, and a misspelt import is told as one."""
    with pytest.raises(AttributeError, match=r"fairprefix.*no attribute 'DLMP'"):
        fairprefix.DLMP  # type: ignore[attr-defined]  # noqa: B018


def test_the_command_line_starts_without_its_extras() -> None:
    """`fairprefix --help` loads neither torch nor numpy nor a server."""
    loaded = {name.partition(".")[0] for name in modules("import fairprefix.cli.main")}
    assert not loaded & {"torch", "numpy", "aiohttp", "uvicorn", "starlette", "matplotlib", "hypothesis"}
