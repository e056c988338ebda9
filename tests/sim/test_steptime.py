"""Claims about step times: exact sums of decode runs, the documented anchors, tables, and errors."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairprefix.core.errors import ConfigError
from fairprefix.sim.decoderun import PS_PER_MS, DecodeCurve, DecodeRun, HostTime
from fairprefix.sim.grid import Grid
from fairprefix.sim.hardware import GPUS, MODELS
from fairprefix.sim.steptime import StepTimeModel, TableModel, step_time_model

SharedTrace = Callable[[str], Path]

DENSE = ("layernorm", "qkv_proj", "rotary_emb", "o_proj", "gate_up_proj", "act_fn", "down_proj")


def gpu_only(model: str, gpu: str) -> StepTimeModel:
    """Return a roofline without CPU time."""
    return step_time_model(model, gpu, cpu_ms=0)


def decode_ms(model: StepTimeModel, decodes: int, context_each: int) -> float:
    """Return the milliseconds of a decode step over sequences of equal context."""
    return model.step_ps(prefills=(), decodes=decodes, context=decodes * context_each) / PS_PER_MS


def prefill_rate(model: StepTimeModel, tokens: int) -> float:
    """Return the tokens per second of a prefill step with one fresh prompt."""
    return tokens / model.step_ps(prefills=[(tokens, 0)], decodes=0, context=0) * 1e12


def one_by_one(model: StepTimeModel, decodes: int, context: int, steps: int) -> list[int]:
    """Return the time after each of the steps, taken one at a time."""
    passed, after = 0, []
    for step in range(steps):
        passed += model.step_ps(prefills=(), decodes=decodes, context=context + decodes * step)
        after.append(passed)
    return after


def write_tables(folder: Path, *, layers: tuple[str, ...] = (*DENSE, "embedding", "final_layernorm")) -> Path:
    """Write tables in which every dense layer takes 1 us plus 1 us a token, and attention round numbers."""
    dense = [f"{layer},{tokens},{1 + tokens}" for layer in layers for tokens in (1, 100)]
    sampled = [f"{layer},{n},{n}" for layer in ("lm_head", "sampler") for n in (1, 10)]
    attention = ["16,0,0,0,10", "16,100,0,0,20", "32,0,0,0,20", "32,100,0,0,60"]
    attention += ["0,0,1,10,5", "0,0,1,20,7", "0,0,2,10,6", "0,0,2,20,12"]
    attention += [f"{q},{c},{n},{k},{100}" for q in (16, 32) for c in (0, 100) for n in (1, 2) for k in (10, 20)]
    folder.mkdir(exist_ok=True)
    for name, header, rows in (
        ("dense", "layer,tokens,time_us", dense),
        ("per_sequence", "layer,sequences,time_us", sampled),
        ("attention", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us", attention),
    ):
        (folder / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def small_table(folder: Path, *, cpu_ms: float = 0) -> TableModel:
    """Return the model of `write_tables`, with two layers."""
    return TableModel.from_folder(write_tables(folder), layers=2, kv_tokens=1000, cpu_ms=cpu_ms)


class TestAnchors:
    """The roofline reproduces the predictions that its constants were published with, within 3 %."""

    @pytest.mark.parametrize(("decodes", "milliseconds"), [(1, 32), (16, 36), (64, 52)])
    def test_8b_on_a10g_decodes_512_tokens_of_context(self, decodes: int, milliseconds: float) -> None:
        """The A10G is bound by reading 15 GB of weights until the batch is large."""
        assert decode_ms(gpu_only("llama-3.1-8b", "a10g"), decodes, 512) == pytest.approx(milliseconds, rel=0.03)

    @pytest.mark.parametrize(("decodes", "milliseconds"), [(1, 5.3), (64, 10.9), (256, 30.8)])
    def test_3b_on_a100_decodes_1024_tokens_of_context(self, decodes: int, milliseconds: float) -> None:
        """The smaller model on the larger GPU, with eager launches of 55 us a layer."""
        assert decode_ms(gpu_only("llama-3.2-3b", "a100"), decodes, 1024) == pytest.approx(milliseconds, rel=0.03)

    @pytest.mark.parametrize(
        ("model", "gpu", "tokens", "rate"),
        [
            ("llama-3.1-8b", "a10g", 512, 3100),
            ("llama-3.1-8b", "a10g", 2048, 3200),
            ("llama-3.2-3b", "a100", 512, 28900),
            ("llama-3.2-3b", "a100", 2048, 31000),
        ],
    )
    def test_prefill_tokens_per_second(self, model: str, gpu: str, tokens: int, rate: float) -> None:
        """Prefill is bound by compute."""
        assert prefill_rate(gpu_only(model, gpu), tokens) == pytest.approx(rate, rel=0.03)

    @pytest.mark.parametrize(
        ("model", "gpu", "tokens"),
        [
            ("llama-3.1-8b", "a10g", 37_500),
            ("llama-3.1-8b", "a100", 448_000),
            ("llama-3.1-8b", "h200", 885_000),
            ("llama-3.2-3b", "a100", 596_000),
        ],
    )
    def test_kv_cache_holds_what_remains_beside_the_weights(self, model: str, gpu: str, tokens: int) -> None:
        """88 % of usable memory minus the weights, divided by bytes per token."""
        assert step_time_model(model, gpu).kv_tokens == pytest.approx(tokens, rel=0.001)

    @pytest.mark.parametrize(("model", "kib"), [("llama-3.1-8b", 128), ("llama-3.2-3b", 112)])
    def test_kv_bytes_per_token(self, model: str, kib: int) -> None:
        """A key and a value in bf16 per layer and KV head."""
        assert MODELS[model].kv_bytes_per_token == kib * 1024

    def test_h200_decode_matches_its_published_prediction(self) -> None:
        """Three batch sizes at 512 tokens of context each."""
        model = gpu_only("llama-3.1-8b", "h200")
        assert [round(decode_ms(model, batch, 512), 1) for batch in (64, 128, 256)] == [5.8, 8.0, 12.7]


class TestStep:
    """What a step's time depends on."""

    def test_every_part_of_a_mixed_step_adds_up(self) -> None:
        """Decoding beside a chunk adds its context, and little else."""
        model = gpu_only("llama-3.1-8b", "a10g")
        alone = model.step_ps(prefills=[(100, 50)], decodes=0, context=0)
        mixed = model.step_ps(prefills=[(100, 50)], decodes=1, context=1000)
        # 1000 tokens of context at 128 KiB each, 75 % of 600 GB/s; the rest is one more token and one more sample.
        assert mixed - alone - 291_271_111 == pytest.approx(0, abs=0.5 * PS_PER_MS)

    def test_a_cached_prefix_costs_attention_only(self) -> None:
        """The difference is the pairs of new and cached tokens at half of peak compute."""
        model = gpu_only("llama-3.1-8b", "a10g")
        fresh, cached = (model.step_ps(prefills=[(512, c)], decodes=0, context=0) for c in (0, 4096))
        pairs, operations = 512 * 4096, 4 * 32 * 32 * 128
        assert cached - fresh == pytest.approx(pairs * operations / (70e12 * 0.5) * 1e12, rel=1e-6)

    def test_a_short_chunk_after_a_long_prefix_is_bound_by_reading_it(self) -> None:
        """One more cached token costs the reading of its keys and values."""
        model = gpu_only("llama-3.1-8b", "a10g")
        short, shorter = (model.step_ps(prefills=[(1, c)], decodes=0, context=0) for c in (8001, 8000))
        assert short - shorter == pytest.approx(128 * 1024 / (600e9 * 0.75) * 1e12, abs=1)

    def test_a_step_without_work_takes_no_time(self, tmp_path: Path) -> None:
        """Not even CPU time."""
        for model in (step_time_model("llama-3.1-8b", "a10g"), small_table(tmp_path)):
            assert model.step_ps(prefills=(), decodes=0, context=0) == 0

    def test_cpu_time_hides_behind_the_gpu_when_it_overlaps(self) -> None:
        """The slower of the two decides."""
        gpu = gpu_only("llama-3.1-8b", "a10g").step_ps(prefills=[(10, 0)], decodes=2, context=9)
        for cpu_ms, expected in ((2.0, gpu), (100.0, 100 * PS_PER_MS)):
            model = step_time_model("llama-3.1-8b", "a10g", cpu_ms=cpu_ms)
            assert model.step_ps(prefills=[(10, 0)], decodes=2, context=9) == expected

    def test_cpu_time_adds_when_it_does_not_overlap(self) -> None:
        """In mixed and in pure decode steps."""
        for batch in ({"prefills": [(10, 0)], "decodes": 2}, {"prefills": (), "decodes": 2}):
            gpu = gpu_only("llama-3.1-8b", "a10g").step_ps(context=9, **batch)  # type: ignore[arg-type]  # a mixed dict
            serial = step_time_model("llama-3.1-8b", "a10g", cpu_ms=2.5, overlap=False)
            assert serial.step_ps(context=9, **batch) == gpu + 2_500_000_000  # type: ignore[arg-type]  # likewise


