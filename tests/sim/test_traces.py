"""Claims about traces: every format loads, real ones say what they are known to say, and traces can be changed."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from attrs import evolve

from fairprefix.core.errors import ConfigError
from fairprefix.sim.trace import (
    TraceRequest,
    dump_generic,
    limit,
    load_trace,
    scale_time,
)
from tests.sim.trace_texts import ARENA, AZURE, GENERIC, MOONCAKE, plain_trace, write

SharedTrace = Callable[[str], Path]


class TestFormats:
    """Every format is recognised by its content, plain or packed."""

    def test_mooncake(self, tmp_path: Path) -> None:
        """Milliseconds become nanoseconds, the hash of the last, partial block is dropped."""
        trace = load_trace(write(tmp_path, f"{MOONCAKE}\n"))
        expected = TraceRequest(1_500_000_000, "anonymous", 1100, 7, blocks=(3, 4))
        assert (trace.requests, trace.block_size, trace.has_clients, trace.notes) == ((expected,), 512, False, ())

    def test_vtc_arena(self, tmp_path: Path) -> None:
        """The only public trace with clients."""
        trace = load_trace(write(tmp_path, f"{ARENA}\n"))
        assert (trace.requests, trace.has_clients) == ((TraceRequest(500_000_000, "13", 20, 30),), True)

    def test_azure_times_are_relative_to_the_first_and_keep_all_digits(self, tmp_path: Path) -> None:
        """Seven digits, one more than datetime keeps."""
        trace = load_trace(write(tmp_path, f"{AZURE}\r\n2023-11-17 00:00:00.0000001,5,6\r\n"))
        assert [request.arrival_ns for request in trace.requests] == [0, 20_653_319_410_100]
        assert trace.requests[0] == TraceRequest(0, "anonymous", 374, 44)

    def test_generic(self, tmp_path: Path) -> None:
        """All fields of our own format."""
        trace = load_trace(write(tmp_path, f"{GENERIC}\n"))
        assert trace.requests == (TraceRequest(250_000_000, "a", 40, 5, 9, (1, 2)),)
        assert (trace.name, trace.block_size, trace.has_clients) == ("trace", 16, True)

    def test_generic_with_the_least_fields(self, tmp_path: Path) -> None:
        """Three fields suffice."""
        trace = load_trace(write(tmp_path, '{"arrival_time_ns": 7, "input_tokens": 1, "output_tokens": 2}'))
        assert trace.requests == (TraceRequest(7, "anonymous", 1, 2, 2, ()),)
        assert not trace.has_clients

    @pytest.mark.parametrize("empty", ["[]", "null"])
    def test_empty_hash_ids_mean_that_no_prefix_is_known(self, tmp_path: Path, empty: str) -> None:
        """An empty list does not have to cover anything."""
        row = GENERIC.replace("[1, 2, 3]", empty)
        assert load_trace(write(tmp_path, row)).requests[0].blocks == ()

    def test_gzip_blank_lines_and_a_byte_order_mark_do_not_matter(self, tmp_path: Path) -> None:
        """Files come as people store them."""
        packed = tmp_path / "t.jsonl.gz"
        packed.write_bytes(gzip.compress(f"\ufeff\n{GENERIC}\r\n\n{GENERIC}\n".encode()))
        assert len(load_trace(packed).requests) == 2

    def test_requests_are_sorted_by_arrival_and_ties_keep_their_order(self, tmp_path: Path) -> None:
        """The sort is stable."""
        rows = [(2, 1), (1, 2), (2, 3), (1, 4)]
        text = "\n".join(f'{{"arrival_s":{s},"input_tokens":{n},"output_tokens":1}}' for s, n in rows)
        assert [request.input_tokens for request in load_trace(write(tmp_path, text)).requests] == [2, 4, 1, 3]

    def test_arrivals_are_exact_to_the_nanosecond(self, tmp_path: Path) -> None:
        """A float could not hold this one."""
        row = '{"arrival_s":9007199.254740993,"input_tokens":1,"output_tokens":1}'
        assert load_trace(write(tmp_path, row)).requests[0].arrival_ns == 9_007_199_254_740_993

    @pytest.mark.parametrize(
        ("text", "lengths"),
        [
            (MOONCAKE.replace('"output_length": 7', '"output_length": 0'), (1100, 1)),
            (ARENA.replace("20,30", "0,0"), (1, 1)),
            (AZURE.replace("374,44", "374,0"), (374, 1)),
        ],
    )
    def test_lengths_of_zero_in_recorded_traces_count_as_one_and_are_noted(
        self, tmp_path: Path, text: str, lengths: tuple[int, int]
    ) -> None:
        """Recorded engines stop at once now and then."""
        trace = load_trace(write(tmp_path, text))
        assert (trace.requests[0].input_tokens, trace.requests[0].output_tokens) == lengths
        assert trace.notes == (f"{lengths.count(1)} lengths of 0 tokens counted as 1",)

    def test_a_dumped_trace_reads_back_the_same(self, tmp_path: Path) -> None:
        """Nanoseconds, limits and blocks included."""
        trace = load_trace(write(tmp_path, f"{GENERIC}\n{GENERIC.replace('0.25', '0.123456789')}"))
        again = load_trace(write(tmp_path, "\n".join(dump_generic(trace)), "again"))
        assert again.requests == trace.requests

    def test_a_trace_without_clients_is_dumped_without(self, tmp_path: Path) -> None:
        """No client is invented on the way."""
        trace = load_trace(write(tmp_path, MOONCAKE))
        again = load_trace(write(tmp_path, "\n".join(dump_generic(trace)), "again"))
        assert evolve(again, name=trace.name) == trace

    def test_a_format_can_be_named(self, tmp_path: Path) -> None:
        """Then nothing is guessed."""
        assert load_trace(write(tmp_path, MOONCAKE), format="mooncake").block_size == 512

    @pytest.mark.parametrize("line", [MOONCAKE, GENERIC, *ARENA.split("\n")[1:]])
    def test_every_example_of_the_documentation_is_tested_here(self, line: str) -> None:
        """docs/trace-format.md shows the very lines that load above."""
        assert line in (Path(__file__).parents[2] / "docs" / "trace-format.md").read_text()


class TestRealTraces:
    """The public traces load completely."""

    @pytest.mark.parametrize(
        ("name", "rows", "clients", "block_size", "with_blocks"),
        [
            ("mooncake_conversation_trace.jsonl.gz", 12_031, 1, 512, 12_031),
            ("vtc_arena_real_trace.csv.gz", 1_500, 27, 16, 0),
            ("azure_llm_2023_conv.csv.gz", 19_366, 1, 16, 0),
            ("sharegpt300_llama31_8b_blocks16.jsonl.gz", 300, 1, 16, 300),
        ],
    )
    def test_counts(
        self, shared_trace: SharedTrace, name: str, rows: int, clients: int, block_size: int, with_blocks: int
    ) -> None:
        """All rows, their clients and their prefixes, without a correction."""
        trace = load_trace(shared_trace(name))
        assert len(trace.requests) == rows
        assert len({request.client for request in trace.requests}) == clients
        assert trace.block_size == block_size
        assert sum(bool(request.blocks) for request in trace.requests) == with_blocks
        assert trace.has_clients == (clients > 1)
        assert trace.notes == ()

    def test_mooncake_means_and_length(self, shared_trace: SharedTrace) -> None:
        """Mean lengths and the last of 59 minutes, as published with the trace."""
        requests = load_trace(shared_trace("mooncake_conversation_trace.jsonl.gz")).requests
        assert round(sum(request.input_tokens for request in requests) / len(requests)) == 12_035
        assert round(sum(request.output_tokens for request in requests) / len(requests)) == 343
        assert requests[-1].arrival_ns == 3_536_999 * 10**6

    def test_mooncake_ideal_hit_rate(self, shared_trace: SharedTrace) -> None:
        """36.6 % of blocks were seen before."""
        seen: set[int] = set()
        hits = total = 0
        for request in load_trace(shared_trace("mooncake_conversation_trace.jsonl.gz")).requests:
            total += len(request.blocks)
            hits += sum(block in seen for block in request.blocks)
            seen.update(request.blocks)
        assert hits / total == pytest.approx(0.366, abs=0.02)


class TestChanges:
    """A trace can be cut and stretched, and says so."""

    def test_limit_keeps_the_first_to_arrive(self, tmp_path: Path) -> None:
        """By time, not by place in the file; nothing to cut, nothing to note."""
        trace = limit(plain_trace([30, 10, 20]), 2)
        assert [request.arrival_ns for request in trace.requests] == [10, 20]
        assert trace.notes == ("first 2 of 3 requests",)
        assert limit(trace, 2) is trace
        path = write(tmp_path, f"{GENERIC}\n{GENERIC}")
        assert len(load_trace(path, limit=1).requests) == 1

    @pytest.mark.parametrize("n", [0, -1, True])
    def test_limit_is_at_least_one(self, n: int) -> None:
        """A trace without requests is of no use."""
        with pytest.raises(ConfigError, match=r"limit = .* is not valid: expected an integer >= 1"):
            limit(plain_trace([1]), n)

    def test_scale_time_multiplies_arrivals(self) -> None:
        """Exactly, rounded to whole nanoseconds; 0.1 means one tenth."""
        trace = scale_time(plain_trace([10, 25]), 0.1)
        assert [request.arrival_ns for request in trace.requests] == [1, 2]
        assert trace.notes == ("arrival times multiplied by 0.1",)
        assert [request.arrival_ns for request in scale_time(trace, Fraction(7, 2)).requests] == [4, 7]
        assert scale_time(trace, 1) is trace

    @pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf"), True])
    def test_scale_time_needs_a_factor_above_zero(self, factor: float) -> None:
        """Finite, too."""
        with pytest.raises(ConfigError, match=r"time scale = .* is not valid: expected a finite number > 0"):
            scale_time(plain_trace([1]), factor)
