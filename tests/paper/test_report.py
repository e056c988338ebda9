"""`fairprefix paper`: from the names of figures to a report, and on again after an interruption."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import attrs
import pytest

from fairprefix.cli.main import main
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import Request
from fairprefix.paper import rules
from fairprefix.paper.aging import AgingLPM
from fairprefix.paper.figures import fig07, sweeps, turns, validation
from fairprefix.paper.figures.catalog import FIGURES
from fairprefix.paper.figures.frontier import _front
from fairprefix.paper.figures.seeds import Results
from fairprefix.paper.published import explanations, published
from fairprefix.paper.report import Origin, html
from fairprefix.paper.reproduce import reproduce
from fairprefix.paper.rules import SCALES
from fairprefix.paper.section import Result, Section, Table, Task, Verdict
from fairprefix.paper.spec import Spec, execute
from fairprefix.paper.store import Store, StoreError, carry_out

TINY = SCALES["tiny"]


@attrs.frozen
class Square:
    """A task that leaves a trace of each time it is carried out."""

    number: int
    log: str

    @property
    def key(self) -> str:
        """Return its number."""
        return f"square-{self.number}"

    @property
    def title(self) -> str:
        """Return its number."""
        return self.key

    def carry_out(self) -> Result:
        """Square."""
        with Path(self.log).open("a", encoding="utf-8") as file:
            file.write(f"{self.number}\n")
        if self.number < 0:
            raise ValueError(self.number)
        return {"square": self.number**2}


def squares(tmp_path: Path, numbers: Sequence[int]) -> list[Task]:
    """Return tasks that log to one file."""
    return [Square(number, str(tmp_path / "log")) for number in numbers]


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_are_kept_and_not_computed_again(tmp_path: Path, jobs: int) -> None:
    """The second run does only what is new; the same task asked for twice is one."""
    store = Store(tmp_path / "results")
    assert len(carry_out(squares(tmp_path, [1, 2, 2]), store, jobs)) == 2
    heard: list[int] = []
    found = carry_out(squares(tmp_path, [1, 2, 3]), store, jobs, lambda _task, done, _total: heard.append(done))
    assert found["square-3"] == {"square": 9}
    assert heard == [3]
    assert sorted((tmp_path / "log").read_text().split()) == ["1", "2", "3"]


def test_an_interrupted_run_keeps_what_is_done(tmp_path: Path) -> None:
    """A task that fails does not take the others' results with it."""
    store = Store(tmp_path / "results")
    with pytest.raises(ValueError, match=r"-1"):
        carry_out(squares(tmp_path, [5, 4, -1]), store, 1)
    assert store.get("square-5") == {"square": 25}
    carry_out(squares(tmp_path, [5, 4]), store, 1)
    assert (tmp_path / "log").read_text().split() == ["5", "4", "-1"]


def test_an_interrupt_ends_all_workers_at_once(tmp_path: Path) -> None:
    """What is done is kept, and nobody goes on working."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    store = Store(tmp_path / "results")
    with pytest.raises(KeyboardInterrupt):
        carry_out(squares(tmp_path, range(8)), store, 2, interrupt)
    assert any(store.get(f"square-{number}") for number in range(8))
    deadline = time.monotonic() + 30
    while active_children() and time.monotonic() < deadline:  # the pool collects them too
        time.sleep(0.05)
    assert not active_children()


def test_a_damaged_result_is_computed_again(tmp_path: Path) -> None:
    """Half a file is no result."""
    store = Store(tmp_path / "results")
    carry_out(squares(tmp_path, [3]), store, 1)
    (tmp_path / "results" / "square-3.json").write_text('{"square"')
    assert carry_out(squares(tmp_path, [3]), store, 1) == {"square-3": {"square": 9}}


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    """With the folder and the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot hold results"):
        Store(tmp_path / "file" / "results")


# The published figures, and the rules.