class TestDecodeRun:
    """decode_run(b, n).total_ps(k) is exactly the sum of k single steps, and steps_within inverts it."""

    @pytest.mark.parametrize("overlap", [True, False])
    @pytest.mark.parametrize("cpu_ms", [0, 2.0, 32.4, 60.0])
    @pytest.mark.parametrize(("decodes", "context"), [(1, 1), (7, 900), (64, 20_000), (64, 32_768)])
    def test_roofline_sums_are_exact(self, *, cpu_ms: float, overlap: bool, decodes: int, context: int) -> None:
        """Also where the GPU overtakes the CPU in the middle of a run."""
        model = step_time_model("llama-3.1-8b", "a10g", cpu_ms=cpu_ms, overlap=overlap)
        check_run(model, decodes, context, steps=1500)

    @pytest.mark.parametrize("cpu_ms", [0, 17.0, 40.0])
    @pytest.mark.parametrize(("decodes", "context"), [(1, 1), (3, 2), (5, 70), (48, 9_000), (300, 200_000)])
    def test_table_sums_are_exact_across_knots(
        self, shared_trace: SharedTrace, cpu_ms: float, decodes: int, context: int
    ) -> None:
        """Also across measured contexts and beyond the largest batch and context."""
        model = TableModel.from_folder(shared_trace("llama31_8b_rtx4090"), cpu_ms=cpu_ms)
        check_run(model, decodes, context, steps=1500)

    @pytest.mark.parametrize("cpu_ms", [0, 0.031, 0.05])
    @pytest.mark.parametrize("decodes", [1, 2, 9])
    def test_small_table_sums_are_exact(self, tmp_path: Path, cpu_ms: float, decodes: int) -> None:
        """Few knots, and a CPU time between their values."""
        check_run(small_table(tmp_path, cpu_ms=cpu_ms), decodes, decodes, steps=60)

    @settings(max_examples=200, deadline=None)
    @given(data=st.data())
    def test_any_curve_sums_exactly(self, data: st.DataObject) -> None:
        """A curve, its maximum with a constant, their sums and the inverse of the sums."""
        curve = data.draw(curves())
        floor = data.draw(st.integers(0, 400))
        decodes, context = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 60))
        raised = curve.at_least(floor)
        steps = [max(floor, curve.at(context + decodes * step)) for step in range(40)]
        assert [raised.at(context + decodes * step) for step in range(40)] == steps
        run = DecodeRun(raised, decodes, context)
        assert [run.total_ps(count) for count in range(41)] == [sum(steps[:count]) for count in range(41)]
        for count in range(1, 40):
            assert run.steps_within(sum(steps[:count])) == count
            assert run.steps_within(sum(steps[:count]) - 1) == count - 1

    def test_no_budget_allows_no_step(self) -> None:
        """Nor does a negative one; no steps take no time."""
        run = step_time_model("llama-3.1-8b", "a10g").decode_run(4, 100)
        assert (run.steps_within(0), run.steps_within(-5), run.total_ps(0)) == (0, 0, 0)


