"""Claims about traces: every format loads, every flaw is named, composition and the sample are what they say."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from attrs import evolve

from fairprefix.core.errors import ConfigError
from fairprefix.sim.hardware import GPUS, MODELS, kv_capacity
from fairprefix.sim.trace import (
    Trace,
    TraceError,
    TraceRequest,
    compose_clients,
    dump_generic,
    generate_sample,
    limit,
    load_sample,
    load_trace,
    scale_time,
)
from fairprefix.sim.trace.sample import sample_lines, write_sample

SharedTrace = Callable[[str], Path]

MOONCAKE = '{"timestamp": 1500, "input_length": 1100, "output_length": 7, "hash_ids": [3, 4, 9]}'
ARENA = "req_id,client,arrival_s,prompt_len,output_len\n0,13,0.5,20,30"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44"
GENERIC = (
    '{"arrival_s": 0.25, "client": "a", "input_tokens": 40, "output_tokens": 5, "max_output_tokens": 9, '
    '"block_size": 16, "hash_ids": [1, 2, 3]}'
)

NAMELESS = GENERIC.replace('"client": "a", ', "")


def write(folder: Path, text: str, name: str = "trace") -> Path:
    """Write a file, byte for byte."""
    path = folder / name
    path.write_bytes(text.encode())
    return path


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


class TestErrors:
    """Every error names file, line, field, value and what is expected."""

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (MOONCAKE.replace("1500", "-1"), "trace:1: timestamp = -1 is not valid: expected a finite number >="),
            (MOONCAKE.replace("1500", "NaN"), "trace:1: timestamp = nan is not valid: expected a finite number"),
            (MOONCAKE.replace("1500", "Infinity"), "trace:1: timestamp = inf is not valid: expected a finite"),
            (MOONCAKE.replace("1500", "1e999999999"), "trace:1: timestamp = 1E+999999999 is not valid"),
            (MOONCAKE.replace("1500", "true"), "trace:1: timestamp = True is not valid: expected a finite number"),
            (MOONCAKE.replace("1500", "[]"), "trace:1: timestamp = [] is not valid: expected a finite number"),
            (MOONCAKE.replace("1100", "-5"), "trace:1: input_length = -5 is not valid: expected an integer >= 0"),
            (MOONCAKE.replace("1100", "1.5"), "trace:1: input_length = 1.5 is not valid: expected an integer >="),
            (MOONCAKE.replace("1100", "true"), "trace:1: input_length = True is not valid: expected an integer"),
            (MOONCAKE.replace("timestamp", "time"), "trace:1: field 'timestamp' is missing; the row has time, "),
            (
                MOONCAKE.replace("[3, 4, 9]", "[3]"),
                "trace:1: hash_ids = [3] is not valid: expected 2 or 3 of them: the 1 hash_ids do not cover",
            ),
            (MOONCAKE.replace("9]", "9, 10]"), "the 4 hash_ids do not cover input_tokens (1100 tokens"),
            (MOONCAKE.replace("1100", "1024"), "expected 2 of them: the 3 hash_ids do not cover input_tokens"),
            (MOONCAKE.replace("4, 9", "3, 9"), "hash_ids = [3, 3, 9] is not valid: expected distinct values"),
            (MOONCAKE.replace("[3, 4, 9]", "7"), "trace:1: hash_ids = 7 is not valid: expected a list of"),
            (MOONCAKE.replace("4, 9", "4, true"), "hash_ids = [3, 4, True] is not valid: expected a list of"),
            (ARENA.replace("0.5", "soon"), "trace:2: arrival_s = 'soon' is not valid: expected a finite number"),
            (ARENA.replace("0.5", "nan"), "trace:2: arrival_s = 'nan' is not valid: expected a finite number >="),
            (ARENA.replace("0.5", "99999999999"), "trace:2: arrival_s = '99999999999' is not valid"),
            (ARENA.replace("20,30", "20,x"), "trace:2: output_len = 'x' is not valid: expected an integer >= 0"),
            (ARENA.replace("20,30", "-2,30"), "trace:2: prompt_len = '-2' is not valid: expected an integer >= 0"),
            (ARENA.replace(",13,", ", ,"), "trace:2: client = ' ' is not valid: expected a name"),
            (ARENA.replace("20,30", "20"), "trace:2: the row has 4 fields, expected 5 as in the header"),
            (ARENA.replace("prompt_len", "prompt"), "trace:1: column 'prompt_len' is missing; the header has"),
            (f"{ARENA}{'9' * 140_000}", "trace:2: is not valid CSV: field larger than field limit"),
            (ARENA.split("\n", maxsplit=1)[0], "trace: has no requests, only a header"),
            (AZURE.replace("2023-11-16 18", "today 18"), "trace:2: TIMESTAMP = 'today 18:15:46.6805900' is not"),
            (AZURE.replace("11-16", "13-16"), "TIMESTAMP = '2023-13-16 18:15:46.6805900' is not valid: expected"),
            (AZURE.replace("2023", "1923"), "TIMESTAMP = '1923-11-16 18:15:46.6805900' is not valid: expected a"),
            (AZURE.replace("44", "4.4"), "trace:2: GeneratedTokens = '4.4' is not valid: expected an integer >="),
            (f"{GENERIC}\n{{", "trace:2: is not valid JSON: Expecting property name"),
            ("{", "trace:1: is not valid JSON: Expecting property name"),
            (f"{GENERIC}\n{'[' * 100_000}", "trace:2: is not valid JSON: "),
            (f"{GENERIC}\n[1]", "trace:2: [1] is not valid: expected a JSON object"),
            (f"{GENERIC}\n{'[' + '1,' * 99 + '1]'}", ", 1, 1,... is not valid: expected a JSON object"),
            (GENERIC.replace("0.25", "-0.25"), "trace:1: arrival_s = -0.25 is not valid: expected a finite"),
            (GENERIC.replace('tokens": 40', 'tokens": 0'), "input_tokens = 0 is not valid: expected an integer"),
            (GENERIC.replace('"output_tokens": 5', '"output_tokens": 0'), "trace:1: output_tokens = 0 is not"),
            (GENERIC.replace("9,", "4,"), "max_output_tokens = 4 is not valid: expected an integer >="),
            (GENERIC.replace('"a"', '""'), "trace:1: client = '' is not valid: expected a name, as a non-empty"),
            (GENERIC.replace('"a"', "1"), "trace:1: client = 1 is not valid: expected a name, as a non-empty"),
            (GENERIC.replace("client", "clients"), "trace:1: field 'clients' is unknown (did you mean 'client'?)"),
            (GENERIC.replace('"arrival_s": 0.25, ', ""), "trace:1: field 'arrival_s' is missing; the row has"),
            (GENERIC.replace("{", '{"arrival_time_ns": 1, '), "arrival_time_ns = 1 is not valid: expected"),
            (GENERIC.replace('"block_size": 16, ', ""), "trace:1: field 'block_size' is missing; the row has "),
            (GENERIC.replace("16", "0"), "trace:1: block_size = 0 is not valid: expected an integer >= 1"),
            (f"{GENERIC}\n{GENERIC.replace('16', '20')}", "trace:2: block_size = 20 is not valid: expected 16"),
            (GENERIC.replace("[1, 2, 3]", "[1]"), "hash_ids do not cover input_tokens (40 tokens in blocks of"),
            (f"{GENERIC}\n{NAMELESS}",
             "trace:2: field 'client' is missing"),
            (f'{{"arrival_s": 1, "input_tokens": 1, "output_tokens": 1}}\n{GENERIC}',
             "trace:2: client = 'a' is not valid: expected no such field, as in the rows before"),
            ("time;who;what\n1;2;3", "trace:1: the format is unknown: expected one of generic, mooncake, "),
            ('{"prompt": "hello"}', "trace:1: the format is unknown: expected one of generic, mooncake, "),
            ("", "trace: the file is empty"),
            (" \n\n", "trace: the file is empty"),
        ],
    )  # fmt: skip
    def test_a_flaw_in_the_content_is_named(self, tmp_path: Path, text: str, message: str) -> None:
        """One line per flaw: what the file says, and what the message has to contain."""
        path = write(tmp_path, text)
        with pytest.raises(TraceError) as raised:
            load_trace(path)
        assert message in str(raised.value)
        assert str(path) in str(raised.value)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        """It is named."""
        with pytest.raises(TraceError, match=r"gone.csv: no such file"):
            load_trace(tmp_path / "gone.csv")

    def test_a_directory(self, tmp_path: Path) -> None:
        """It is told from a file that is missing."""
        with pytest.raises(TraceError, match=r"is a directory, expected a file"):
            load_trace(tmp_path)

    def test_a_path_that_is_no_path(self, tmp_path: Path) -> None:
        """Whatever else the operating system says is passed on."""
        with pytest.raises(TraceError, match=r"cannot be read"):
            load_trace(write(tmp_path, GENERIC) / "below")

    def test_text_that_is_not_utf8(self, tmp_path: Path) -> None:
        """The line is found although the text cannot be decoded."""
        path = tmp_path / "trace"
        path.write_bytes(f"{GENERIC}\n".encode() + b'{"client": "\xff"}')
        with pytest.raises(TraceError, match=r"trace:2: byte 0xff is not valid: expected text in UTF-8"):
            load_trace(path)

    def test_gz_that_is_not_gzip(self, tmp_path: Path) -> None:
        """The name promises what the content does not keep."""
        with pytest.raises(TraceError, match=r"t.gz: the name ends in .gz but the content is not gzip"):
            load_trace(write(tmp_path, GENERIC, "t.gz"))

    def test_gzip_that_is_cut_short(self, tmp_path: Path) -> None:
        """As after a download that broke off."""
        path = tmp_path / "t.gz"
        path.write_bytes(gzip.compress(GENERIC.encode())[:-9])
        with pytest.raises(TraceError, match=r"t.gz: the gzip data is damaged or cut short"):
            load_trace(path)

    def test_an_unknown_format_suggests_the_nearest(self, tmp_path: Path) -> None:
        """A slip of the pen is answered with the name that was meant."""
        with pytest.raises(TraceError, match=r"format = 'mooncaek' is not valid: .*did you mean 'mooncake'"):
            load_trace(write(tmp_path, MOONCAKE), format="mooncaek")

    def test_a_request_that_no_engine_can_replay(self) -> None:
        """A request that is built by hand is checked as well."""
        for arrival, inputs, outputs, most in ((-1, 1, 1, 1), (0, 0, 1, 1), (0, 1, 0, 1), (0, 1, 2, 1)):
            with pytest.raises(ConfigError, match=r"is not valid: expected an integer >="):
                TraceRequest(arrival, "a", inputs, outputs, most)


def plain_trace(arrivals: list[int], *, has_clients: bool = False) -> Trace:
    """Return a trace without blocks, with these arrivals."""
    requests = [TraceRequest(arrival, "a", 1, 1) for arrival in arrivals]
    return Trace("plain", requests, 16, has_clients=has_clients)


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


def sessions_trace() -> Trace:
    """Return 3000 requests of 1000 sessions, one to five each, that share their first block."""
    requests = [
        TraceRequest(1000 * turn + session, "a", 48, 1, blocks=(0, 1 + session, 10_000 + 10 * session + turn))
        for session in range(1000)
        for turn in range(1 + session % 5)
    ]
    return Trace("sessions", requests, 16, has_clients=False)


class TestComposition:
    """Composed clients keep sessions whole, meet their shares, and are a function of the seed."""

    @pytest.mark.parametrize("clients", [2, 5, 20])
    def test_the_heavy_client_sends_half_and_the_others_share_the_rest_evenly(self, clients: int) -> None:
        """Within one percent of all requests."""
        trace = compose_clients(sessions_trace(), clients, seed=0)
        sent = Counter(request.client for request in trace.requests)
        assert sent["c0"] / 3000 == pytest.approx(0.5, abs=0.01)
        for number in range(1, clients):
            assert sent[f"c{number}"] / 3000 == pytest.approx(0.5 / (clients - 1), abs=0.01)

    def test_sessions_stay_whole(self) -> None:
        """A conversation has one owner, whatever its length."""
        owners: dict[int, set[str]] = {}
        for request in compose_clients(sessions_trace(), 7, seed=3).requests:
            owners.setdefault(request.blocks[1], set()).add(request.client)
        assert all(len(clients) == 1 for clients in owners.values())

    def test_requests_change_in_nothing_but_the_client(self) -> None:
        """Arrivals, lengths and blocks are the recorded ones."""
        before, after = sessions_trace(), compose_clients(sessions_trace(), 3, seed=0)
        assert [evolve(request, client="a") for request in after.requests] == list(before.requests)
        assert after.has_clients

    def test_a_note_states_method_and_seed(self) -> None:
        """Whoever sees the result sees that its clients are composed."""
        (note,) = compose_clients(sessions_trace(), 4, seed=17).notes
        for part in ("composed, not recorded", "1000 sessions", "4 clients", "seed 17", "of 3000 requests"):
            assert part in note

    def test_another_seed_gives_another_assignment(self) -> None:
        """And the same seed the same one."""
        first, again, other = (compose_clients(sessions_trace(), 4, seed=seed).requests for seed in (0, 0, 1))
        assert first == again
        assert first != other

    def test_no_heavy_share_means_equal_shares(self) -> None:
        """None has nobody send more than others."""
        sent = Counter(request.client for request in compose_clients(sessions_trace(), 4, 0, None).requests)
        assert all(count / 3000 == pytest.approx(0.25, abs=0.01) for count in sent.values())

    def test_one_client_sends_everything(self) -> None:
        """There is nobody to share with."""
        assert {request.client for request in compose_clients(sessions_trace(), 1, 0).requests} == {"c0"}

    def test_requests_without_blocks_are_sessions_of_their_own(self) -> None:
        """So any share can be met exactly."""
        trace = compose_clients(plain_trace(list(range(100))), 2, 0, Fraction(3, 4))
        assert sum(request.client == "c0" for request in trace.requests) == 75

    def test_the_assignment_does_not_depend_on_the_process(self) -> None:
        """Two interpreters with different hash seeds agree."""
        script = (
            "from fairprefix.sim.trace import compose_clients, generate_sample; from attrs import evolve;"
            "trace = compose_clients(evolve(generate_sample(), has_clients=False), 5, 1);"
            "print(''.join(request.client for request in trace.requests))"
        )
        outputs = [
            subprocess.run(  # noqa: S603  # our own interpreter, our own script
                [sys.executable, "-c", script],
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed in ("1", "2")
        ]
        assert outputs[0] == outputs[1]
        assert len(outputs[0]) > 1000

    def test_mooncake_composes_within_one_percent(self, shared_trace: SharedTrace) -> None:
        """Real sessions are small enough for the shares to be met."""
        trace = load_trace(shared_trace("mooncake_conversation_trace.jsonl.gz"))
        sent = Counter(request.client for request in compose_clients(trace, 10, seed=0).requests)
        assert sent["c0"] / 12_031 == pytest.approx(0.5, abs=0.01)
        assert len(sent) == 10

    @pytest.mark.parametrize(
        ("clients", "seed", "share", "message"),
        [
            (0, 0, None, "clients = 0 is not valid: expected an integer >= 1"),
            (2, -1, None, "seed = -1 is not valid: expected an integer >= 0"),
            (2, 0, Fraction(1), "heavy_share = .* is not valid: expected a fraction between 0 and 1"),
            (2, 0, Fraction(0), "heavy_share = .* is not valid: expected a fraction between 0 and 1"),
        ],
    )
    def test_arguments_are_checked(self, clients: int, seed: int, share: Fraction | None, message: str) -> None:
        """Each message names the argument and its range."""
        with pytest.raises(ConfigError, match=message):
            compose_clients(plain_trace([1]), clients, seed, share)

    def test_recorded_clients_are_never_replaced(self) -> None:
        """Composing would hide who really asked."""
        with pytest.raises(ConfigError, match=r"'plain' has clients already"):
            compose_clients(plain_trace([1], has_clients=True), 2, 0)


class TestSample:
    """The packaged sample is what its generator gives, and overloads one A10G as described."""

    def test_the_packaged_file_is_what_the_generator_gives(self) -> None:
        """Regenerate it with write_sample after a change of the generator."""
        assert load_sample() == generate_sample(seed=0)

    def test_the_file_is_written_the_same_every_time(self, tmp_path: Path) -> None:
        """The same bytes, below 150 kB; packed as the sample lines say."""
        for name in ("a", "b"):
            write_sample(tmp_path / name)
        written = (tmp_path / "a").read_bytes()
        assert written == (tmp_path / "b").read_bytes()
        assert len(written) < 150_000
        assert gzip.decompress(written).decode().splitlines() == sample_lines()

    def test_another_seed_gives_another_trace(self) -> None:
        """And the same seed the same one."""
        assert generate_sample(1) == generate_sample(1) != generate_sample(0)

    def test_the_flood_sends_most_requests_and_all_arrive_within_two_minutes(self) -> None:
        """640 requests of three clients."""
        requests = load_sample().requests
        sent = Counter(request.client for request in requests)
        assert set(sent) == {"flood", "chat", "agent"}
        assert 550 <= len(requests) <= 700
        assert 0.60 <= sent["flood"] / len(requests) <= 0.65
        assert requests[-1].arrival_ns < 120 * 10**9

    def test_lengths_are_those_of_the_description(self) -> None:
        """Long prompts and short answers, the reverse, and a system prompt in common."""
        of = {
            client: [request for request in load_sample().requests if request.client == client]
            for client in ("flood", "chat", "agent")
        }
        assert all(
            3_000 < request.input_tokens < 8_200 and request.output_tokens <= 150 for request in of["flood"]
        )
        assert all(
            200 <= request.input_tokens < 2_200 and 80 <= request.output_tokens <= 250 for request in of["chat"]
        )
        assert all(request.input_tokens > 2_048 and 50 <= request.output_tokens <= 200 for request in of["agent"])

    def test_every_prompt_lists_all_its_full_blocks(self) -> None:
        """So that every token that can be cached is known."""
        assert all(len(request.blocks) == request.input_tokens // 16 for request in load_sample().requests)

    def test_a_block_always_follows_the_same_block(self) -> None:
        """The hashes are cumulative."""
        before: dict[int, int] = {}
        for request in load_sample().requests:
            for parent, block in zip((0, *request.blocks), request.blocks, strict=False):
                assert before.setdefault(block, parent) == parent

    def test_the_distinct_prompts_are_many_times_the_cache(self) -> None:
        """No cache holds all documents at once."""
        distinct = {block for request in load_sample().requests for block in request.blocks}
        assert len(distinct) * 16 > 8 * kv_capacity(MODELS["llama-3.1-8b"], GPUS["a10g"])

    @pytest.mark.parametrize(("client", "least"), [("flood", 300_000), ("chat", 80_000), ("agent", 80_000)])
    def test_demand_even_with_an_endless_cache(self, client: str, least: int) -> None:
        """Everybody has much to do: extend plus twice the output tokens."""
        seen: set[int] = set()
        demand = 0
        for request in load_sample().requests:
            if request.client == client:
                fresh = [block for block in request.blocks if block not in seen]
                seen.update(fresh)
                demand += 16 * len(fresh) + request.input_tokens % 16 + 2 * request.output_tokens
        assert demand > least
