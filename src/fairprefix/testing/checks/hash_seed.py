"""Decisions do not depend on how Python hashes strings in this process."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fairprefix.core.config import PolicyConfig
from fairprefix.testing import events as ev
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.claims import Claims
from fairprefix.testing.lab import Lab, MakePolicy, Subject

_SEEDS = ("1", "2")
_TIMEOUT_S = 30


def check(lab: Lab, _data: Any) -> None:  # noqa: ANN401 (nothing is drawn)
    """Let two processes with different hash seeds decide, and compare; needs a factory that can be imported."""
    name = importable_name(lab.subject.make_policy)
    if name is None:
        lab.remark = "left out: no other process can import the factory"
        return
    first, second = (_decisions(name, lab.config, seed, lab.subject.unit()) for seed in _SEEDS)
    for here, there in zip(first, second, strict=False):
        assert here == there, f"with other hash seeds it decides {there} instead of {here}"
    assert len(first) == len(second), "with other hash seeds it decides more, or less, often"


def importable_name(make_policy: MakePolicy) -> str | None:
    """Return `module:name` when that leads to just this factory in another process, else None."""
    module, name = getattr(make_policy, "__module__", None), getattr(make_policy, "__qualname__", "")
    if not module or module == "__main__" or "<" in name:
        return None
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    return f"{module}:{name}" if found is make_policy else None


def decide(name: str, settings: dict[str, Any], unit: int) -> list[list[Any]]:
    """Return what the policies of a factory decide in one fixed history: run in a process of its own."""
    module, _, path = name.partition(":")
    factory: Any = importlib.import_module(module)
    for part in path.split("."):
        factory = getattr(factory, part)
    lab = Lab(Subject(factory, PolicyConfig.from_mapping(settings), Claims()))
    return [list(fact) for fact in lab.run(_busy(unit)).decisions()]


def _busy(unit: int) -> ev.History:
    limits = ev.EngineLimits(kv_tokens=16 * unit, max_running=3, decode=unit, block=unit, cache_blocks=3)
    names = [f"client-{number}" for number in range(8)]
    prefixes = [(), (1,), (1, 11), (2,)]
    rounds = [
        ev.Arrive(name, (2 + place % 3) * unit, (1 + place % 4) * unit, prefixes[(place + again) % 4], count=2)
        for again in range(3)
        for place, name in enumerate(names)
    ]
    return ev.History(limits, (*rounds[:8], ev.Step(5), *rounds[8:16], ev.Abort(3), ev.Step(5), *rounds[16:]))


def _decisions(name: str, config: PolicyConfig, seed: str, unit: int) -> list[Any]:
    code = (
        "import json, sys; from fairprefix.testing.checks.hash_seed import decide; "
        "print(json.dumps(decide(*json.loads(sys.argv[1]))))"
    )
    environment = os.environ | {
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
    }
    try:
        done = subprocess.run(  # noqa: S603 (this Python, on the factory under test)
            [sys.executable, "-c", code, json.dumps([name, config.to_mapping(), unit])],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AssertionError(f"in a process of its own it does not end within {_TIMEOUT_S} s") from None
    assert done.returncode == 0, f"in a process of its own it fails: {done.stderr.strip().splitlines()[-1:]}"
    decisions: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return decisions


CHECK = Check(
    name="hash_seed",
    claim="decisions do not depend on PYTHONHASHSEED (for factories that another process can import)",
    run=check,
    data=None,
)
