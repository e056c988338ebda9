"""Workloads as programs: calls that depend on each other's answers, the same for every engine.

    workload = make_workload("S1@ToT", WorkloadSize(programs=20, rate=0.5), seed=0)

The virtual engine runs them in closed loop (`fairprefix.sim.programs`), and `fairprefix.bench` sends them to the
reference engine or to any OpenAI endpoint: a call is made once the calls that it depends on have been answered.
"""

from fairprefix.workload.catalog import WORKLOADS, WorkloadSize, make_workload
from fairprefix.workload.program import Call, Part, Program, Workload, WorkloadError
from fairprefix.workload.scaling import scaled

__all__ = [
    "WORKLOADS",
    "Call",
    "Part",
    "Program",
    "Workload",
    "WorkloadError",
    "WorkloadSize",
    "make_workload",
    "scaled",
]
