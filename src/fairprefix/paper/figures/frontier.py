"""Beyond the paper: what each variant costs in throughput, and how far apart it lets clients get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import Factory, frozen

from fairprefix.core.config import PolicyConfig
from fairprefix.paper.figures.canvas import CLIENT_COLOURS, canvas, png
from fairprefix.paper.rules import QUANTUM, SMALL, Scale, engine_config, step_times
from fairprefix.paper.section import Figure, Result, Section, Table, Task, Verdict, number
from fairprefix.paper.spec import Spec
from fairprefix.sim.simulate import simulate
from fairprefix.sim.trace import Trace, compose_clients, load_sample, load_trace

WORKLOADS = ("S1@ToT", "S1@Judge", "Phases")
MOONCAKE = "mooncake_conversation_trace.jsonl.gz"
MOONCAKE_REQUESTS = 600
QUANTA = (500, 1_000, 2_000, QUANTUM, 16_000, 64_000)
_NAMED = f"Q {QUANTUM:,}"
SLACKS = (0, 4_096, 25_000, 65_536)


@frozen(eq=False)
class Variant:
    """A policy with its settings."""

    family: str
    label: str
    system: str
    policy: Mapping[str, Any] = Factory(dict)
    engine: Mapping[str, Any] = Factory(dict)
    aging: int = 0


def variants() -> list[Variant]:
    """Return everything that is compared."""
    found = [Variant("published gate", f"Q {q:,}", "d2lpm", {"quantum": q}) for q in QUANTA]
    found += [
        Variant("committed credit", f"Q {q:,}, slack {s:,}", "d2lpm", {"quantum": q, "gate": "credit", "slack": s})
        for q in (1_000, QUANTUM)
        for s in SLACKS
    ]
    found += [
        Variant(
            "committed credit, predicted output",
            f"Q {q:,}, slack 25,000",
            "d2lpm",
            {"quantum": q, "gate": "credit", "slack": 25_000},
            {"predict": "average"},
        )
        for q in (1_000, QUANTUM)
    ]
    found += [Variant("overdraft", f"{o:,}", "d2lpm", {"overdraft": o}) for o in (1_024, 8_192)]
    found += [Variant("bounded wait", f"k = {k}", "d2lpm", {"bounded_wait": k}) for k in (4, 32)]
    found += [Variant("window", f"{n} refusals a pass", "d2lpm", engine={"lookahead": n}) for n in (1, 4, 64)]
    found += [
        Variant("no reservation", "published gate", "d2lpm", engine={"reservation": "none"}),
        Variant(
            "no reservation",
            "credit, slack 25,000",
            "d2lpm",
            {"gate": "credit", "slack": 25_000},
            {"reservation": "none"},
        ),
        Variant("VTC", "whole prompt", "vtc"),
        Variant("VTC", "extend tokens", "vtc", {"vtc_charge": "extend"}),
        Variant("LPM", "", "lpm"),
        *(Variant("k-LPM", f"k = {k}", "lpm", {"bounded_wait": k}) for k in (4, 32)),
        *(Variant("LPM with aging", f"{n} tokens a pass", "lpm", aging=n) for n in (1, 8)),
        Variant("FCFS", "", "fcfs"),
    ]
    return found


def _spec(scale: Scale, workload: str, variant: Variant) -> Spec:
    policy = dict(variant.policy)
    quantum = {"quantum": policy.pop("quantum")} if "quantum" in policy else {}
    return Spec(
        workload=workload,
        system=variant.system,
        divisor=scale.divisor if workload != "Phases" else 4 * scale.divisor,
        clients=4 if workload == "Phases" else 3,
        hardware=SMALL,
        policy=policy,
        engine=variant.engine,
        aging=variant.aging,
        gaps=True,
        seed=scale.seeds[0],
        **quantum,
    )


@frozen
class OnTrace:
    """One variant on a trace, in open loop."""

    trace: str
    """`sample`, or the path of a trace of Mooncake's."""
    variant: Variant

    @property
    def key(self) -> str:
        """Return the name of the result."""
        spec = _spec(Scale("", 1, (1,)), "S1@ToT", self.variant)
        return f"trace-{Path(self.trace).name.partition('.')[0]}-{MOONCAKE_REQUESTS}-{spec.key}"

    @property
    def title(self) -> str:
        """Return what progress calls it."""
        return f"{Path(self.trace).name.partition('.')[0]}: {self.variant.family} {self.variant.label}"

    def load(self) -> Trace:
        """Return the trace."""
        if self.trace == "sample":
            return load_sample()
        return compose_clients(load_trace(self.trace, limit=MOONCAKE_REQUESTS), clients=8, seed=0)

    def carry_out(self) -> Result:
        """Simulate."""
        trace = self.load()
        step_time = step_times(SMALL if self.trace == "sample" else ("llama-3.1-8b", "a100-graphs"))
        engine = engine_config(step_time, **self.variant.engine, oversize="reject")
        policy = {"dlpm": "dlpm", "d2lpm": "dlpm"}.get(self.variant.system, self.variant.system)
        settings = {"policy": policy, "quantum": QUANTUM, "reservation": engine.reservation, **self.variant.policy}
        figures = simulate(trace, PolicyConfig(**settings), engine, step_time).figures
        return {
            "service_rate": figures["total_token_throughput"],
            "max_gap": figures["max_gap"],
            "jain": figures["jain_index_client_view"],
            "hit_rate": figures["prefix_hit_rate"],
            "p50_s": figures["p50_e2el_ms"] / 1000,
            "p99_s": figures["p99_e2el_ms"] / 1000,
            "notes": list(trace.notes),
        }


