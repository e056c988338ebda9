"""Step-time models against logs of engines: validation, calibration, and the quantum for a trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fairprefix.cli.main import main
from fairprefix.core.errors import ConfigError
from fairprefix.sim.affine import AffineModel, AffineParameters, load_affine
from fairprefix.sim.calibrate import calibrate
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.reqlog import LogError, Measured, as_trace, read_log
from fairprefix.sim.trace import Trace, TraceRequest
from fairprefix.sim.tune import reuse
from fairprefix.sim.validate import compare, replay

TRUTH = AffineParameters(step_ms=12.0, token_us=80.0, context_ns=150.0)
ENGINE = EngineConfig(kv_tokens=20_000, reservation="none")


def served(count: int = 60) -> list[Measured]:
    """Return what an engine with the true parameters does with a load that comes and goes."""
    rows = [
        TraceRequest(
            arrival_ns=(at // 10) * 8_000_000_000 + at * 90_000_000,
            client="c",
            input_tokens=100 + 90 * (at % 7),
            output_tokens=20 + 30 * (at % 5),
        )
        for at in range(count)
    ]
    return replay(Trace("t", rows, 16, has_clients=False), ENGINE, AffineModel("truth", 20_000, TRUTH))


def write(path: Path, log: list[Measured]) -> Path:
    """Write a log."""
    path.write_text(
        "\n".join(
            json.dumps(
                {
                    "input_tokens": r.input_tokens,
                    "output_tokens": r.output_tokens,
                    "queued_ts": 1000 + r.start_s,
                    "first_token_ts": 1000 + r.first_token_s,
                    "last_token_ts": 1000 + r.last_token_s,
                }
            )
            for r in log
        )
    )
    return path


def test_calibration_finds_an_engine_again() -> None:
    """From times alone, the means of requests that were not fitted come out within 5 %."""
    fit = calibrate(served(), ENGINE)
    assert all(abs(one.error) < 0.05 for one in fit.held_out), fit.held_out
    assert fit.model.parameters.step_ms == pytest.approx(TRUTH.step_ms, rel=0.15)


def late(one: Measured) -> Measured:
    """Return a request that took much longer."""
    return Measured(
        one.start_s, one.input_tokens, one.output_tokens, one.first_token_s + 50, one.last_token_s + 90
    )


def test_held_out_requests_are_not_fitted() -> None:
    """Every second request may say what it likes: the fit is the same."""
    log = served(30)
    lies = [one if place % 2 == 0 else late(one) for place, one in enumerate(log)]
    honest, deceived = calibrate(log, ENGINE), calibrate(lies, ENGINE)
    assert [one.simulated_s for one in honest.fitted] == [one.simulated_s for one in deceived.fitted]
    assert max(abs(one.error) for one in deceived.held_out) > 0.5


def test_the_model_adds_up() -> None:
    """A run of decode steps takes as long as its steps."""
    model = AffineModel("m", 1000, TRUTH)
    steps = [model.step_ps(prefills=(), decodes=3, context=500 + 3 * k) for k in range(20)]
    assert [model.decode_run(3, 500).total_ps(k) for k in range(21)] == [sum(steps[:k]) for k in range(21)]
    assert model.step_ps(prefills=(), decodes=0, context=0) == 0
    longer = AffineModel("m", 1000, AffineParameters(step_ms=1, token_us=1, context_ns=1, pair_ps=500))
    assert longer.step_ps(prefills=[(10, 90)], decodes=0, context=0) == 1_000_000_000 + (900 + 55) * 500


def test_the_command_reports_errors_and_writes_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it wrote can be given to `tune`."""
    log, model = write(tmp_path / "log.jsonl", served(30)), tmp_path / "mine.json"
    assert main(["calibrate", str(log), "--kv-tokens", "20000", "--out", str(model), "--quiet"]) == 0
    assert "errors on the other half" in capsys.readouterr().out
    assert load_affine(model).kv_tokens == 20_000
    trace = tmp_path / "trace.jsonl"
    rows = [
        {"arrival_s": 0.1 * at, "client": f"c{at % 2}", "input_tokens": 64, "output_tokens": 8, "block_size": 16,
         "hash_ids": [100 * (at % 2) + place for place in range(4)]}
        for at in range(12)
    ]  # fmt: skip
    trace.write_text("\n".join(json.dumps(row) for row in rows))
    found = tmp_path / "tune.json"
    arguments = ["tune", str(trace), "--step-time", str(model), "--json", str(found), "--quiet"]
    assert main(arguments) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    advice = json.loads(found.read_text())
    assert advice["prefix"] == 64
    assert advice["rule"] == 1280
    assert f"recommended: --quantum {advice['quantum']}" in out


