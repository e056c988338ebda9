"""One simulation of the evaluation: what it is, and its execution. A result is a function of the specification."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs
from attrs import Factory, frozen

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import one_of
from fairprefix.core.router_config import RouterConfig
from fairprefix.paper import rules
from fairprefix.paper.aging import AgingLPM
from fairprefix.sim.fleet import Fleet, WorkerSpec
from fairprefix.sim.programfigures import measure
from fairprefix.sim.programs import run_programs
from fairprefix.workload import WorkloadSize, make_workload

FORMAT = 1
"""Goes into every key: raised whenever results mean something else than before."""


@frozen
class System:
    """A way to schedule: what workers run, and how requests come to them."""

    label: str
    policy: str
    arrangement: str


SYSTEMS = {
    "d2lpm": System("D²LPM", "dlpm", "d2lpm"),
    "vtc": System("VTC + per-client RR", "vtc", "client_rr"),
    "lpm": System("RR + LPM", "lpm", "rr"),
    "preble": System("Preble", "lpm", "preble"),
    "fcfs": System("RR + FCFS", "fcfs", "rr"),
}
SINGLE = {"d2lpm": "DLPM", "vtc": "VTC", "lpm": "LPM", "preble": "LPM", "fcfs": "FCFS"}
"""What they are called where there is one worker."""


def label_of(system: str, workers: int) -> str:
    """Return what a system is called."""
    return SINGLE[system] if workers == 1 else SYSTEMS[system].label


@frozen(kw_only=True)
class Spec:
    """Everything that decides a result."""

    workload: str
    system: str
    workers: int = 1
    clients: int = rules.CLIENTS
    divisor: int = 1
    """By how much it is smaller than rule 7 says."""
    hardware: tuple[str, str] = rules.BIG
    quantum: int = rules.QUANTUM
    worker_quantum: int = rules.WORKER_QUANTUM
    load: float = rules.LOAD
    seed: int = rules.SEED
    to_the_end: bool = False
    policy: Mapping[str, Any] = Factory(dict)
    """Further settings of the policy."""
    engine: Mapping[str, Any] = Factory(dict)
    """Settings of the engine other than those of rule 1."""
    aging: int = 0
    """Tokens by which a waiting request gains on longer matches at each pass (LPM only)."""
    gaps: bool = False
    """Whether the largest gap between co-backlogged clients is wanted too."""

    def __attrs_post_init__(self) -> None:
        """Refuse an unknown system."""
        one_of("system", self.system, SYSTEMS)

    @property
    def key(self) -> str:
        """Return the name of the result's file."""
        text = json.dumps([FORMAT, attrs.asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def title(self) -> str:
        """Return what progress calls it."""
        return f"{self.workload} x{self.workers} {label_of(self.system, self.workers)}"

    def carry_out(self) -> dict[str, Any]:
        """Run it."""
        return execute(self)


def execute(spec: Spec) -> dict[str, Any]:
    """Run a specification and return its figures, as JSON-serialisable data."""
    begun = time.process_time()
    rate = rules.program_rate(spec.workload, spec.workers, spec.clients, spec.hardware, spec.load)
    programs = rules.programs_per_client(spec.workload, spec.workers, spec.clients, spec.divisor)
    size = WorkloadSize(programs=programs, rate=rate, clients=spec.clients)
    workload = make_workload(spec.workload, size, seed=spec.seed)
    config = PolicyConfig(
        **{
            "policy": SYSTEMS[spec.system].policy,
            "quantum": spec.quantum,
            "reservation": spec.engine.get("reservation", "full"),
            **spec.policy,
        }
    )
    run, record = run_programs(
        workload,
        config,
        make_fleet(spec),
        to_the_end=spec.to_the_end or not workload.greedy,
        make=partial(AgingLPM, tokens_per_pass=spec.aging) if spec.aging else make_policy,
    )
    figures = measure(workload, run, record, gaps=spec.gaps)
    return {
        "spec": attrs.asdict(spec),
        "rate": rate,
        "programs": programs,
        **figures,
        "cpu_s": round(time.process_time() - begun, 2),
    }


def make_fleet(spec: Spec) -> Fleet:
    """Return the workers of a specification."""
    step_time = rules.step_times(spec.hardware)
    worker = WorkerSpec(rules.engine_config(step_time, **spec.engine), step_time)
    system = SYSTEMS[spec.system]
    router: dict[str, Any] = {"quantum": spec.worker_quantum}
    if system.arrangement == "preble":
        router |= rules.preble_costs(spec.hardware)
    return Fleet(
        workers=(worker,) * spec.workers,
        arrangement=system.arrangement,
        router=RouterConfig.from_mapping(router),
    )
