"""Whose hash is whose: block sizes that differ, adapters, salts, copies, memory tiers, hybrid models."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairprefix.gateway.kv_events.blocks import BlockMap
from fairprefix.gateway.kv_events.chain import names_of
from fairprefix.gateway.kv_events.wire import Removed, Stored, WireError, decode
from tests.gateway.kv_publisher import encode, removed, stored

PROMPT = list(range(48))


def known(*events: dict[str, Any], block_size: int = 4) -> set[bytes]:
    """Return what a worker has cached after some events, as the wire carries them."""
    blocks = BlockMap(block_size, 1000)
    held: set[bytes] = set()
    for event in decode(encode(list(events), "map")).events:
        if isinstance(event, Stored):
            fresh = blocks.stored(event)
            assert not held & set(fresh)
            held |= set(fresh)
        elif isinstance(event, Removed):
            held -= set(blocks.removed(event))
    return held


def ids(size: int, tokens: int = len(PROMPT)) -> list[int]:
    """Return made-up hashes of a prompt's blocks."""
    return [1000 * size + number for number in range(tokens // size)]


@pytest.mark.parametrize("engine", [1, 2, 3, 4, 8, 16, 48])
@pytest.mark.parametrize("ours", [1, 4, 6, 16, 48])
def test_block_sizes_may_differ(engine: int, ours: int) -> None:
    """Whatever the engine's block size, its events name the blocks of ours that the prompt has."""
    whole = stored(ids(engine), PROMPT)
    assert known(whole, block_size=ours) == set(names_of(PROMPT, ours))
    one_by_one = [
        stored(
            [id],
            PROMPT[number * engine : (number + 1) * engine],
            parent=ids(engine)[number - 1] if number else None,
        )
        for number, id in enumerate(ids(engine))
    ]
    assert known(*one_by_one, block_size=ours) == set(names_of(PROMPT, ours))


@given(st.integers(0, 12), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8, 16]))
def test_an_evicted_end_takes_its_blocks_along(kept: int, engine: int, ours: int) -> None:
    """After the end of a prompt is evicted, what is cached is what a prompt of the remaining length has."""
    all_ids = ids(engine)
    gone = [removed([id]) for id in reversed(all_ids[kept:])]
    left = PROMPT[: min(kept, len(all_ids)) * engine]
    assert known(stored(all_ids, PROMPT), *gone, block_size=ours) == set(names_of(left, ours))


def test_a_block_without_its_beginning_is_not_believed() -> None:
    """Without the block before it nobody can say what prompt it belongs to."""
    assert known(stored([5], PROMPT[:4], parent=4)) == set()


def test_an_adapter_has_blocks_of_its_own() -> None:
    """Blocks of a LoRA adapter are found by prompts for that adapter alone, in both ways of naming it."""
    keys = [["poet"]] * 12
    for more in ({"lora_name": "poet", "extra_keys": keys}, {"lora_name": "poet"}):
        assert known(stored(ids(4), PROMPT, **more)) == set(names_of(PROMPT, 4, adapter="poet"))
    assert known(stored(ids(4), PROMPT) | {"lora_id": 3}) == set(names_of(PROMPT, 4, adapter="#3"))


def test_a_salt_separates_prompts() -> None:
    """With vLLM, which names the salt in the first block and salts all hashes, only that salt matches."""
    event = stored(ids(4), PROMPT, extra_keys=[["salt"], *[None] * 11])
    assert known(event) == set(names_of(PROMPT, 4, salt="salt"))
    assert not known(event) & set(names_of(PROMPT, 4))


def test_images_separate_prompts_from_there_on() -> None:
    """What comes before an image is shared with prompts without it, what comes after is not."""
    event = stored(ids(4), PROMPT, extra_keys=[None, None, [["img", 3]], *[None] * 9])
    assert known(event) & set(names_of(PROMPT, 4)) == set(names_of(PROMPT, 4)[:2])
    assert len(known(event)) == 12


