"""Traces: who asked what and when, from files, composed, or generated.

    trace = load_trace("mooncake_conversation_trace.jsonl.gz", limit=1000)
    trace = compose_clients(trace, clients=10, seed=0)

The formats are described in docs/trace-format.md.
"""

from fairprefix.sim.trace.compose import compose_clients
from fairprefix.sim.trace.generic import dump_generic
from fairprefix.sim.trace.load import FORMATS, load_trace
from fairprefix.sim.trace.record import Trace, TraceError, TraceRequest, limit, scale_time
from fairprefix.sim.trace.sample import generate_sample, load_sample

__all__ = [
    "FORMATS",
    "Trace",
    "TraceError",
    "TraceRequest",
    "compose_clients",
    "dump_generic",
    "generate_sample",
    "limit",
    "load_sample",
    "load_trace",
    "scale_time",
]
