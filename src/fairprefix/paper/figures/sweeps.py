"""Figures 1, 10 and 11: sweeps over the quantum, the dispatcher's quantum, and the number of clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairprefix.paper.figures.canvas import COLOURS, OURS, PUBLISHED, canvas, legend, png, present
from fairprefix.paper.figures.seeds import Results, seeded
from fairprefix.paper.published import published
from fairprefix.paper.rules import SMALL, UNNAMED_WORKLOAD, Scale
from fairprefix.paper.section import Figure, Result, Section, Table, Task, Verdict, number, ratio, times
from fairprefix.paper.spec import SYSTEMS, Spec, label_of

CLOSE = 0.07
"""The paper: DLPM is within 7 % of LPM's throughput at Q = 1,000."""
NEAR = 0.05
"""Of two indices of Jain, how far apart they may be and still count as close."""


# Figure 1.


def _quantum_specs(scale: Scale, point: Mapping[str, Any]) -> list[Spec]:
    settings = {} if point["quantum"] is None else {"quantum": point["quantum"]}
    return seeded(scale, workload=UNNAMED_WORKLOAD, system=point["system"], hardware=SMALL, **settings)


def _tasks_1(scale: Scale) -> Sequence[Task]:
    return [spec for point in published()["figure_1"]["points"] for spec in _quantum_specs(scale, point)]


def _build_1(scale: Scale, by_key: Mapping[str, Result]) -> Section:
    points, results = published()["figure_1"]["points"], Results(scale, by_key)
    ours = []
    for point in points:
        spec = _quantum_specs(scale, point)[0]
        ours.append((results.mean(spec, "jain") or 0.0, results.mean(spec, "service_rate") or 0.0))
    rows = [
        (_name_1(point), number(jain, 3), number(point["jain"], 3), number(rate), number(point["service_rate"]))
        for point, (jain, rate) in zip(points, ours, strict=True)
    ]
    return Section(
        "1",
        "Fairness against throughput over the quantum",
        f"Llama-3.2-3B on one A10G, {UNNAMED_WORKLOAD} (the paper names no workload here).",
        (Table("by quantum", ("", "Jain", "published", "tokens/s", "published"), tuple(rows)),),
        tuple(_verdicts_1(ours)),
        {"figure-1": _picture_1(points, ours)},
    )


def _name_1(point: Mapping[str, Any]) -> str:
    quantum = point["quantum"]
    return label_of(point["system"], 1) + (f", Q = {quantum:,}" if quantum else "")


def _verdicts_1(ours: Sequence[tuple[float, float]]) -> list[Verdict]:
    lpm, dlpm, vtc = ours[0], ours[1:5], ours[5]
    close = (dlpm[0][1] or 0) / lpm[1] if lpm[1] else 0
    return [
        Verdict(
            "DLPM at Q = 1,000 is within 7 % of LPM's throughput",
            close >= 1 - CLOSE,
            f"ours {close:.1%} of LPM's, published 93.2 %",
        ),
        Verdict(
            "Jain's index of DLPM is close to VTC's (0.95 against 0.96), and LPM's is far below (0.42)",
            dlpm[0][0] >= vtc[0] - NEAR and lpm[0] < dlpm[0][0] - NEAR,
            f"ours {dlpm[0][0]:.2f}, {vtc[0]:.2f} and {lpm[0]:.2f}",
        ),
        Verdict(
            "a larger quantum is less fair and faster",
            dlpm[0][0] >= dlpm[-1][0] and dlpm[0][1] <= dlpm[-1][1],
            f"from Q = 1,000 to 32,000 Jain goes from {dlpm[0][0]:.3f} to {dlpm[-1][0]:.3f} (published 0.952 to "
            f"0.821) "
            f"and tokens/s from {dlpm[0][1]:,.0f} to {dlpm[-1][1]:,.0f} (10,408 to 11,305)",
        ),
        Verdict(
            "VTC is slower than DLPM by a quarter",
            dlpm[0][1] / vtc[1] > (1 + 1.33) / 2 if vtc[1] else False,
            f"ours {times(ratio(dlpm[0][1], vtc[1]))}, published 1.33×",
        ),
    ]


