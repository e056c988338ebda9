"""What `fairprefix simulate` is about to simulate, and how it describes that."""

from __future__ import annotations

import textwrap
from importlib.metadata import version
from typing import Any

import attrs
from attrs import frozen

from fairprefix.cli.fleet import describe_fleet
from fairprefix.core.config import PolicyConfig
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.fleet import Fleet
from fairprefix.sim.steptime import StepTimeModel
from fairprefix.sim.trace import Trace
from fairprefix.workload import Workload

WIDTH = 100
"""Notes are wrapped to this."""


@frozen
class Task:
    """Everything that is simulated, ready to go."""

    trace: Trace
    notes: tuple[str, ...]
    policies: tuple[str, ...]
    config: PolicyConfig
    """Settings of all policies; which policy it names has no meaning."""
    engine: EngineConfig
    step_time: StepTimeModel
    model: str
    gpu: str
    """Of the worker; of several, all that there are."""
    seed: int
    fleets: tuple[Fleet, ...] = ()
    """One per router; none where a worker is simulated by itself."""
    workload: Workload | None = None
    """What runs in closed loop; the trace then only tells its sizes."""

    @property
    def title(self) -> str:
        """What is simulated, in a line."""
        requests = counted(len(self.trace.requests), "request")
        clients = counted(len({request.client for request in self.trace.requests}), "client")
        workers = f"{len(self.fleets[0].workers)} x " if self.fleets else ""
        return f"{self.trace.name}: {requests} of {clients}, {workers}{self.model} on {self.gpu}"

    def headings(self) -> list[str]:
        """Return the lines above the tables."""
        engine = self.engine
        return [
            self.title,
            f"KV memory of {self._memory()} tokens, reservation {engine.reservation}",
            f"steps of up to {engine.chunk:,} tokens, at most {counted(engine.max_batch, 'request')} at once",
            *(textwrap.fill(f"note: {note}", WIDTH, subsequent_indent="      ") for note in self.notes),
        ]

    def _memory(self) -> str:
        sizes = {spec.engine.kv_tokens for fleet in self.fleets for spec in fleet.workers}
        return " or ".join(f"{size:,}" for size in sorted(sizes or {self.engine.kv_tokens}))

    def to_mapping(self) -> dict[str, Any]:
        """Return what is needed to repeat the runs, as JSON-serialisable data."""
        settings = self.config.to_mapping()
        del settings["policy"]
        return {
            "fairprefix": version("fairprefix"),
            "trace": self.trace.name,
            "requests": len(self.trace.requests),
            "block_size": self.trace.block_size,
            "notes": list(self.notes),
            "seed": self.seed,
            "model": self.model,
            "gpu": self.gpu,
            "kv_tokens": self.engine.kv_tokens,
            "engine": attrs.asdict(self.engine),
            "policies": list(self.policies),
            "policy": settings,
            **self._workers(),
        }

    def _workers(self) -> dict[str, Any]:
        if not self.fleets:
            return {}
        routers = [fleet.arrangement for fleet in self.fleets]
        return {"routers": routers, "workers": describe_fleet(self.fleets[0])}


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it has to be."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
