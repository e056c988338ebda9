"""Claims about `fairprefix simulate`: its table, its JSON, its notes, and what each option does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairprefix.core.config import POLICIES

FEW = ("--limit", "40", "--quiet")
"""Enough requests to see something, few enough to be quick."""

TraceFile = Callable[..., Path]


def requests(count: int, clients: int = 0, **fields: object) -> list[str]:
    """Return lines of a trace; without clients unless told how many."""
    return [
        json.dumps(
            {"arrival_s": number / 10, "input_tokens": 100, "output_tokens": 5}
            | ({"client": f"client-{number % clients}"} if clients else {})
            | fields
        )
        for number in range(count)
    ]


@pytest.fixture
def simulated(call: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Return a function that runs `simulate`, and gives its JSON."""

    def run(*arguments: object) -> Any:  # noqa: ANN401  # JSON
        path = tmp_path / "runs.json"
        outcome = call("simulate", *map(str, arguments), "--quiet", "--json", str(path))
        assert (outcome.code, outcome.err) == (0, "")
        return json.loads(path.read_text(encoding="utf-8"))

    return run


class TestTable:
    """The text shows the policies side by side, each client, and the point."""

    def test_every_policy_has_a_column(self, call: Callable[..., Any]) -> None:
        """The header of the table names the four policies in the order of the list."""
        outcome = call("simulate", *FEW)
        assert list(POLICIES) in [line.split() for line in outcome.out.splitlines()]
        assert (outcome.code, outcome.err) == (0, "")

    @pytest.mark.parametrize(
        "label",
        [
            "completed requests",
            "requests per s",
            "output tokens per s",
            "all tokens per s",
            "service units per s",
            "TTFT mean, ms",
            "TPOT p50, ms",
            "E2E p99, ms",
            "prefix hit rate",
            "Jain's index",
            "largest gap",
            "bound",
            "bound_ratio",
        ],
    )
    def test_every_figure_has_a_row(self, call: Callable[..., Any], label: str) -> None:
        """Each row starts with its label and has a figure per policy."""
        row = next(
            line
            for line in call("simulate", *FEW).out.splitlines()
            if line.startswith((f"{label} ", f"{label}  "))
        )
        assert len(row.removeprefix(label).split()) == len(POLICIES)

    def test_a_bound_for_comparison_is_marked(self, call: Callable[..., Any]) -> None:
        """FCFS and LPM promise nothing, and the table does not say that they do."""
        lines = call("simulate", *FEW).out.splitlines()
        ratios = next(line for line in lines if line.startswith("bound_ratio")).split()[1:]
        assert [ratio.endswith("*") for ratio in ratios] == [True, True, False, False]
        assert "* held against DLPM's bound for comparison: fcfs and lpm promise none" in lines

    def test_the_last_line_makes_the_point(self, call: Callable[..., Any]) -> None:
        """It gives DLPM's hit rate and gap beside the others'."""
        last = call("simulate", *FEW).out.splitlines()[-1]
        assert last.startswith("dlpm: ")
        assert "of prompt tokens from cache (fcfs 0." in last
        assert "of its bound (fcfs " in last

    @pytest.mark.parametrize(
        ("policy", "ending"), [("fcfs", "of DLPM's bound"), ("vtc", "of its bound"), ("vtc,dlpm", "of its bound")]
    )
    def test_only_the_same_bound_is_compared(self, call: Callable[..., Any], policy: str, ending: str) -> None:
        """A ratio against another bound is not set beside it."""
        assert call("simulate", *FEW, "--policy", policy).out.rstrip().endswith(ending)

    def test_a_single_client_has_no_gap(self, call: Callable[..., Any], trace_file: TraceFile) -> None:
        """A gap is between two: there is none, and no bound."""
        outcome = call("simulate", trace_file(*requests(5, clients=1)), "--quiet")
        assert outcome.out.splitlines()[-1].endswith("and no gap, since there is one client only")
        assert outcome.code == 0

    def test_of_many_clients_the_largest_are_shown(self, call: Callable[..., Any], trace_file: TraceFile) -> None:
        """Twelve are shown, and the others are counted."""
        out = call("simulate", trace_file(*requests(30, clients=15)), "--policy", "dlpm", "--quiet").out
        assert sum(line.startswith("client-") for line in out.splitlines()) == 12
        assert "and 3 more with less service (--json has them all)" in out

    def test_names_cannot_take_over_the_terminal(self, call: Callable[..., Any], trace_file: TraceFile) -> None:
        """Control characters of a trace are shown as escapes, and long names are cut."""
        path = trace_file(*requests(1, clients=1, client="\x1b[2J"), *requests(1, clients=1, client="x" * 99))
        out = call("simulate", path, "--policy", "fcfs", "--quiet").out
        assert "\x1b" not in out
        assert "\\x1b[2J" in out
        assert "x" * 25 not in out

    def test_weights_are_shown(self, call: Callable[..., Any]) -> None:
        """A client whose weight is not 1 has it beside its name."""
        assert "chat (weight 3)" in call("simulate", *FEW, "--weight", "chat=3").out