def _picture_1(points: Sequence[Mapping[str, Any]], ours: Sequence[tuple[float, float]]) -> bytes:
    figure, ((axes,),) = canvas(1, 1, (8, 5))
    for source, style in ((ours, OURS), ([(p["jain"], p["service_rate"]) for p in points], PUBLISHED)):
        dlpm = [value for point, value in zip(points, source, strict=True) if point["system"] == "d2lpm"]
        axes.plot(*zip(*dlpm, strict=True), color=COLOURS["d2lpm"], **style)
        for point, value in zip(points, source, strict=True):
            if point["system"] != "d2lpm":
                axes.plot(*value, color=COLOURS[point["system"]], **style)
    axes.set_xlabel("Jain's index", fontsize=9)
    axes.set_ylabel("service rate, tokens/s", fontsize=9)
    axes.set_ylim(bottom=0)
    legend(figure, {COLOURS[system]: label_of(system, 1) for system in ("d2lpm", "vtc", "lpm")})
    return png(figure)


# Figure 10.

_PANELS = {"misbehaving": UNNAMED_WORKLOAD, "well_behaved": "ToT"}
_OTHERS = ("lpm", "vtc", "preble")


def _specs_10(scale: Scale, panel: str, system: str, worker_quantum: int | None) -> list[Spec]:
    settings = {} if worker_quantum is None else {"worker_quantum": worker_quantum}
    return seeded(scale, workload=_PANELS[panel], system=system, workers=scale.four, hardware=SMALL, **settings)


def _tasks_10(scale: Scale) -> Sequence[Task]:
    wanted: list[Spec] = []
    for panel in _PANELS:
        for quantum in published()["figure_10"]["quanta"]:
            wanted += _specs_10(scale, panel, "d2lpm", quantum)
        for system in _OTHERS:
            wanted += _specs_10(scale, panel, system, None)
    return wanted


def _build_10(scale: Scale, by_key: Mapping[str, Result]) -> Section:
    data, results = published()["figure_10"], Results(scale, by_key)
    tables, verdicts = [], []
    figure, panels = canvas(1, 2, (12, 4.5))
    for axes, panel in zip(panels[0], _PANELS, strict=True):
        rates = [results.mean(_specs_10(scale, panel, "d2lpm", q)[0], "service_rate") for q in data["quanta"]]
        jains = [results.mean(_specs_10(scale, panel, "d2lpm", q)[0], "jain") for q in data["quanta"]]
        others = {s: results.mean(_specs_10(scale, panel, s, None)[0], "service_rate") for s in _OTHERS}
        fairness = {s: results.mean(_specs_10(scale, panel, s, None)[0], "jain") for s in _OTHERS}
        theirs = data[panel]
        hits = [results.mean(_specs_10(scale, panel, "d2lpm", q)[0], "hit_rate") for q in data["quanta"]]
        rows = [
            (f"D²LPM, Q^w = {q:,}", number(rate), number(known), number(jain, 3), number(shown, 3), number(hit, 2))
            for q, rate, known, jain, shown, hit in zip(
                *(data["quanta"], rates, theirs["service_rate"], jains, theirs.get("jain", [1.0] * 5), hits),
                strict=True,
            )
        ]
        rows += [
            (
                *(SYSTEMS[s].label, number(others[s]), number(theirs["others"][s]), number(fairness[s], 3), "–"),
                number(results.mean(_specs_10(scale, panel, s, None)[0], "hit_rate"), 2),
            )
            for s in _OTHERS
        ]
        name = panel.replace("_", "-")
        tables.append(Table(name, ("", "tokens/s", "published", "Jain", "published", "cache hits"), tuple(rows)))
        verdicts += _verdicts_10(name, rates, theirs["service_rate"], others)
        axes.plot(data["quanta"], present(rates), color=COLOURS["d2lpm"], **OURS)
        axes.plot(data["quanta"], theirs["service_rate"], color=COLOURS["d2lpm"], **PUBLISHED)
        for system in _OTHERS:
            axes.axhline(others[system] or 0, color=COLOURS[system])
            axes.axhline(theirs["others"][system], color=COLOURS[system], linestyle=":", alpha=0.75)
        axes.set_title(f"{name}: tokens/s by Q^w", fontsize=9, loc="left")
        axes.set_ylim(bottom=0)
    legend(figure, {COLOURS[s]: SYSTEMS[s].label for s in ("d2lpm", *_OTHERS)})
    text = (
        f"Llama-3.2-3B on {scale.four} A10G (published: 4); trees of thoughts, with one misbehaving client (S1) "
        f"and with "
        "none."
    )
    return Section(
        "10", "The dispatcher's quantum", text, tuple(tables), tuple(verdicts), {"figure-10": png(figure)}
    )


