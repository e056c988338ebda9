"""Decode steps on fixed memory: padded, replayed, and the same as ever; a stand-in replays without a GPU."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor

from fairprefix.gpu_ref_engine.attention.choose import make_attention
from fairprefix.gpu_ref_engine.graphs import DecodeGraphs, Replay
from fairprefix.gpu_ref_engine.runner import ModelRunner
from tests.engine.steps import Running, generate, small_runner, step

LENGTHS = (3, 8, 15, 4, 21)


class Recorder:
    """Records as CUDA does, on a CPU: what is replayed reads and writes the memory of the recording."""

    def __init__(self) -> None:
        self.replays = 0

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
        """Return what repeats the work."""
        result = work()

        def replay() -> None:
            self.replays += 1
            result.copy_(work())

        return replay, result


def captured(sizes: tuple[int, ...]) -> tuple[ModelRunner, Recorder]:
    """Return a runner whose decode steps are recorded."""
    runner, recorder = small_runner(backend="triton"), Recorder()
    _, fixed = make_attention("triton", runner.model.memory)
    assert fixed is not None
    with torch.inference_mode():
        runner.graphs = DecodeGraphs(runner.model, fixed, runner.previous, record=recorder, sizes=sizes)
    return runner, recorder


def sequences(count: int = len(LENGTHS)) -> list[Running]:
    """Return some sequences with random prompts, each with pages of its own."""
    draws = np.random.default_rng(5)
    return [
        Running([int(token) for token in draws.integers(0, 97, length)], list(range(10 * at, 10 * at + 10)))
        for at, length in enumerate(LENGTHS[:count])
    ]


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_replayed_steps_say_the_same(count: int) -> None:
    """Batches of every size up to the largest captured are padded and replayed, with the output as without."""
    expected = generate(small_runner(), sequences(count), 6)
    runner, recorder = captured((2, 4, 5))
    assert generate(runner, sequences(count), 6) == expected
    assert recorder.replays == 5  # the first step computes the prompts


def test_padding_touches_nothing() -> None:
    """What is stored for padding goes to the spare page, and to none that a sequence may own."""
    runner, _ = captured((8,))
    running = sequences(3)
    generate(runner, running, 1)
    memory = runner.model.memory
    own = [int(page) for one in running for page in one.pages]
    others = [page for page in range(memory.pages) if page not in own]
    runner.launch(step(runner, [(one, 1) for one in running])).wait()
    assert memory.keys[:, memory.spare].any()
    assert not memory.keys[:, others].any()


def test_replayed_steps_follow_each_other_blindly() -> None:
    """A replayed step takes its tokens from the step before, as any other does."""
    expected = generate(small_runner(), sequences(3), 3)
    runner, recorder = captured((4,))
    running = sequences(3)
    results = [runner.launch(step(runner, [(one, one.prompt) for one in running]))]
    for _ in range(2):
        for one in running:
            one.tokens.append(0)  # not known yet
        blind = attrs.evolve(step(runner, [(one, 1) for one in running]), from_previous=np.arange(3))
        results.append(runner.launch(blind))
        result = results[-1].wait()
        assert len(result.tokens) == 3
    assert [list(row) for row in np.stack([one.wait().tokens for one in results], 1)] == expected
    assert recorder.replays == 2


def test_what_was_not_captured_is_computed() -> None:
    """Batches that are too large, mixed, or in another order run as if there were no graphs."""
    runner, recorder = captured((2,))
    running = sequences(3)
    expected = generate(small_runner(), sequences(3), 3)
    assert generate(runner, running, 3) == expected
    batch = step(runner, [(one, 1) for one in running[:2]])
    turned = attrs.evolve(batch, sample_at=batch.sample_at[::-1].copy())
    tokens = runner.launch(turned).wait().tokens
    assert recorder.replays == 0
    assert tokens.tolist() == runner.launch(batch).wait().tokens.tolist()[::-1]
    assert recorder.replays == 1