def test_the_readings_reproduce_the_papers_own_maxima() -> None:
    """2.87 over VTC, 2.22 over RR + LPM, and the three latency maxima, all within 0.3 %."""
    data = published()["figure_7"]["workloads"]
    tot, qa = data["S1@ToT"], data["S2@LongQA"]
    assert tot["d2lpm"]["service_rate"][3] / tot["vtc"]["service_rate"][3] == pytest.approx(2.87, rel=0.003)
    longer = data["S2@ToT"]
    assert longer["d2lpm"]["service_rate"][3] / longer["lpm"]["service_rate"][3] == pytest.approx(2.22, rel=0.003)
    for other, most in (("preble", 7.18), ("lpm", 9.55), ("vtc", 7.96)):
        assert qa[other]["p50_s"][1] / qa["d2lpm"]["p50_s"][1] == pytest.approx(most, rel=0.003)


def test_every_reading_is_there() -> None:
    """Six workloads, four systems, four metrics, four worker counts; Preble is not plotted for one worker."""
    data = published()["figure_7"]
    assert tuple(data["workloads"]) == fig07.WORKLOADS
    for systems in data["workloads"].values():
        assert tuple(systems) == fig07.NAMES
        for metrics in systems.values():
            assert set(metrics) == set(fig07.METRICS)
            assert all(len(values) == 4 for values in metrics.values())
        assert all(values[0] is None for values in systems["preble"].values())


def test_quanta_are_the_middle_of_what_the_paper_sweeps() -> None:
    """Neither is chosen by its outcome."""
    swept = [point["quantum"] for point in published()["figure_1"]["points"] if point["quantum"]]
    assert pytest.approx(min(swept) * max(swept), rel=0.001) == rules.QUANTUM**2
    swept = published()["figure_10"]["quanta"]
    assert pytest.approx(min(swept) * max(swept), rel=0.001) == rules.WORKER_QUANTUM**2


def test_the_load_is_shared_by_all_clients_and_grows_with_workers() -> None:
    """More clients ask at a lower rate each, more workers get proportionally more."""
    rate = rules.program_rate("S1@ToT", 1, 3, rules.BIG)
    assert rules.program_rate("S2@ToT", 1, 3, rules.BIG) == rate
    assert rules.program_rate("ToT", 4, 3, rules.BIG) == pytest.approx(4 * rate)
    assert rules.program_rate("ToT", 1, 6, rules.BIG) == pytest.approx(rate / 2, rel=0.05)


# Specifications.


def test_a_result_is_a_function_of_its_specification() -> None:
    """Apart from how long it took."""
    spec = Spec(workload="Judge", system="d2lpm", workers=2, divisor=20)
    first, second = execute(spec), execute(spec)
    del first["cpu_s"], second["cpu_s"]
    assert first == second
    assert json.loads(json.dumps(first)) == json.loads(json.dumps(second))


def test_every_field_goes_into_the_key() -> None:
    """Two different simulations never share a result."""
    spec = Spec(workload="Judge", system="d2lpm")
    changes: dict[str, Any] = {
        "workload": "ToT",
        "system": "vtc",
        "workers": 2,
        "clients": 4,
        "divisor": 2,
        "hardware": rules.SMALL,
        "quantum": 1,
        "worker_quantum": 1,
        "load": 2.0,
        "seed": 1,
        "to_the_end": True,
        "policy": {"gate": "credit"},
        "engine": {"lookahead": 1},
        "aging": 1,
        "gaps": True,
    }
    assert {field.name for field in attrs.fields(Spec)} == set(changes)
    others = [attrs.evolve(spec, **{name: value}) for name, value in changes.items()]
    assert len({one.key for one in (spec, *others)}) == len(others) + 1


@pytest.mark.parametrize(("tokens", "passes"), [(16, 4), (64, 1), (0, None)])
def test_a_cold_request_gains_on_hot_ones_at_each_pass(tokens: int, passes: int | None) -> None:
    """Against a match of 64 tokens it is first once its age makes up for that; without aging never."""
    index = PrefixIndex(16)
    index.cached((1, 2, 3, 4))
    policy = AgingLPM(PolicyConfig(policy="lpm"), index, tokens_per_pass=tokens)
    policy.begin_pass()
    policy.arrive(Request("cold", "a", 65, 5))
    for count in range(1, 20):
        policy.begin_pass()
        policy.arrive(Request(f"hot{count}", "b", 65, 5, (1, 2, 3, 4)))
        offered = policy.peek()
        assert offered is not None
        if offered.id == "cold":
            assert count == passes
            return
        policy.take(offered.id, extend=1, reserve=5)
    assert passes is None


