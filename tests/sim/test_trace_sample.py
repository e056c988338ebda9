"""Claims about the packaged sample: it is what the generator gives, and what its description says."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from fairprefix.sim.hardware import GPUS, MODELS, kv_capacity
from fairprefix.sim.trace import (
    generate_sample,
    load_sample,
)
from fairprefix.sim.trace.sample import sample_lines, write_sample

SharedTrace = Callable[[str], Path]


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
