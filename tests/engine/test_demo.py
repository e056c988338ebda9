"""The demonstration: its workload, its record, and its command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import evolve

from fairprefix.cli import demo as command
from fairprefix.cli.main import main
from fairprefix.demo.run import Scene, run_policy
from fairprefix.demo.workload import ANSWER_TOKENS, ASKERS, SMALLEST, kv_tokens, questions
from fairprefix.gpu_ref_engine.errors import ModelError
from fairprefix.gpu_ref_engine.tokenizer import byte_tokenizer
from fairprefix.sim.simulate import RunResult
from tests.engine.fake import FakeRunner

TOKENIZER = byte_tokenizer(300)


def run(policy: str, seen: list[Scene] | None = None) -> tuple[RunResult, FakeRunner]:
    """Run a policy over the smallest workload, on a model that takes no time: so everybody asks at once."""
    asked = [evolve(question, due_ns=0) for question in questions(TOKENIZER, 0)]
    memory = kv_tokens(asked, 16)
    runner = FakeRunner(pages=memory // 16, page_size=16, vocabulary=300)
    outcome = run_policy(policy, runner, TOKENIZER, asked, (seen if seen is not None else []).append)
    assert len(outcome.answers) == len(asked)
    return outcome.result, runner


def test_the_memory_holds_one_document_and_not_two() -> None:
    """Whoever alternates between the documents has to compute them again: the point of the workload."""
    asked = questions(TOKENIZER, 1)
    longest = {
        client: max(len(one.prompt) for one in asked if one.client == client) for client in ("flood", "notes")
    }
    memory = kv_tokens(asked, 16)
    assert max(longest.values()) + ANSWER_TOKENS < memory < sum(longest.values())


def test_every_client_asks_about_a_shared_text() -> None:
    """All prompts of a client begin alike, and no two clients' do."""
    asked = questions(TOKENIZER, SMALLEST)
    beginnings = {one.client: tuple(one.prompt[:400]) for one in asked}
    assert all(beginnings[one.client] == tuple(one.prompt[:400]) for one in asked)
    assert len(set(beginnings.values())) == len(ASKERS)


def test_dlpm_keeps_lpms_cache_and_vtcs_fairness() -> None:
    """DLPM's hit rate is near LPM's and far from VTC's; with Jain's index it is the other way round."""
    figures = {policy: run(policy)[0].figures for policy in ("lpm", "vtc", "dlpm")}
    hits = {policy: found["prefix_hit_rate"] for policy, found in figures.items()}
    fair = {policy: found["jain_index"] for policy, found in figures.items()}
    assert hits["dlpm"] - hits["vtc"] > 3 * (hits["lpm"] - hits["dlpm"])
    assert fair["dlpm"] - fair["lpm"] > 3 * abs(fair["vtc"] - fair["dlpm"])
    assert figures["dlpm"]["bound_is_claimed"]
    assert figures["dlpm"]["bound_ratio"] <= 1


def test_the_record_is_what_the_engine_did() -> None:
    """Tokens, requests and latencies of the figures are those of the engine, and the scenes lead up to them."""
    scenes: list[Scene] = []
    result, runner = run("dlpm", scenes)
    sampled = sum(len(batch.samples) for batch in runner.batches)
    assert result.figures["total_output"] == sampled
    assert result.figures["completed"] == scenes[-1].answered == scenes[-1].questions
    for client, figures in result.figures["clients"].items():
        assert figures["service"] == scenes[-1].clients[client].service == result.timeline[client][-1][1]
        assert 0 < figures["p50_ttft_ms"] <= figures["p50_e2el_ms"]
    assert result.figures["duration"] > 0


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the real model unavailable, and the workload the smallest."""

    def refuse(_name: str) -> Path:
        raise ModelError("no network")

    monkeypatch.setattr(command, "fetch", refuse)
    monkeypatch.delenv("CI", raising=False)


@pytest.mark.usefixtures("no_download")
def test_without_the_real_model_a_random_one_stands_in_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command says so, prints answers, tables and the point, and draws the picture; CI=true is an error."""
    picture = tmp_path / "demo.png"
    options = ["demo", "--plot", str(picture), "--quiet", "--policy", "dlpm", "--budget", "1"]
    assert main(options) == 0
    printed = capsys.readouterr()
    assert "smollm2 cannot be fetched (no network)" in printed.err
    assert "note: a random model stood in for the real one" in printed.out
    for part in ("what the model says:", "prefix hit rate", "Jain's index", "in short:", "bound_ratio", "flood"):
        assert part in printed.out
    assert picture.stat().st_size > 10_000
    monkeypatch.setenv("CI", "true")
    assert main(options) == 1
    assert "CI=true asks for it" in capsys.readouterr().err


def test_bad_options_are_refused_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    """A picture that could not be written is an error at once."""
    assert main(["demo", "--plot", "demo.txt"]) == 2
    assert "--plot demo.txt: expected a name that ends in .png" in capsys.readouterr().err


def test_questions_are_valid_json_and_enough() -> None:
    """Every asker has questions, none twice."""
    data = Path(command.__file__).parent.parent / "demo" / "data" / "questions.json"
    found = json.loads(data.read_text(encoding="utf-8"))
    for asker in ASKERS:
        assert len(found[asker.text]) == len(set(found[asker.text])) >= 20


def test_a_model_that_is_not_there_is_one_clear_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`--model` is checked like that of `serve`."""
    assert main(["demo", "--model", "nowhere", "--plot", str(tmp_path / "a.png")]) == 2
    assert "there is no model 'nowhere'" in capsys.readouterr().err