def _traces(scale: Scale) -> list[str]:
    found = ["sample"]
    if scale.data is not None and (Path(scale.data) / MOONCAKE).exists():
        found.append(str(Path(scale.data) / MOONCAKE))
    return found


def _on_traces(scale: Scale) -> list[OnTrace]:
    """Return the variants on traces: aging is a policy of the simulator's programs alone."""
    return [OnTrace(trace, variant) for trace in _traces(scale) for variant in variants() if not variant.aging]


def _tasks(scale: Scale) -> Sequence[Task]:
    workloads = WORKLOADS[: scale.frontier]
    specs: list[Task] = [_spec(scale, workload, variant) for workload in workloads for variant in variants()]
    return [*specs, *_on_traces(scale)]


def _build(scale: Scale, by_key: Mapping[str, Result]) -> Section:
    columns: dict[str, dict[Variant, Result]] = {
        workload: {variant: by_key[_spec(scale, workload, variant).key] for variant in variants()}
        for workload in WORKLOADS[: scale.frontier]
    }
    for task in _on_traces(scale):
        name = Path(task.trace).name.partition(".")[0]
        columns.setdefault(name, {})[task.variant] = by_key[task.key]
    tables = tuple(_table(name, results) for name, results in columns.items())
    verdicts = tuple(_verdict(name, results) for name, results in columns.items())
    text = (
        "One A10G with Llama-3.2-3B (Mooncake: one A100 with Llama-3.1-8B). The gap is the largest difference "
        "in actual "
        "service between two clients over any interval in which both are backlogged. Where a line does not say, "
        "the "
        f"gate is the published one and Q is {QUANTUM:,}. A star marks what no other line beats in both "
        f"throughput and "
        "gap. The traces are open loop; the sample is generated, Mooncake's conversations have no clients, so its "
        f"sessions are composed onto eight (first {MOONCAKE_REQUESTS:,} requests). One seed: differences of a few "
        "percent are noise. Where outputs are long beside what has to be computed of prompts (trees of "
        "thoughts), it "
        "is outstanding output that makes the gap, and the credit gate limits just that; where prompts are long "
        "(both "
        "traces), a single admission makes it, and no gate can help."
    )
    return Section(
        "frontier",
        "Fairness against throughput, variant by variant",
        text,
        tables,
        verdicts,
        {"frontier": _picture(columns)},
    )


def _table(name: str, results: Mapping[Variant, Result]) -> Table:
    best = _front(list(results.values()))
    rows = tuple(
        (
            f"{variant.family}{', ' if variant.label else ''}{variant.label}{' *' if id(result) in best else ''}",
            number(result["service_rate"]),
            number(result["max_gap"]),
            number(result["jain"], 3),
            f"{result['hit_rate']:.1%}",
            number(result["p50_s"], 1),
            number(result["p99_s"], 1),
        )
        for variant, result in results.items()
    )
    return Table(name, ("", "tokens/s", "largest gap", "Jain", "cache hits", "P50, s", "P99, s"), rows)


def _front(results: Sequence[Result]) -> set[int]:
    """Return (by identity) the results that no other one beats in both."""
    return {
        id(one)
        for one in results
        if not any(
            other["service_rate"] >= one["service_rate"]
            and other["max_gap"] <= one["max_gap"]
            and (other["service_rate"], other["max_gap"]) != (one["service_rate"], one["max_gap"])
            for other in results
        )
    }


def _verdict(name: str, results: Mapping[Variant, Result]) -> Verdict:
    """Say whether committed credit gives the published gate's throughput at a smaller gap."""
    published = next(r for v, r in results.items() if v.family == "published gate" and v.label == _NAMED)
    credit = [
        (variant, result)
        for variant, result in results.items()
        if variant.family == "committed credit" and variant.label.startswith(_NAMED)
    ]
    level = [(v, r) for v, r in credit if r["service_rate"] >= 0.98 * published["service_rate"]]
    claim = f"{name}: committed credit gives the published gate's throughput at a fraction of its gap"
    if not level:
        best = max(credit, key=lambda pair: pair[1]["service_rate"])
        why = f"at most {best[1]['service_rate'] / published['service_rate']:.1%} of its throughput at Q = 5,656"
        return Verdict(claim, holds=False, why=why)
    variant, result = min(level, key=lambda pair: pair[1]["max_gap"])
    smaller = result["max_gap"] / max(published["max_gap"], 1)
    return Verdict(
        claim,
        smaller < 0.75,  # noqa: PLR2004  # a fraction
        f"at {variant.label} the gap is {result['max_gap']:,} against {published['max_gap']:,} ({smaller:.2f}×), "
        f"throughput {result['service_rate'] / published['service_rate']:.1%}",
    )


def _picture(columns: Mapping[str, Mapping[Variant, Result]]) -> bytes:
    families = list(dict.fromkeys(variant.family for results in columns.values() for variant in results))
    palette = (*CLIENT_COLOURS, "#000000", "#7F7F7F", "#B22222", "#6A5ACD", "#8B4513", "#2F4F4F", "#BDB76B")
    markers = "osD^v<>PX*hdp"
    figure, panels = canvas(1, len(columns), (4.6 * len(columns), 5.2))
    for axes, (name, results) in zip(panels[0], columns.items(), strict=True):
        for place, family in enumerate(families):
            points = [(r["max_gap"], r["service_rate"]) for v, r in results.items() if v.family == family]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    linestyle="",
                    marker=markers[place % len(markers)],
                    color=palette[place % len(palette)],
                    label=family,
                )
        axes.set_xscale("symlog", linthresh=1000)
        axes.set_title(f"{name}: tokens/s by largest gap", fontsize=9, loc="left")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return png(figure)


FIGURE = Figure("frontier", "variants of DLPM, and baselines: throughput against the largest gap", _tasks, _build)
