"""Claims about damaged traces: every flaw is named, with its file, line, field and value."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from fairprefix.core.errors import ConfigError
from fairprefix.sim.trace import (
    TraceError,
    TraceRequest,
    load_trace,
)
from tests.sim.trace_texts import ARENA, AZURE, GENERIC, MOONCAKE, NAMELESS, write

SharedTrace = Callable[[str], Path]


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
