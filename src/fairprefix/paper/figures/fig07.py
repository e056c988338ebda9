"""Figure 7: six workloads, four systems, one to eight workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fairprefix.paper.figures.canvas import COLOURS, OURS, PUBLISHED, canvas, legend, png, present
from fairprefix.paper.figures.seeds import Results, seeded
from fairprefix.paper.published import published
from fairprefix.paper.rules import Scale
from fairprefix.paper.section import Figure, Result, Section, Table, Task, Verdict, number, ratio, times
from fairprefix.paper.spec import SYSTEMS, Spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORKLOADS = ("S1@ToT", "S2@ToT", "S1@Judge", "S2@Judge", "S1@LongQA", "S2@LongQA")
NAMES = ("d2lpm", "vtc", "lpm", "preble")
METRICS = {
    "service_rate": "service rate, tokens/s",
    "jain": "Jain's index",
    "p50_s": "P50 latency of well-behaved clients, s",
    "p99_s": "P99 latency of well-behaved clients, s",
}
OURS_ALONE = {"jain_actual": "Jain's index of actual service", "hit_rate": "share of prompt tokens found cached"}
NEAR = 0.15
"""How far below VTC's index D2LPM's may be and still count as close; published: 0.18 at most."""


def specs(scale: Scale) -> list[Spec]:
    """Return what has to be simulated."""
    return [
        spec
        for workload in WORKLOADS
        for workers in scale.workers
        for system in NAMES
        if system != "preble" or workers > 1
        for spec in seeded(scale, workload=workload, system=system, workers=workers)
    ]


class Matrix:
    """Ours and the published figures by workload, system, metric and workers."""

    def __init__(self, scale: Scale, by_key: Mapping[str, Result]) -> None:
        self.scale = scale
        self._results = Results(scale, by_key)
        self._published = published()["figure_7"]

    def ours(self, workload: str, system: str, metric: str, workers: int) -> float | None:
        """Return our figure, the mean over the seeds."""
        if system == "preble" and workers == 1:
            return None
        spec = Spec(workload=workload, system=system, workers=workers, divisor=self.scale.divisor)
        return self._results.mean(spec, metric)

    def theirs(self, workload: str, system: str, metric: str, workers: int) -> float | None:
        """Return the published figure."""
        found = self._published["workloads"][workload][system][metric]
        value: float | None = found[self._published["workers"].index(workers)]
        return value

    def ratios(
        self, metric: str, above: str, below: str, *, ours: bool = True, everywhere: bool = False
    ) -> dict[tuple[str, int], float]:
        """Return above / below for every point that has both; `everywhere`: also for workers that were not run."""
        of = self.ours if ours else self.theirs
        points = {
            (workload, workers): ratio(of(workload, above, metric, workers), of(workload, below, metric, workers))
            for workload in WORKLOADS
            for workers in (self._published["workers"] if everywhere else self.scale.workers)
        }
        return {point: value for point, value in points.items() if value is not None}


def build(scale: Scale, by_key: Mapping[str, Result]) -> Section:
    """Return the section."""
    matrix = Matrix(scale, by_key)
    return Section(
        "7",
        "Throughput, fairness and latency of six workloads",
        "A cell is ours / published. Latency is that of programs of well-behaved clients (LongQA: time to first "
        "token). Absolute figures depend on rates and lengths of runs that the paper does not state: compare the "
        "order of systems and their ratios. DLPM evens out actual service, in which reused tokens count "
        "nothing, and "
        "VTC what clients see: where a client reuses much, Jain's index of what clients see favours VTC; that "
        "of actual "
        "service is in a table of its own. How much locality can gain is how far apart hit rates are: where all "
        "trees "
        "or articles at work fit the cache, VTC finds them there as well, and loses little; documents do not fit. "
        f"{published()['headlines']['doubt']}",
        (*(_table(matrix, metric) for metric in METRICS), *(_ours_alone(matrix, metric) for metric in OURS_ALONE)),
        (*_headlines(matrix), *(_verdict(matrix, workload) for workload in WORKLOADS)),
        {"figure-7": _picture(matrix)},
    )


def _table(matrix: Matrix, metric: str) -> Table:
    digits = {"jain": 2, "service_rate": 0}.get(metric, 0)
    rows = []
    for workload in WORKLOADS:
        for workers in matrix.scale.workers:
            cells = [
                f"{number(matrix.ours(workload, system, metric, workers), digits)} / "
                f"{number(matrix.theirs(workload, system, metric, workers), digits)}"
                for system in NAMES
            ]
            rows.append((f"{workload}, D = {workers}", *cells))
    headers = ("ours / published", *(SYSTEMS[system].label for system in NAMES))
    return Table(METRICS[metric], headers, tuple(rows))


def _ours_alone(matrix: Matrix, metric: str) -> Table:
    """Return what the paper does not show."""
    rows = tuple(
        (
            f"{workload}, D = {workers}",
            *(number(matrix.ours(workload, system, metric, workers), 2) for system in NAMES),
        )
        for workload in WORKLOADS
        for workers in matrix.scale.workers
    )
    headers = ("ours only", *(SYSTEMS[system].label for system in NAMES))
    return Table(OURS_ALONE[metric], headers, rows)


def _headlines(matrix: Matrix) -> list[Verdict]:
    return [
        _most(matrix, "service_rate", "d2lpm", "vtc", "throughput over VTC up to 2.87×"),
        _most(matrix, "service_rate", "d2lpm", "lpm", "throughput over RR + LPM up to 2.22×"),
        *(
            _most(
                matrix, "p50_s", other, "d2lpm", f"well-behaved clients wait up to {most}× as long under {label}"
            )
            for other, most, label in (("preble", 7.18, "Preble"), ("lpm", 9.55, "RR + LPM"), ("vtc", 7.96, "VTC"))
        ),
    ]


def _most(matrix: Matrix, metric: str, above: str, below: str, claim: str) -> Verdict:
    """Compare the largest and the mean ratio with the published ones at the same workers."""
    ours, theirs = matrix.ratios(metric, above, below), matrix.ratios(metric, above, below, ours=False)
    if not ours or not theirs:
        return Verdict(claim, None, "needs more than one worker")
    best, published_best = max(ours, key=lambda at: ours[at]), max(theirs, key=lambda at: theirs[at])
    mean = sum(ours.values()) / len(ours)
    published_mean = sum(theirs.values()) / len(theirs)
    holds: bool | None = mean > 1 and ours[best] > (1 + theirs[published_best]) / 2
    headline = max(matrix.ratios(metric, above, below, ours=False, everywhere=True).items(), key=lambda at: at[1])
    if not holds and headline[0][1] not in matrix.scale.workers:
        holds, claim = None, f"{claim} (published at D = {headline[0][1]}, which was not run)"
    return Verdict(
        claim,
        holds,
        f"ours up to {times(ours[best])} ({best[0]}, D = {best[1]}), mean {times(mean)}; published at these D: "
        f"up to "
        f"{times(theirs[published_best])} ({published_best[0]}, D = {published_best[1]}), "
        f"mean {times(published_mean)}",
    )


def _verdict(matrix: Matrix, workload: str) -> Verdict:
    """Judge one workload by three orders, over all numbers of workers."""

    def share(metric: str, above: str, below: str, least: float) -> tuple[int, int]:
        points = [v for (name, _), v in matrix.ratios(metric, above, below).items() if name == workload]
        return sum(value >= least for value in points), len(points)

    near = _close_to_vtc(matrix, workload)
    criteria = (
        (share("service_rate", "d2lpm", "vtc", 1.0), "D²LPM serves at least as much as VTC"),
        (share("jain", "d2lpm", "lpm", 1.0), "is at least as fair as RR + LPM"),
        (near, f"has an index at most {NEAR} below VTC's"),
        (share("p50_s", "lpm", "d2lpm", 1.0), "a lower P50 than RR + LPM"),
    )
    met = sum(found == points for (found, points), _ in criteria)
    holds = {4: True, 3: None}.get(met, False)
    why = ", ".join(f"{text} in {found} of {points}" for (found, points), text in criteria)
    return Verdict(f"{workload}: D²LPM is as fast as LPM and as fair as VTC", holds, why)


def _close_to_vtc(matrix: Matrix, workload: str) -> tuple[int, int]:
    """Return at how many points D2LPM's index is close to VTC's, and how many there are."""
    pairs = [
        (matrix.ours(workload, "d2lpm", "jain", workers), matrix.ours(workload, "vtc", "jain", workers))
        for workers in matrix.scale.workers
    ]
    known = [(ours, vtc) for ours, vtc in pairs if ours is not None and vtc is not None]
    return sum(ours >= vtc - NEAR for ours, vtc in known), len(known)


def _picture(matrix: Matrix) -> bytes:
    figure, panels = canvas(len(WORKLOADS), len(METRICS), (15, 17))
    for row, workload in zip(panels, WORKLOADS, strict=True):
        for axes, metric in zip(row, METRICS, strict=True):
            _draw(axes, matrix, workload, metric)
    legend(figure, {COLOURS[system]: SYSTEMS[system].label for system in NAMES})
    return png(figure)


def _draw(axes: Axes, matrix: Matrix, workload: str, metric: str) -> None:
    workers: Sequence[int] = matrix.scale.workers
    for system in NAMES:
        ours = [matrix.ours(workload, system, metric, count) for count in workers]
        theirs = [matrix.theirs(workload, system, metric, count) for count in workers]
        axes.plot(workers, present(ours), color=COLOURS[system], **OURS)
        axes.plot(workers, present(theirs), color=COLOURS[system], **PUBLISHED)
    axes.set_xscale("log", base=2)
    axes.set_xticks(workers, [str(count) for count in workers])
    if metric == "jain":
        axes.set_ylim(0, 1.05)
    else:
        axes.set_yscale("log")
    axes.set_title(f"{workload}: {METRICS[metric]}", fontsize=9, loc="left", color="#333333")


def tasks(scale: Scale) -> Sequence[Task]:
    """Return the simulations."""
    return specs(scale)


FIGURE = Figure("7", "throughput, fairness and latency: 6 workloads x 4 systems x D", tasks, build)