# Figures.


def made_up(scale: rules.Scale, *, fair: bool) -> dict[str, Result]:
    """Return results for Figure 7 in which D2LPM is best, or worst."""
    good = {"service_rate": 300.0, "jain": 0.95, "jain_actual": 0.9, "hit_rate": 0.9, "p50_s": 1.0, "p99_s": 2.0}
    bad = {"service_rate": 100.0, "jain": 0.4, "jain_actual": 0.5, "hit_rate": 0.5, "p50_s": 9.0, "p99_s": 20.0}
    return {spec.key: {**(good if (spec.system == "d2lpm") is fair else bad)} for spec in fig07.specs(scale)}


@pytest.mark.parametrize("fair", [True, False])
def test_verdicts_follow_the_results(*, fair: bool) -> None:
    """The same code says "shape holds" of one outcome and "does not hold" of its opposite."""
    section = fig07.build(TINY, made_up(TINY, fair=fair))
    known = {verdict.holds for verdict in section.verdicts if "was not run" not in verdict.claim}
    assert known == {fair}
    unknown = [verdict for verdict in section.verdicts if "was not run" in verdict.claim]
    assert len(unknown) == (0 if fair else 1)  # the record over RR + LPM is of D = 8; a gain would show anyway
    assert all(verdict.holds is None for verdict in unknown)
    assert section.pictures["figure-7"].startswith(b"\x89PNG")


def test_one_lucky_point_is_no_gain() -> None:
    """A claim of a gain does not hold where the largest ratio is high and the mean is below one."""
    results = made_up(TINY, fair=False)
    for spec in fig07.specs(TINY):
        if (spec.workload, spec.workers) == ("S1@ToT", 1) and spec.system == "d2lpm":
            results[spec.key] = {
                "service_rate": 900.0,
                "jain": 1.0,
                "jain_actual": 1.0,
                "hit_rate": 1.0,
                "p50_s": 0.1,
                "p99_s": 0.1,
            }
    over_vtc = fig07.build(TINY, results).verdicts[0]
    assert "ours up to 3.00" in over_vtc.why
    assert over_vtc.holds is False


@pytest.mark.parametrize("good", [True, False])
def test_timelines_are_judged_by_response_and_makespan(*, good: bool) -> None:
    """Every system that the claim names has to be at least as slow."""
    figure = FIGURES["9"]
    results = {}
    for spec in figure.tasks(TINY):
        assert isinstance(spec, Spec)
        best = (spec.system == "d2lpm") is good
        client = {"p50_s": 1.0 if best else 2.0, "p99_s": 3.0}
        series = {"c0": [1.0], "c1": [1.0], "c2": [1.0]}
        results[spec.key] = {
            "clients": dict.fromkeys(series, client),
            "virtual_s": 10.0 if best else 20.0,
            "service_rate": 1.0,
            "jain_actual": 0.9,
            "hit_rate": 0.5,
            "timeline": {"bin_s": 1.0, "actual": series, "latency": series},
        }
    assert {verdict.holds for verdict in figure.build(TINY, results).verdicts} == {good}


def test_throughput_over_whole_runs_needs_no_common_time() -> None:
    """Fifty clients are never active together, and are served all the same."""
    served = {"timeline": {"seen": {"a": [10.0, 30.0], "b": [0.0, 20.0]}, "bin_s": 5.0}, "virtual_s": 10.0}
    spec = sweeps._specs_11(TINY, "vtc", 50)
    assert sweeps._whole_rate(Results(TINY, {spec[0].key: served}), spec) == 30.0


def test_the_front_is_what_nothing_beats() -> None:
    """Neither in throughput nor in gap."""
    results: list[Result] = [
        {"service_rate": rate, "max_gap": gap} for rate, gap in ((10, 5), (9, 4), (9, 6), (8, 1), (10, 5))
    ]
    assert _front(results) == {id(results[place]) for place in (0, 1, 3, 4)}


def test_the_overhead_is_what_was_computed_more_than_once() -> None:
    """Every prefix once, and every question, are no overhead."""
    own = 3 * 2701 + 32 * 10
    result = {"extend_tokens": own + 1000, "output_tokens": 100, "requests": 10}
    assert turns.overhead(result, 3) == pytest.approx(1000 / (own + 1200))


