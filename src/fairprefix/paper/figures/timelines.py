"""Figures 8, 9 and 12: what each client gets, and waits for, over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from fairprefix.paper.figures.common import CLIENT_COLOURS, Results, canvas, legend, png, present, seeded
from fairprefix.paper.published import published
from fairprefix.paper.rules import Scale
from fairprefix.paper.section import Figure, Result, Section, Table, Task, Verdict, number
from fairprefix.paper.spec import SYSTEMS, Spec

NAMES = ("d2lpm", "vtc", "lpm", "preble")


@frozen
class _Timeline:
    """One of these figures."""

    name: str
    title: str
    workload: str
    workers: int
    clients: int
    steady: tuple[str, ...]
    """Clients whose latency the claim is about."""
    claim: str
    by_makespan: bool
    """Whether the verdict is about the makespan too."""

    def specs(self, scale: Scale, system: str) -> list[Spec]:
        """Return a simulation per seed."""
        return seeded(
            scale,
            workload=self.workload,
            system=system,
            workers=min(self.workers, scale.four),
            clients=self.clients,
            to_the_end=True,
        )

    def tasks(self, scale: Scale) -> Sequence[Task]:
        """Return all simulations."""
        return [spec for system in NAMES for spec in self.specs(scale, system)]

    def build(self, scale: Scale, by_key: Mapping[str, Result]) -> Section:
        """Return the section."""
        results = Results(scale, by_key)
        shown = {system: results.first(self.specs(scale, system)[0]) for system in NAMES}
        data = published()[f"figure_{self.name}"]
        clients = sorted(shown["d2lpm"]["clients"])
        rows = [
            (
                SYSTEMS[system].label,
                number(result["virtual_s"]),
                number(result["service_rate"]),
                number(result["jain_actual"], 2),
                *(
                    f"{number(result['clients'][client]['p50_s'], 1)} / "
                    f"{number(result['clients'][client]['p99_s'], 1)}"
                    for client in clients
                ),
            )
            for system, result in shown.items()
        ]
        headers = (
            "",
            "makespan, s",
            "tokens/s",
            "Jain, actual",
            *(f"{client}: P50 / P99, s" for client in clients),
        )
        return Section(
            self.name,
            self.title,
            f"Published ({data['what']}): {data['text']}. Here D = {min(self.workers, scale.four)}, "
            f"seed {scale.seeds[0]}.",
            (Table("by system", headers, tuple(rows)),),
            (self._verdict(shown),),
            {f"figure-{self.name}": _picture(shown, clients)},
        )

    def _verdict(self, shown: Mapping[str, Result]) -> Verdict:
        def steady(system: str) -> float:
            return max(float(shown[system]["clients"][client]["p50_s"]) for client in self.steady)

        def makespan(system: str) -> float:
            return float(shown[system]["virtual_s"])

        slower = {system: steady(system) / max(steady("d2lpm"), 1e-9) for system in NAMES[1:]}
        longer = {system: makespan(system) / makespan("d2lpm") for system in NAMES[1:]}
        holds = slower["lpm"] > 1 and (not self.by_makespan or longer["vtc"] > 1)
        who = ", ".join(self.steady)
        why = f"slowest P50 of {who}, in those of D²LPM: " + _list(slower)
        if self.by_makespan:
            why += "; makespan: " + _list(longer)
        return Verdict(self.claim, holds, why)


def _list(ratios: Mapping[str, float]) -> str:
    return ", ".join(f"{SYSTEMS[system].label} {value:.2f}×" for system, value in ratios.items())


def _picture(shown: Mapping[str, Any], clients: Sequence[str]) -> bytes:
    figure, panels = canvas(2, len(shown), (4 * len(shown), 6.5))
    for column, (system, result) in enumerate(shown.items()):
        timeline = result["timeline"]
        for client, colour in zip(clients, CLIENT_COLOURS, strict=False):
            times = [timeline["bin_s"] * (place + 0.5) for place in range(len(timeline["actual"][client]))]
            panels[0][column].plot(times, timeline["actual"][client], color=colour, linewidth=1.5)
            panels[1][column].plot(
                times, present(timeline["latency"][client]), color=colour, marker=".", linewidth=1
            )
        panels[0][column].set_title(f"{SYSTEMS[system].label}: actual service, units/s", fontsize=9, loc="left")
        panels[1][column].set_title("latency by start of the program, s", fontsize=9, loc="left")
    for row in panels:
        top = max(axes.get_ylim()[1] for axes in row)
        for axes in row:
            axes.set_ylim(0, top)
    legend(figure, dict(zip(CLIENT_COLOURS, clients, strict=False)), published=False)
    return png(figure)


_ALL = (
    _Timeline(
        "8",
        "Conversations: two clients flood, one of them calms down",
        "Phases",
        2,
        4,
        ("c0", "c1"),
        "RR + LPM starves the clients that do not flood, D²LPM protects them",
        by_makespan=False,
    ),
    _Timeline(
        "9",
        "Trees of thoughts: a client with ten times longer questions",
        "S2@ToT",
        4,
        3,
        ("c1", "c2"),
        "D²LPM has the shortest makespan, up to 2× shorter than VTC's and Preble's",
        by_makespan=True,
    ),
    _Timeline(
        "12",
        "A mix: a judge, two who chat, one with trees of thoughts",
        "Mix",
        1,
        4,
        ("c1", "c2"),
        "DLPM has the best response times and makespan, VTC evens actual service more",
        by_makespan=True,
    ),
)

FIGURES = tuple(Figure(one.name, one.title.lower(), one.tasks, one.build) for one in _ALL)