class TestTrace:
    """What was assumed or changed stands beside the result."""

    def test_the_packaged_trace_runs_on_the_gpu_that_it_overloads(self, call: Callable[..., Any]) -> None:
        """Without a trace the GPU is an A10G, and the output says why."""
        out = call("simulate", *FEW).out
        assert "llama-3.1-8b on a10g" in out
        assert "no trace is given" in out

    def test_an_explicit_gpu_wins(self, call: Callable[..., Any]) -> None:
        """The packaged trace runs where it is told to."""
        out = call("simulate", *FEW, "--gpu", "h100").out
        assert "llama-3.1-8b on h100" in out
        assert "made to overload a10g, not h100" in out

    def test_a_trace_runs_on_an_a100(self, simulated: Callable[..., Any], trace_file: TraceFile) -> None:
        """That is the default for a trace of one's own."""
        assert simulated(trace_file(*requests(3, clients=2)))["config"]["gpu"] == "a100"

    def test_clients_are_composed_where_there_are_none(
        self, simulated: Callable[..., Any], trace_file: TraceFile
    ) -> None:
        """Eight unless told otherwise, and it is noted."""
        path = trace_file(*requests(40))
        assert len(simulated(path)["runs"][0]["clients"]) == 8
        result = simulated(path, "--clients", 3)
        assert len(result["runs"][0]["clients"]) == 3
        assert "clients are composed, not recorded" in result["config"]["notes"][0]

    def test_the_seed_decides_who_sends_what(self, simulated: Callable[..., Any], trace_file: TraceFile) -> None:
        """Another seed is another assignment."""
        path = trace_file(*(requests(1, arrival_s=number, input_tokens=100 + number)[0] for number in range(40)))
        results = [simulated(path, "--policy", "dlpm", "--seed", seed)["runs"] for seed in (0, 0, 1)]
        assert results[0] == results[1]
        assert results[0] != results[2]

    def test_cut_then_scaled_then_composed(self, simulated: Callable[..., Any], trace_file: TraceFile) -> None:
        """The notes tell the order of what was done to the trace."""
        notes = simulated(trace_file(*requests(40)), "--limit", 20, "--time-scale", 0.5)["config"]["notes"]
        assert [note.split()[0] for note in notes] == ["first", "arrival", "clients"]

    def test_oversized_requests_are_counted(
        self, call: Callable[..., Any], simulated: Callable[..., Any], trace_file: TraceFile
    ) -> None:
        """With --oversize reject they are left out, and counted in table and JSON."""
        path = trace_file(*requests(5, clients=2), *requests(2, clients=1, input_tokens=9000))
        arguments = (path, "--kv-tokens", "2000", "--oversize", "reject", "--policy", "fcfs,dlpm")
        for run in simulated(*arguments)["runs"]:
            assert (run["completed"], run["rejected"]) == (5, 2)
        rows = [line.split() for line in call("simulate", *arguments, "--quiet").out.splitlines()]
        assert ["rejected", "requests", "2", "2"] in rows


