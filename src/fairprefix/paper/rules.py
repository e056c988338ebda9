"""What the paper does not state: written down before the first run, and the same for every figure.

1. Engine. One A100-80GB with Llama-3.1-8B (Fig. 7-9, 12) or one A10G with Llama-3.2-3B (the others), CUDA graphs,
   2,048 tokens a step, at most 256 requests at once, memory reserved for the longest output, a scheduling pass
   every 10 steps (the paper's footnote on SGLang) or when something has happened.
2. Clients. Three, where the paper gives no number: its Jain index goes down to 1/3.
3. Quanta. The geometric middle of the range that the paper sweeps: Q^u = sqrt(1,000 * 32,000) = 5,656 (Fig. 1) and
   Q^w = sqrt(2,000 * 40,000) = 8,944 (Fig. 10).
4. Load. If all clients behaved well they would together ask for 1.5 times what D workers can do, with reuse inside
a
   program but none between programs; each asks for the same share of it. A misbehaving client keeps that program
   rate (S1 and S2 make its programs larger), so that the load of Fig. 7 is higher still. Poisson arrivals.
5. Workload of figures that name none: S1@ToT, the first line of Table 3.
6. Jain's index and throughput are measured over the time in which all clients have unfinished programs, in service
as
   clients see it. Runs end when all programs of well-behaved clients are done, or, where nobody misbehaves and
   where the makespan is shown, when everything is done.
"""

from __future__ import annotations

from math import isqrt

from attrs import frozen

from fairprefix.core.errors import one_of
from fairprefix.sim.decoderun import PS_PER_MS
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.steptime import StepTimeModel, step_time_model
from fairprefix.workload import Program, WorkloadSize, make_workload

LOAD = 1.5
CLIENTS = 3
QUANTUM = isqrt(1_000 * 32_000)
WORKER_QUANTUM = isqrt(2_000 * 40_000)
UNNAMED_WORKLOAD = "S1@ToT"
BIG = ("llama-3.1-8b", "a100-graphs")
SMALL = ("llama-3.2-3b", "a10g")
SEED = 0

PROGRAMS = {"ToT": 120, "Judge": 360, "LongQA": 720, "Chat": 1_200, "Mix": 120, "OwnPrefix": 4_800}
"""Programs per worker of all clients together."""
_PROBES = 12
"""Programs of each client whose work is averaged to learn what a worker can do."""
_PS_PER_S = 1000 * PS_PER_MS


@frozen
class Scale:
    """How much of everything."""

    name: str
    divisor: int
    workers: tuple[int, ...]
    seeds: tuple[int, ...] = (SEED,)
    four: int = 4
    """Workers where the paper has four (Fig. 9 and 10)."""
    frontier: int | None = None
    """How many workloads the frontier is drawn for; None: all."""
    data: str | None = None
    """A folder with recorded runs and traces, for what needs them."""


SCALES = {
    "full": Scale("full", 1, (1, 2, 4, 8), (0, 1, 2)),
    "quick": Scale("quick", 1, (1, 2), four=2, frontier=1),
    "tiny": Scale("tiny", 12, (1, 2), four=2, frontier=1),
}
"""By name. `full` and `quick` differ in workers and seeds, not in the length of a run, on which results depend;
`tiny` is for tests."""


def engine_config(step_time: StepTimeModel, **changes: int | str) -> EngineConfig:
    """Return the engine that rule 1 describes."""
    return EngineConfig(**{"kv_tokens": step_time.kv_tokens, **changes})  # type: ignore[arg-type]  # checked there


def step_times(hardware: tuple[str, str]) -> StepTimeModel:
    """Return the step-time model of (model, GPU)."""
    return step_time_model(*hardware)


def base_of(workload: str) -> str:
    """Return the workload in which everybody behaves well."""
    base = "Chat" if workload == "Phases" else workload.partition("@")[2] or workload
    return one_of("workload", base, PROGRAMS)


def programs_per_client(workload: str, workers: int, clients: int, divisor: int) -> int:
    """Return how many programs each client begins."""
    return max(2, PROGRAMS[base_of(workload)] * workers // (clients * divisor))


def program_rate(
    workload: str, workers: int, clients: int, hardware: tuple[str, str], load: float = LOAD
) -> float:
    """Return the programs per second of each client, by rule 4."""
    step_time = step_times(hardware)
    probe = make_workload(base_of(workload), WorkloadSize(programs=_PROBES, rate=1.0, clients=clients))
    seconds = sum(work_seconds(program, step_time) for program in probe.programs) / _PROBES
    return load * workers / seconds


def work_seconds(program: Program, step_time: StepTimeModel) -> float:
    """Return how long a worker takes for a program, as one of many: each text is computed once.

    Output is decoded in batches as large as memory allows.
    """
    config = engine_config(step_time)
    answers = {call.output.id for call in program.calls}
    texts = {part.id: part.tokens for call in program.calls for part in call.prompt if part.id not in answers}
    output = sum(call.output.tokens for call in program.calls)
    context = sum(call.input_tokens + call.limit for call in program.calls) // len(program.calls)
    batch = max(1, min(config.max_batch, config.kv_tokens // context))
    decode_ps = step_time.decode_run(batch, batch * context).total_ps(1)
    return (_prefill_ps(sum(texts.values()), config.chunk, step_time) + output * decode_ps / batch) / _PS_PER_S


def _prefill_ps(tokens: int, chunk: int, step_time: StepTimeModel) -> float:
    """Return the time to compute so many prompt tokens in full chunks, the last one in proportion."""
    total, done = 0.0, 0
    while done < tokens:
        new = min(chunk, tokens - done)
        total += step_time.step_ps(prefills=[(chunk, done)], decodes=0, context=0) * new / chunk
        done += new
    return total


def preble_costs(hardware: tuple[str, str]) -> dict[str, int]:
    """Return what Preble's E2 takes a token to cost, in ns: profiled offline, as its authors do."""
    step_time = step_times(hardware)
    prefill = step_time.step_ps(prefills=[(2048, 0)], decodes=0, context=0) // 2048
    decode = step_time.decode_run(64, 64 * 1024).total_ps(1) // 64
    return {"prefill_ns": prefill // 1000, "decode_ns": decode // 1000}