def test_salted_blocks_of_sglang_are_not_believed() -> None:
    """Their hashes are those of the prompt without the salt: whose they are cannot be told."""
    assert known(stored(ids(4), PROMPT, cache_salt="s")) == set()


def test_one_removal_counts_for_all_reports() -> None:
    """A block that was reported twice is gone after one removal: too little is known, never something wrong."""
    event = stored(ids(4), PROMPT)
    assert known(event, event, removed([ids(4)[-1]])) == set(names_of(PROMPT[:-4], 4))


def test_slower_memory_does_not_count() -> None:
    """Blocks in the host's memory are not cached on the device, and leaving it takes nothing away."""
    assert known(stored(ids(4), PROMPT) | {"medium": "CPU_PINNED"}) == set()
    assert known(stored(ids(4), PROMPT), removed(ids(4)) | {"medium": "CPU"}) == set(names_of(PROMPT, 4))


def test_one_cache_of_a_hybrid_model_counts() -> None:
    """The first one reported, or the first of full attention; the others' removals are theirs."""
    both = [stored(ids(4), PROMPT, group_idx=group) for group in (0, 1)]
    assert known(*both, removed(ids(4), group_idx=1)) == set(names_of(PROMPT, 4))
    assert known(*both, removed(ids(4), group_idx=0)) == set()
    window = stored(ids(4), PROMPT, group_idx=0, kv_cache_spec_kind="sliding_window")
    full = stored(ids(4), PROMPT, group_idx=1, kv_cache_spec_kind="full_attention")
    assert known(window, full, removed(ids(4), group_idx=0)) == set(names_of(PROMPT, 4))


def test_hashes_may_be_bytes() -> None:
    """With that setting vLLM publishes whole SHA-256 hashes."""
    event = stored(ids(4), PROMPT) | {"block_hashes": [bytes([number]) * 32 for number in range(12)]}
    assert known(event, removed([]) | {"block_hashes": [bytes([11]) * 32]}) == set(names_of(PROMPT[:-4], 4))


@pytest.mark.parametrize(
    "odd",
    [
        stored(ids(4), PROMPT) | {"token_ids": [[a, a + 1] for a in PROMPT]},
        stored(ids(4), PROMPT) | {"token_ids": PROMPT[1:]},
        stored(ids(4), PROMPT) | {"token_ids": [-1, *PROMPT[1:]]},
        stored(ids(4), PROMPT) | {"token_ids": [1 << 32, *PROMPT[1:]]},
        stored(ids(4), PROMPT) | {"block_size": "4"},
        stored(ids(4), PROMPT) | {"parent_block_hash": 1.5},
        {"type": "BlockMoved", "block_hashes": [1]},
    ],
)
def test_what_is_not_understood_is_not_believed(odd: dict[str, Any]) -> None:
    """An odd event is counted, and the others of its batch are taken in."""
    batch = decode(encode([odd, stored([5], PROMPT[:4])], "map"))
    assert (len(batch.events), batch.unknown) == (1, 1)


@pytest.mark.parametrize(
    "odd",
    [
        None,
        7,
        [1.5],
        [1.5, None],
        [1.5, [7]],
        [1.5, [[]]],
        [1.5, [{"type": "BlockRemoved", "block_hashes": 5}]],
        [1.5, [{"type": "BlockRemoved", "block_hashes": [None]}]],
        [1.5, [{"type": "BlockStored"}]],
    ],
)
def test_a_damaged_batch_is_refused_as_a_whole(odd: Any) -> None:  # noqa: ANN401
    """A removal may hide in it."""
    with pytest.raises(WireError):
        decode(msgspec.msgpack.encode(odd))


@given(st.binary(max_size=200))
def test_no_bytes_make_trouble(payload: bytes) -> None:
    """Whatever comes over the wire, decoding ends in a batch or in an error of its own."""
    try:
        decode(payload)
    except WireError:
        return