def check_run(model: StepTimeModel, decodes: int, context: int, *, steps: int) -> None:
    """Check a run against single steps: every sum, and budgets at and around the boundaries."""
    run, after = model.decode_run(decodes, context), one_by_one(model, decodes, context, steps)
    assert [run.total_ps(count + 1) for count in range(steps)] == after
    for count in range(0, steps - 1, 37):
        assert run.steps_within(after[count]) == count + 1
        assert run.steps_within(after[count] - 1) == count
        assert run.steps_within(after[count + 1] - 1) == count + 1


@st.composite
def curves(draw: st.DrawFn) -> DecodeCurve:
    """Return a curve of a few pieces that never falls."""
    starts, values, slopes = [0], [draw(st.integers(1, 50))], [draw(st.integers(0, 5))]
    for _ in range(draw(st.integers(0, 4))):
        length = draw(st.integers(1, 20))
        starts.append(starts[-1] + length)
        values.append(values[-1] + slopes[-1] * length + draw(st.integers(0, 30)))
        slopes.append(draw(st.integers(0, 5)))
    return DecodeCurve(tuple(starts), tuple(values), tuple(slopes))


class TestTable:
    """Tables combine as documented, interpolate between measurements and extrapolate beyond."""

    def test_hand_computed_decode_step(self, tmp_path: Path) -> None:
        """2 layers * (8 calls * 3 us + attention 6 us) + 2 calls * 3 us + 2 * 2 us of head and sampler."""
        assert small_table(tmp_path).step_ps(prefills=(), decodes=2, context=20) == 70_000_000

    def test_decode_attention_is_interpolated_by_context(self, tmp_path: Path) -> None:
        """Halfway between two measurements lies half of their difference."""
        model = small_table(tmp_path)
        at = [model.step_ps(prefills=(), decodes=2, context=context) for context in (20, 30, 40)]
        assert (at[1] - at[0], at[2] - at[1]) == (2 * 3_000_000, 2 * 3_000_000)

    def test_below_the_first_knot_the_time_stays_and_beyond_the_last_it_grows_on(self, tmp_path: Path) -> None:
        """Flat below, the last slope above."""
        model = small_table(tmp_path)
        first, last, beyond = (model.step_ps(prefills=(), decodes=2, context=n) for n in (1, 40, 60))
        assert first == 70_000_000
        assert beyond - last == 2 * 6_000_000

    def test_hand_computed_prefill_step(self, tmp_path: Path) -> None:
        """24 new tokens after 50 cached lie in the middle of four measurements: (10 + 20 + 20 + 60) / 4 us."""
        # 2 layers, 18 dense calls of 25 us, head and sampler of 1 us each
        step = small_table(tmp_path).step_ps(prefills=[(24, 50)], decodes=0, context=0)
        assert step == round((2 * 27.5 + 18 * 25 + 2) * 1e6)

    def test_a_chunk_longer_than_measured_is_cut_in_pieces(self, tmp_path: Path) -> None:
        """64 tokens are 32 after 0 (20 us) and 32 after 32 (20 + 0.32 * 40 us)."""
        step = small_table(tmp_path).step_ps(prefills=[(64, 0)], decodes=0, context=0)
        assert step == round((2 * 52.8 + 18 * 65 + 2) * 1e6)

    def test_decoding_beside_a_chunk_adds_what_mixed_measurements_say(self, tmp_path: Path) -> None:
        """100 us of attention together, 17 tokens, 2 sequences."""
        step = small_table(tmp_path).step_ps(prefills=[(16, 0)], decodes=1, context=10)
        assert step == round((2 * 100 + 18 * 18 + 2 * 2) * 1e6)

    def test_without_mixed_measurements_the_two_attentions_add(self, tmp_path: Path) -> None:
        """10 us for the chunk and 5 us for decoding."""
        table = write_tables(tmp_path) / "attention.csv"
        table.write_text("\n".join(line for line in table.read_text().split("\n") if not line.endswith(",100")))
        model = TableModel.from_folder(tmp_path, layers=2, kv_tokens=1000)
        step = model.step_ps(prefills=[(16, 0)], decodes=1, context=10)
        assert step == max(2 * PS_PER_MS, round((2 * 15 + 18 * 18 + 2 * 2) * 1e6))

    def test_noise_never_makes_a_longer_context_faster(self, tmp_path: Path) -> None:
        """A measurement that falls is raised to the one before."""
        table = write_tables(tmp_path) / "attention.csv"
        table.write_text(table.read_text().replace("0,0,2,20,12", "0,0,2,20,4"))
        model = TableModel.from_folder(tmp_path, layers=2, kv_tokens=1000, cpu_ms=0)
        times = [model.step_ps(prefills=(), decodes=2, context=context) for context in range(0, 200, 5)]
        assert times == sorted(times)

    def test_a_grid_returns_its_measurements_at_its_knots(self) -> None:
        """Interpolation changes nothing that was measured."""
        points: dict[tuple[int, ...], float] = {(x, y): float(7 * x - y * y) for x in (1, 2, 8) for y in (0, 4, 5)}
        grid = Grid.of(points, source="t")
        assert {at: grid.at(*at) for at in points} == points

    def test_measured_4090_tables_load_with_the_engines_own_cache_size(self, shared_trace: SharedTrace) -> None:
        """Floor: 15 GB of weights at 0.9 TB/s; 64 sequences over 2048 tokens add 19 ms of attention."""
        model = TableModel.from_folder(shared_trace("llama31_8b_rtx4090"))
        assert (model.layers, model.kv_tokens) == (32, 41_408)
        assert decode_ms(model, 1, 16) == pytest.approx(16.6, rel=0.02)
        assert decode_ms(model, 64, 2048) - decode_ms(model, 64, 16) == pytest.approx(32 * 0.588, rel=0.01)
        assert prefill_rate(model, 2048) == pytest.approx(10_600, rel=0.02)

    def test_packed_and_plain_tables_are_alike(self, tmp_path: Path) -> None:
        """A folder may hold x.csv or x.csv.gz."""
        plain = small_table(tmp_path / "plain")
        write_tables(tmp_path / "packed")
        for table in list((tmp_path / "packed").iterdir()):
            table.with_name(f"{table.name}.gz").write_bytes(gzip.compress(table.read_bytes()))
            table.unlink()
        packed = TableModel.from_folder(tmp_path / "packed", layers=2, kv_tokens=1000, cpu_ms=0)
        batch = [(20, 30), (5, 0)]
        assert packed.step_ps(prefills=batch, decodes=2, context=31) == plain.step_ps(
            prefills=batch, decodes=2, context=31
        )


