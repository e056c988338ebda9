"""Figures 8, 9 and 12: what each client gets, and waits for, over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from fairprefix.paper.figures.canvas import CLIENT_COLOURS, canvas, legend, png, present
from fairprefix.paper.figures.seeds import Results, seeded
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
    claims: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(text, response or makespan, the systems to which D2LPM has to be at least equal)."""
    evens: bool = False
    """Whether VTC is claimed to even actual service more."""

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
                number(result["hit_rate"], 2),
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
            "cache hits",
            *(f"{client}: P50 / P99, s" for client in clients),
        )
        return Section(
            self.name,
            self.title,
            f"Published ({data['what']}): {data['text']}. Here D = {min(self.workers, scale.four)}, "
            f"seed {scale.seeds[0]}.",
            (Table("by system", headers, tuple(rows)),),
            tuple(self._verdicts(shown)),
            {f"figure-{self.name}": _picture(shown, clients)},
        )

    def _verdicts(self, shown: Mapping[str, Result]) -> list[Verdict]:
        def slowest(system: str) -> float:
            return max(float(shown[system]["clients"][client]["p50_s"]) for client in self.steady)

        slower = {system: slowest(system) / max(slowest("d2lpm"), 1e-9) for system in NAMES[1:]}
        longer = {system: shown[system]["virtual_s"] / shown["d2lpm"]["virtual_s"] for system in NAMES[1:]}
        evened = {system: shown[system]["jain_actual"] or 0.0 for system in NAMES}
        who = ", ".join(self.steady)
        found = {
            "response": (slower, f"slowest P50 of {who}, in those of D²LPM: {_list(slower)}"),
            "makespan": (longer, f"makespan, in those of D²LPM: {_list(longer)}"),
        }
        verdicts = [
            Verdict(text, all(found[what][0][system] >= 1 for system in systems), found[what][1])
            for text, what, systems in self.claims
        ]
        if self.evens:
            indices = ", ".join(f"{SYSTEMS[system].label} {value:.2f}" for system, value in evened.items())
            best = evened["vtc"] >= max(evened.values())
            verdicts.append(Verdict("VTC evens actual service more than the others", best, f"Jain: {indices}"))
        return verdicts


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
        (("RR + LPM starves the clients that do not flood, D²LPM protects them", "response", ("lpm",)),),
    ),
    _Timeline(
        "9",
        "Trees of thoughts: a client with ten times longer questions",
        "S2@ToT",
        4,
        3,
        ("c1", "c2"),
        (
            ("the makespan of VTC is up to 2× as long as that of D²LPM", "makespan", ("vtc",)),
            ("the makespan of Preble is up to 2× as long as that of D²LPM", "makespan", ("preble",)),
        ),
    ),
    _Timeline(
        "12",
        "A mix: a judge, two who chat, one with trees of thoughts",
        "Mix",
        1,
        4,
        ("c1", "c2"),
        (
            ("DLPM has the best response times", "response", NAMES[1:]),
            ("DLPM has the best makespan", "makespan", NAMES[1:]),
        ),
        evens=True,
    ),
)

FIGURES = tuple(Figure(one.name, one.title.lower(), one.tasks, one.build) for one in _ALL)
