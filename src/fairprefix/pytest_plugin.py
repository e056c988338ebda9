"""A pytest plugin, inert unless used: options for the suites of `fairprefix.testing.suite`.

It imports nothing of the kit: installing fairprefix changes no test run.
"""

from __future__ import annotations

import os
from typing import Any


def pytest_addoption(parser: Any) -> None:  # noqa: ANN401 (pytest is not imported)
    """Add the options."""
    group = parser.getgroup("fairprefix", "conformance suites of scheduling policies")
    group.addoption("--fairprefix-examples", metavar="N", type=int, help="random histories per check")
    group.addoption("--fairprefix-seed", metavar="S", type=int, help="seed of the random histories")


def pytest_configure(config: Any) -> None:  # noqa: ANN401 (pytest is not imported)
    """Hand the options on to the suites."""
    for option, variable in _OPTIONS.items():
        value = config.getoption(option)
        if value is not None:
            os.environ[variable] = str(value)


def pytest_report_header(config: Any) -> str | None:  # noqa: ANN401 (pytest is not imported)
    """Say what was asked for, if anything was."""
    given = [f"{option} {config.getoption(option)}" for option in _OPTIONS if config.getoption(option) is not None]
    return f"fairprefix: {', '.join(given)}" if given else None


_OPTIONS = {"--fairprefix-examples": "FAIRPREFIX_EXAMPLES", "--fairprefix-seed": "FAIRPREFIX_SEED"}
