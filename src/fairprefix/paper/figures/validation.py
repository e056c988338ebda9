"""The step-time model against a recorded run of a real engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from fairprefix.paper.rules import Scale
from fairprefix.paper.section import Figure, Result, Section, Table, Task, Verdict, number
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.reqlog import as_trace, read_log
from fairprefix.sim.steptime import StepTimeModel, TableModel
from fairprefix.sim.trace import load_trace
from fairprefix.sim.validate import compare, replay, with_prefixes

RECORDING = "llama31_8b_rtx4090"
LOG = f"{RECORDING}/requests.jsonl.gz"
PREFIXES = "sharegpt300_llama31_8b_blocks16.jsonl.gz"
ALLOWED = 0.10
NAMES = {"ttft_s": "time to first token", "tpot_s": "time per output token", "latency_s": "latency"}
MS = 1000.0
TITLE = "The time model against a real engine"
ABOUT = (
    "300 ShareGPT requests of Llama-3.1-8B in bf16 on an RTX 4090, served by vLLM 0.19.0 and recorded by the "
    "authors "
    "of LLMServingSim (casys-kaist, MIT licence), whose tables of layer times for that GPU the model "
    "interpolates. The "
    "virtual engine has the recorded engine's own parameters (41,408 tokens of KV memory, 2,048 tokens a step, no "
    "reservation), serves in order of arrival, and gets every request when the engine got it. Nothing is fitted."
)


@frozen
class Validation:
    """The recorded requests once more, in virtual time."""

    data: str

    @property
    def key(self) -> str:
        """Return the name of the result."""
        return "validation-2"

    @property
    def title(self) -> str:
        """Return what progress calls it."""
        return "time model against a recorded run"

    def carry_out(self) -> Result:
        """Simulate, and compare the means per metric."""
        folder = Path(self.data)
        tables = TableModel.from_folder(folder / RECORDING)
        return {
            "tables": self._errors(tables, tables.kv_tokens),
        }

    def _errors(self, model: StepTimeModel, kv_tokens: int) -> Result:
        log = read_log(Path(self.data) / LOG)
        trace = with_prefixes(as_trace(log, LOG), load_trace(Path(self.data) / PREFIXES))
        engine = EngineConfig(kv_tokens=kv_tokens, reservation="none")
        compared = compare(log, replay(trace, engine, model))
        return {one.metric: [one.measured_s, one.simulated_s, one.error] for one in compared}


def available(data: str | None) -> bool:
    """Return whether a folder holds the recording."""
    return data is not None and all((Path(data) / name).exists() for name in (RECORDING, LOG, PREFIXES))


def _tasks(scale: Scale) -> Sequence[Task]:
    return [Validation(scale.data)] if scale.data is not None and available(scale.data) else []


def _build(scale: Scale, by_key: Mapping[str, Result]) -> Section:
    tasks = _tasks(scale)
    if not tasks:
        missing = (
            f"Not run: the recording is not part of the package. Give a folder with {RECORDING}/ and {PREFIXES} "
            "(--data DIR; docs/simulate.md says where they come from)."
        )
        return Section("validation", TITLE, f"{ABOUT} {missing}")
    errors = by_key[tasks[0].key]["tables"]
    rows = tuple(
        (f"mean {NAMES[metric]}", number(seen * MS, 1), number(ours * MS, 1), f"{error:+.1%}")
        for metric, (seen, ours, error) in errors.items()
    )
    verdicts = tuple(
        Verdict(f"mean {NAMES[metric]} within 10 %", abs(error) <= ALLOWED, f"{error:+.1%}")
        for metric, (_, _, error) in errors.items()
    )
    table = Table("milliseconds", ("", "recorded", "simulated", "error"), rows)
    doubt = (
        "The figures of the paper use a roofline model of an A100 and an A10G, for which no such recording is "
        "at hand: "
        "what is validated here is the engine and the way in which step times add up, with tables of a third GPU."
    )
    return Section("validation", TITLE, f"{ABOUT} {doubt}", (table,), verdicts)


FIGURE = Figure("validation", TITLE.lower(), _tasks, _build)