def test_without_a_recording_the_validation_says_so() -> None:
    """And claims nothing."""
    section = validation.FIGURE.build(TINY, {})
    assert not section.verdicts
    assert "--data DIR" in section.text


def test_figure_1_calls_a_frontier_what_is_one() -> None:
    """The verdicts of Figure 1 follow the results, too."""
    assert [verdict.holds for verdict in figure_1({"lpm": (0.4, 110.0), "vtc": (0.96, 80.0)}, 105, +1)] == [
        True
    ] * 4
    assert [verdict.holds for verdict in figure_1({"lpm": (0.97, 110.0), "vtc": (0.5, 200.0)}, 60, -1)] == [
        False
    ] * 4


def figure_1(others: dict[str, tuple[float, float]], rate: float, sign: int) -> tuple[Verdict, ...]:
    """Return the verdicts where DLPM gets less fair and faster with the quantum, or the reverse (`sign` -1)."""
    results = {}
    for point in published()["figure_1"]["points"]:
        quantum = sign * (point["quantum"] or 0)
        jain, tokens = others.get(point["system"], (0.95 - quantum / 1e6, rate + quantum / 1e4))
        for spec in sweeps._quantum_specs(TINY, point):
            results[spec.key] = {"jain": jain, "service_rate": tokens}
    return FIGURES["1"].build(TINY, results).verdicts


# The command.


def test_a_figure_alone_is_run_reported_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report in one file, pictures, the page for the documentation; the second time nothing is simulated."""
    arguments = ["paper", "--scale", "tiny", "--figure", "11", "--out", str(tmp_path), "--jobs", "1", "--quiet"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert "Figure 11" in first
    html = (tmp_path / "report.html").read_text()
    assert "data:image/png;base64," in html
    assert "<script" not in html
    assert 'src="http' not in html
    assert "8,339" in html
    page = (tmp_path / "reproduction.md").read_text()
    assert "seeds: 0" in page
    assert "commit" in page
    assert (tmp_path / "figure-11.png").read_bytes().startswith(b"\x89PNG")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}
    assert main(arguments) == 0
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()} == before


def test_names_from_results_cannot_break_the_page() -> None:
    """Whatever stands in a section is escaped."""
    table = Table("<b>", ("<i>",), (("<script>",),))
    page = html([Section("1", "<u>", "&", (table,))], Origin("c", "v", "s", (0,), 1.0))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--figure", "13"], "'13' is not valid"),
        (["--figure", "7,7"], "given twice"),
        (["--data", "nowhere"], "is not a folder"),
        (["--jobs", "0"], "an integer >= 1"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And exit code 2."""
    assert main(["paper", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_every_figure_has_tasks_that_are_distinct_and_named() -> None:
    """No task is asked for twice within a figure by accident, and all of them can be told apart."""
    for figure in FIGURES.values():
        tasks = figure.tasks(TINY)
        assert len({task.key for task in tasks}) == len(tasks), figure.name
        assert all(task.title for task in tasks)


def test_unknown_figures_are_refused_by_the_library_too(tmp_path: Path) -> None:
    """With the known ones."""
    with pytest.raises(ConfigError, match="figure"):
        reproduce(["0"], TINY, tmp_path)


def test_the_page_of_the_documentation_states_the_rules_in_force() -> None:
    """It was generated by these rules, and says on which commit and with which seeds."""
    page = (Path(__file__).parents[2] / "docs" / "reproduction.md").read_text(encoding="utf-8")
    assert (rules.__doc__ or "").strip() in page
    assert re.search(r"commit [0-9a-f]{12}\. Scale: \w+; seeds: [0-9, ]+\.", page)
    for name, figure in FIGURES.items():
        assert f"## {'Figure ' if name.isdigit() else ''}{name.capitalize()}: " in page, figure.title


def test_every_claim_that_does_not_hold_is_explained() -> None:
    """On the published page each of them has a reason, and no reason is left over."""
    page = (Path(__file__).parents[2] / "docs" / "reproduction.md").read_text(encoding="utf-8")
    refuted = [line for line in page.splitlines() if line.startswith("* ✗")]
    assert refuted
    assert [line for line in refuted if " Why: " not in line] == []
    assert [why for why in explanations().values() if why not in page] == []