class TestJson:
    """The JSON has the figures under fixed names, and all that is needed to repeat the run."""

    def test_its_shape(self, simulated: Callable[..., Any]) -> None:
        """One run per policy, under the documented keys."""
        result = simulated("--limit", 40)
        assert list(result) == ["schema", "runs", "config"]
        assert result["schema"] == 1
        assert [run["policy"] for run in result["runs"]] == list(POLICIES)
        for run in result["runs"]:
            expected = {"completed", "prefix_hit_rate", "jain_index", "max_gap", "bound", "bound_ratio"}
            assert expected | {"service_rate", "mean_ttft_ms", "p99_e2el_ms", "clients"} <= run.keys()
            assert set(run["clients"]) <= {"flood", "chat", "agent"}

    def test_its_configuration(self, simulated: Callable[..., Any]) -> None:
        """Trace, model, GPU, memory, engine and policy settings are all there."""
        config = simulated(
            *("--limit", 40, "--policy", "dlpm", "--quantum", 4096, "--gate", "credit", "--slack", 5),
            *(
                "--chunk",
                512,
                "--max-batch",
                32,
                "--kv-tokens",
                40000,
                "--bounded-wait",
                4,
                "--reservation",
                "none",
            ),
        )["config"]
        assert config["trace"] == "sample.jsonl.gz"
        assert (config["model"], config["gpu"], config["seed"]) == ("llama-3.1-8b", "a10g", 0)
        assert config["policies"] == ["dlpm"]
        policy, engine = config["policy"], config["engine"]
        assert (policy["quantum"], policy["gate"], policy["slack"]) == (4096, "credit", 5)
        assert (policy["bounded_wait"], policy["reservation"]) == (4, "none")
        assert (engine["chunk"], engine["max_batch"], engine["reservation"]) == (512, 32, "none")
        assert engine["kv_tokens"] == config["kv_tokens"] == 40000

    def test_the_same_bytes_every_time(self, call: Callable[..., Any], tmp_path: Path) -> None:
        """The same command gives the same bytes."""
        paths = [tmp_path / "one.json", tmp_path / "two.json"]
        for path in paths:
            call("simulate", *FEW, "--json", path)
        assert paths[0].read_bytes() == paths[1].read_bytes()

    def test_to_standard_output(self, call: Callable[..., Any]) -> None:
        """With --json - only JSON goes to standard output, and the table to standard error."""
        outcome = call("simulate", *FEW, "--policy", "dlpm", "--json", "-")
        assert json.loads(outcome.out)["runs"][0]["policy"] == "dlpm"
        assert "prefix hit rate" in outcome.err

    def test_written_whole_or_not_at_all(
        self, call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When writing fails, an older result is still there, and nothing half written."""
        path = tmp_path / "runs.json"
        path.write_text("older", encoding="utf-8")

        def fail(self: Path, *_: object, **__: object) -> int:
            self.touch()
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_text", fail)
        outcome = call("simulate", *FEW, "--json", path)
        assert outcome.code == 2
        assert outcome.err == f"fairprefix: error: {path}: cannot be written: No space left on device\n"
        assert path.read_bytes() == b"older"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_device_is_written_in_place(self, call: Callable[..., Any]) -> None:
        """/dev/null stays what it is."""
        assert call("simulate", *FEW, "--policy", "fcfs", "--json", "/dev/null").code == 0
        assert not Path("/dev/null").is_file()


class TestConfig:
    """Settings come from a file, and options have the last word."""

    def test_the_file_then_the_options(self, simulated: Callable[..., Any], tmp_path: Path) -> None:
        """An option overrides the file; weights of both are joined."""
        path = tmp_path / "fair.toml"
        path.write_text("quantum = 100\nslack = 7\n[weights]\nchat = 2\nelsewhere = 5\n", encoding="utf-8")
        result = simulated("--limit", 40, "--config", path, "--quantum", 200, "--weight", "agent=3")
        policy = result["config"]["policy"]
        assert (policy["quantum"], policy["slack"]) == (200, 7)
        assert policy["weights"] == {"chat": 2, "elsewhere": 5, "agent": 3}
        assert len(result["runs"]) == len(POLICIES)

    def test_the_policy_of_the_file(self, simulated: Callable[..., Any], tmp_path: Path) -> None:
        """A file that names a policy runs that one, unless --policy says otherwise."""
        path = tmp_path / "fair.json"
        path.write_text('{"policy": "vtc"}', encoding="utf-8")
        assert simulated("--limit", 40, "--config", path)["config"]["policies"] == ["vtc"]
        both = simulated("--limit", 40, "--config", path, "--policy", "lpm,dlpm")
        assert both["config"]["policies"] == ["lpm", "dlpm"]

    def test_a_bad_file(self, refused: Callable[..., str], tmp_path: Path) -> None:
        """All its problems are named."""
        path = tmp_path / "fair.toml"
        path.write_text("quantim = 1\nslack = -1\n", encoding="utf-8")
        message = refused("simulate", "--config", path)
        assert f"{path}: 2 problems" in message
        assert "did you mean 'quantum'?" in message
        assert "slack = -1" in message


class TestProgress:
    """Progress goes to standard error, and --quiet turns it off."""

    def test_a_line_per_policy_without_a_terminal(self, call: Callable[..., Any]) -> None:
        """Where nobody watches a bar, each policy is announced."""
        outcome = call("simulate", "--limit", "40", "--policy", "fcfs,dlpm")
        assert outcome.err.splitlines() == [
            "running fcfs (1 of 2), 40 requests",
            "running dlpm (2 of 2), 40 requests",
        ]

    def test_a_bar_on_a_terminal(self, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """With rich on a terminal there is a bar, which goes when it is done."""
        monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
        outcome = call("simulate", "--limit", "40", "--policy", "fcfs")
        assert outcome.code == 0
        assert "running" not in outcome.err