def _verdicts_10(
    name: str,
    rates: Sequence[float | None],
    theirs: Sequence[float],
    others: Mapping[str, float | None],
) -> list[Verdict]:
    first, last = rates[0] or 0, rates[-1] or 0
    best = max(value or 0 for value in others.values())
    return [
        Verdict(
            f"{name}: a larger Q^w is faster",
            last > first,
            f"from 2,000 to 40,000 ours {times(ratio(last, first))}, published {times(theirs[-1] / theirs[0])}",
        ),
        Verdict(
            f"{name}: with a large Q^w D²LPM is faster than the other systems",
            last >= best,
            f"ours {last:,.0f} against at most {best:,.0f} tokens/s",
        ),
    ]


# Figure 11.

_SYSTEMS_11 = ("lpm", "d2lpm", "vtc")


def _specs_11(scale: Scale, system: str, clients: int) -> list[Spec]:
    return seeded(scale, workload="ToT", system=system, clients=clients, hardware=SMALL)


def _tasks_11(scale: Scale) -> Sequence[Task]:
    counts = published()["figure_11"]["clients"]
    return [spec for system in _SYSTEMS_11 for count in counts for spec in _specs_11(scale, system, count)]


def _whole_rate(results: Results, specs: Sequence[Spec]) -> float:
    """Return the mean service per second as clients see it, over whole runs."""
    found = [results.of(spec) for spec in specs]
    served = [sum(map(sum, run["timeline"]["seen"].values())) * run["timeline"]["bin_s"] for run in found]
    rates = [float(total / run["virtual_s"]) for total, run in zip(served, found, strict=True)]
    return sum(rates) / len(rates)


def _build_11(scale: Scale, by_key: Mapping[str, Result]) -> Section:
    data, results = published()["figure_11"], Results(scale, by_key)
    counts, rows = data["clients"], []
    rates: dict[str, list[float | None]] = {
        s: [_whole_rate(results, _specs_11(scale, s, n)) for n in counts] for s in _SYSTEMS_11
    }
    figure, ((axes,),) = canvas(1, 1, (8, 4.5))
    for system, ours in rates.items():
        theirs = data["service_rate"][system]
        cells = [f"{number(a)} / {number(b)}" for a, b in zip(ours, theirs, strict=True)]
        rows.append((label_of(system, 1), *cells))
        axes.plot(counts, present(ours), color=COLOURS[system], **OURS)
        axes.plot(counts, theirs, color=COLOURS[system], **PUBLISHED)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("clients", fontsize=9)
    legend(figure, {COLOURS[s]: label_of(s, 1) for s in _SYSTEMS_11})
    kept = [ratio(a, b) or 0 for a, b in zip(rates["d2lpm"], rates["lpm"], strict=True)]
    gained = [ratio(a, b) or 0 for a, b in zip(rates["d2lpm"], rates["vtc"], strict=True)]
    verdicts = (
        Verdict(
            "DLPM keeps 96 % of LPM's throughput at any number of clients",
            min(kept) >= 1 - CLOSE,
            "ours " + ", ".join(f"{value:.1%}" for value in kept) + " at 5, 10 and 50 clients",
        ),
        Verdict(
            "and is faster than VTC (1.68×, 1.52×, 1.44×)",
            min(gained) > 1,
            "ours " + ", ".join(times(value) for value in gained),
        ),
    )
    headers = ("", *(f"{n} clients" for n in counts))
    hits = tuple(
        (label_of(s, 1), *(number(results.mean(_specs_11(scale, s, n)[0], "hit_rate"), 2) for n in counts))
        for s in _SYSTEMS_11
    )
    tables = (Table("service rate, ours / published", headers, tuple(rows)), Table("cache hits", headers, hits))
    text = (
        "Llama-3.2-3B on one A10G; trees of thoughts, everybody well-behaved, the same total rate. Throughput "
        "is over "
        "the whole run here, and not over the time in which all clients are active: fifty clients with two "
        "trees each "
        "never are."
    )
    return Section("11", "The number of clients", text, tables, verdicts, {"figure-11": png(figure)})


FIGURES = (
    Figure("1", "fairness against throughput over the quantum", _tasks_1, _build_1),
    Figure("10", "the dispatcher's quantum", _tasks_10, _build_10),
    Figure("11", "5, 10 and 50 clients", _tasks_11, _build_11),
)