class TestErrors:
    """Every error names the field, the value and what is valid."""

    @pytest.mark.parametrize(
        ("model", "gpu", "message"),
        [
            ("llama-3.1-8B", "a10g", "model = 'llama-3.1-8B' is not valid: .*did you mean 'llama-3.1-8b'"),
            ("llama-3.1-8b", "a10", "gpu = 'a10' is not valid: .*did you mean 'a10g'"),
        ],
    )
    def test_unknown_names_suggest_the_nearest(self, model: str, gpu: str, message: str) -> None:
        """A slip of the pen is answered with the name that was meant."""
        with pytest.raises(ConfigError, match=message):
            step_time_model(model, gpu)

    @pytest.mark.parametrize("cpu_ms", [-1, float("nan"), float("inf"), True])
    def test_cpu_time_has_to_be_a_duration(self, cpu_ms: float) -> None:
        """Not negative, not infinite, and a number."""
        with pytest.raises(ConfigError, match=r"cpu_ms = .* is not valid: expected a number of milliseconds >= 0"):
            HostTime.of(cpu_ms, overlap=True)

    @pytest.mark.parametrize(
        ("table", "old", "new", "message"),
        [
            (
                "dense",
                "qkv_proj,100,",
                "qkv_prj,100,",
                r"dense.csv:5: layer = 'qkv_prj' .*did you mean 'qkv_proj'",
            ),
            ("dense", "qkv_proj,100,101", "qkv_proj,many,101", r"dense.csv:5: tokens = 'many' .*an integer >= 0"),
            ("dense", "qkv_proj,100,101", "qkv_proj,100,nan", r"dense.csv:5: time_us = 'nan' .*microseconds > 0"),
            (
                "dense",
                "qkv_proj,100,101",
                "qkv_proj,100,fast",
                r"dense.csv:5: time_us = 'fast' .*microseconds > 0",
            ),
            ("dense", "qkv_proj,100,101", "qkv_proj,100", r"dense.csv:5: time_us = '' .*microseconds > 0"),
            ("dense", "layer,tokens", "layer,token", r"dense.csv:1: column 'tokens' is missing"),
            ("attention", "32,100,0,0,60\n", "", r"attention of prefills: no measurement at \(32, 100\)"),
            ("attention", "0,0,2,20,12\n", "", r"attention of decodes: no measurement at \(2, 20\)"),
        ],
    )
    def test_a_bad_table_is_named_with_line_and_field(
        self, tmp_path: Path, table: str, old: str, new: str, message: str
    ) -> None:
        """Wrong names, wrong numbers, missing columns and holes in the grid."""
        path = write_tables(tmp_path) / f"{table}.csv"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ConfigError, match=message):
            TableModel.from_folder(tmp_path, layers=2, kv_tokens=1000)

    def test_a_layer_without_measurements_is_an_error(self, tmp_path: Path) -> None:
        """Otherwise its time would be missing from every step."""
        write_tables(tmp_path, layers=(*DENSE[1:], "embedding", "final_layernorm"))
        with pytest.raises(ConfigError, match=r"dense.csv: layer 'layernorm': no measurements"):
            TableModel.from_folder(tmp_path, layers=2, kv_tokens=1000)

    def test_a_folder_without_tables_is_an_error(self, tmp_path: Path) -> None:
        """The first file that is missing is named."""
        with pytest.raises(ConfigError, match=r"attention.csv: no such file"):
            TableModel.from_folder(tmp_path, layers=2, kv_tokens=1000)

    @pytest.mark.parametrize(
        ("meta", "message"),
        [
            (None, r"meta.json: no such file"),
            ("{", r"meta.json:1: is not valid JSON"),
            ("[]", r"meta.json: expected a JSON object"),
            ("{}", r"kv_tokens = None is not valid"),
            ('{"kv_cache": {"num_kv_tokens": 5}}', r"meta.json: model \(or give layers=\) = 'none'"),
            ('{"kv_cache": {"num_kv_tokens": 5}, "model": "m/Llama-3.1-9B"}', r"did you mean 'llama-3.1-8b'"),
        ],
    )
    def test_layers_and_cache_size_come_from_meta_or_are_given(
        self, tmp_path: Path, meta: str | None, message: str
    ) -> None:
        """What meta.json does not say has to be an argument."""
        write_tables(tmp_path)
        if meta is not None:
            (tmp_path / "meta.json").write_text(meta)
        with pytest.raises(ConfigError, match=message):
            TableModel.from_folder(tmp_path)


def test_every_listed_model_fits_every_listed_gpu() -> None:
    """No combination has a KV cache without room."""
    assert all(step_time_model(model, gpu).kv_tokens > 0 for model in MODELS for gpu in GPUS)
