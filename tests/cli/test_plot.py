"""Claims about the picture: it is written, of a sensible size, and copes with any number of clients."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairprefix.core.config import PolicyConfig
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.plot import PlotError, plot_runs
from fairprefix.sim.simulate import RunResult, simulate
from fairprefix.sim.steptime import step_time_model
from fairprefix.sim.trace import Trace, TraceRequest

MODEL = step_time_model("llama-3.1-8b", "a10g")


def png_size(path: Path) -> tuple[int, int]:
    """Return width and height of a PNG, which stand in its header."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def runs(clients: int, policies: tuple[str, ...] = ("fcfs", "dlpm"), seconds: int = 0) -> list[RunResult]:
    """Return runs of a small trace; every client's prompts are longer than those of the one before."""
    trace = Trace(
        "$mall",
        tuple(
            TraceRequest(number * seconds * 10**9, f"client_{number % clients} $", 10 + number, 3)
            for number in range(2 * clients)
        ),
        16,
        has_clients=True,
    )
    engine = EngineConfig(kv_tokens=MODEL.kv_tokens)
    return [simulate(trace, PolicyConfig(policy=policy), engine, MODEL) for policy in policies]


class TestPlot:
    """Pictures of runs."""

    def test_the_command_writes_a_png(self, call: Callable[..., Any], tmp_path: Path) -> None:
        """Four columns are about 1400 x 700 pixels, and not an empty sheet."""
        path = tmp_path / "runs.png"
        outcome = call("simulate", "--limit", "40", "--quiet", "--plot", path)
        assert (outcome.code, outcome.err) == (0, "")
        assert png_size(path) == (1400, 700)
        assert path.stat().st_size > 20_000
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("clients", [1, 2, 12, 60])
    def test_any_number_of_clients(self, tmp_path: Path, clients: int) -> None:
        """One client, more than there are colours, more than there is room for: no warning, no error."""
        plot_runs(runs(clients), tmp_path / "runs.png", "a $title")
        assert png_size(tmp_path / "runs.png") == (920, 700)

    def test_a_single_policy(self, tmp_path: Path) -> None:
        """One column is wide enough for title and legend."""
        plot_runs(runs(3, ("lpm",)), tmp_path / "runs.png", "title")
        assert png_size(tmp_path / "runs.png") == (900, 700)

    @pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
    def test_the_same_picture_every_time(self, tmp_path: Path, suffix: str) -> None:
        """Every format can be written, and carries no date."""
        results = runs(2)
        paths = [tmp_path / f"one.{suffix}", tmp_path / f"two.{suffix}"]
        for path in paths:
            plot_runs(results, path, "title")
        assert paths[0].stat().st_size > 5_000
        # Marker names in SVG are drawn at random, so only its size is compared.
        assert paths[0].stat().st_size == paths[1].stat().st_size

    def test_an_unknown_format(self, tmp_path: Path) -> None:
        """The message lists what is known."""
        with pytest.raises(PlotError, match=r"\.png, \.svg, \.pdf"):
            plot_runs(runs(2), tmp_path / "runs.gif", "title")

    def test_without_matplotlib(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One sentence says how to install it."""
        monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
        with pytest.raises(PlotError, match=r"a plot needs matplotlib: pip install 'fairprefix\[report\]'"):
            plot_runs(runs(2), tmp_path / "runs.png", "title")