def test_reuse_is_within_a_client() -> None:
    """What another client asked before is no reuse of this one's."""
    rows = [
        TraceRequest(0, "a", 40, 1, blocks=(1, 2)),
        TraceRequest(1, "b", 40, 1, blocks=(1, 2)),
        TraceRequest(2, "a", 50, 1, blocks=(1, 2, 3)),
        TraceRequest(3, "a", 20, 1, blocks=(9,)),
    ]
    found = reuse(Trace("t", rows, 16, has_clients=True))
    assert found.prefix == 32
    assert found.share == pytest.approx(32 / 150)
    assert reuse(Trace("t", rows[:1], 16, has_clients=True)).prefix == 0


GOOD = {"input_tokens": 5, "output_tokens": 2, "queued_ts": 1.0, "ttft_s": 0.5, "latency_s": 0.7}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_tokens": 0}, "input_tokens = 0"),
        ({"output_tokens": "two"}, "output_tokens = 'two'"),
        ({"queued_ts": None}, "queued_ts = None is not valid: expected seconds"),
        ({"latency_s": 0.2}, "expected in this order"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """With file, line and field."""
    path = tmp_path / "log.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps(GOOD | change)}\n")
    with pytest.raises(LogError, match=f"{path}:2: .*{message}"):
        read_log(path)


def test_a_log_needs_its_fields_and_two_requests(tmp_path: Path) -> None:
    """And says which are missing."""
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(GOOD))
    with pytest.raises(LogError, match="expected at least two"):
        read_log(path)
    path.write_text(json.dumps({"input_tokens": 5, "output_tokens": 2}))
    with pytest.raises(LogError, match="none of queued_ts, arrival_s"):
        read_log(path)
    path.write_text("{")
    with pytest.raises(LogError, match="not valid JSON"):
        read_log(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected a JSON object"),
        ("{", "not valid JSON"),
        ('{"kv_tokens": 5}', "step_ms is missing"),
        ('{"kv_tokens": 5, "step_ms": 1, "token_us": 1, "context_n": 1}', "did you mean 'context_ns'"),
        ('{"kv_tokens": 5, "step_ms": -1, "token_us": 1, "context_ns": 1}', "step_ms = -1"),
    ],
)
def test_a_model_file_that_makes_no_sense_is_one_error(tmp_path: Path, text: str, message: str) -> None:
    """With the file and the field."""
    path = tmp_path / "model.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_affine(path)


def test_a_model_file_reads_back() -> None:
    """What is dumped is what is loaded."""
    assert compare(served(4), served(4))[0].error == 0.0


def test_bad_options_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And exit code 2."""
    assert main(["tune", "--overhead", "1"]) == 2
    assert "below 1" in capsys.readouterr().err
    assert main(["tune", "--step-time", str(tmp_path / "x"), "--gpu", "a100"]) == 2
    assert "leave one out" in capsys.readouterr().err
    assert main(["calibrate", str(tmp_path / "x"), "--kv-tokens", "5"]) == 2
    assert "x" in capsys.readouterr().err


def test_a_log_is_a_trace_of_one_client() -> None:
    """Its requests, at the times at which the engine got them."""
    trace = as_trace(served(5), "log")
    assert [r.arrival_ns for r in trace.requests] == [round(m.start_s * 1e9) for m in served(5)]


def test_simulate_runs_a_workload(capsys: pytest.CaptureFixture[str]) -> None:
    """In closed loop, under the policies named; a trace beside it is an error."""
    assert main(["simulate", "--workload", "Judge", "--programs", "2", "--policy", "dlpm", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "closed loop" in out
    assert "24 requests of 3 clients" in out
    assert main(["simulate", "trace.jsonl", "--workload", "Judge"]) == 2
    assert "stands in place of a trace" in capsys.readouterr().err


def test_a_trace_without_common_prefixes_can_be_tuned_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The smallest quanta are tried then, each under its name in the progress."""
    trace = tmp_path / "trace.jsonl"
    lines = [
        f'{{"arrival_s": {n}, "client": "c{n % 2}", "input_tokens": 40, "output_tokens": 4}}' for n in range(8)
    ]
    trace.write_text("\n".join(lines), encoding="utf-8")
    assert main(["tune", str(trace)]) == 0
    shown = capsys.readouterr()
    assert "No client's prompts begin alike" in shown.out
    assert "Q 256" in shown.err
