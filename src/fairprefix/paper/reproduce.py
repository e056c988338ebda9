"""From the names of figures to their sections, and to files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import attrs

from fairprefix.core.errors import one_of
from fairprefix.paper import report
from fairprefix.paper.figures.catalog import FIGURES
from fairprefix.paper.rules import SCALES, Scale
from fairprefix.paper.section import Result, Section, Task
from fairprefix.paper.spec import Spec
from fairprefix.paper.store import Done, Store, carry_out

HTML, MARKDOWN = "report.html", "reproduction.md"


def reproduce(
    names: Sequence[str],
    scale: Scale,
    out: Path,
    *,
    jobs: int = 1,
    begin: Callable[[int], Done] = lambda _count: lambda *_: None,
) -> tuple[list[Section], Mapping[str, Path]]:
    """Run what the figures need, and write report and pictures.

    Args:
        names: figures, as `fairprefix.paper.figures.catalog.FIGURES` knows them.
        scale: how much of everything.
        out: folder of the report; results are kept in `results/` there, and not computed again.
        jobs: how many processes work at once.
        begin: told how many results are needed, returns who hears of progress.

    Returns:
        The sections, and the files written, by what they are.

    Raises:
        StoreError: a file cannot be written.
    """
    figures = [FIGURES[one_of("figure", name, FIGURES)] for name in names]
    tasks: list[Task] = [task for figure in figures for task in figure.tasks(scale)]
    results = carry_out(tasks, Store(out / "results"), jobs, begin(len({task.key for task in tasks})))
    sections = [figure.build(scale, results) for figure in figures]
    origin = describe(scale, tasks, results)
    files = {
        "report": _write(out / HTML, report.html(sections, origin)),
        "page": _write(out / MARKDOWN, report.markdown(sections, origin)),
    }
    for name, data in report.pictures(sections).items():
        (out / name).write_bytes(data)
    return sections, files


def describe(scale: Scale, tasks: Sequence[Task], results: Mapping[str, Result]) -> report.Origin:
    """Return where the results come from."""
    simulated = {task.key for task in tasks if isinstance(task, Spec)}
    cpu_s = sum(results[key].get("cpu_s", 0.0) for key in simulated)
    return report.Origin(commit(), version("fairprefix"), scale.name, scale.seeds, cpu_s)


def commit() -> str:
    """Return the commit of the checkout that this runs from; "unknown (not a checkout)" elsewhere."""
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(  # noqa: S603  # a fixed command
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607  # from the path
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown (not a checkout)"
    return found.stdout.strip()


def scale_of(name: str, data: str | None) -> Scale:
    """Return a scale by name, with a folder of recorded data."""
    return attrs.evolve(SCALES[one_of("scale", name, SCALES)], data=data)


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
