"""However a sequence is cut into steps, pages and batches, the model says the same."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairprefix.gpu_ref_engine.batch import StepBatch
from fairprefix.gpu_ref_engine.runner import MOST_SAMPLED, ModelRunner
from fairprefix.gpu_ref_engine.sampling import SamplingParams
from tests.engine.steps import SMALL, Running, generate, small_runner, step

PROMPT = [int(one) for one in np.random.default_rng(1).integers(0, SMALL.vocabulary, 37)]


@pytest.fixture(scope="module")
def runner() -> ModelRunner:
    """Return a small random model."""
    return small_runner()


def whole(runner: ModelRunner, tokens: list[int]) -> torch.Tensor:
    """Return the logits after a prompt that is computed in one step, in pages that follow each other."""
    return runner.logits(step(runner, [(Running(tokens, range(16)), len(tokens))]))


@given(cuts=st.lists(st.integers(1, 36), max_size=5), order=st.permutations(range(10)))
def test_chunks_and_pages_do_not_matter(cuts: list[int], order: list[int]) -> None:
    """A prompt in chunks of any size, in pages of any order, gives the logits of the prompt in one piece."""
    runner = small_runner()
    expected = whole(runner, PROMPT)
    one = Running(list(PROMPT), [20 + page for page in order])
    found = expected.new_zeros(0)
    for begin, end in zip([0, *sorted(set(cuts))], [*sorted(set(cuts)), len(PROMPT)], strict=True):
        found = runner.logits(step(runner, [(one, end - begin)]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_cached_prefix_does_not_matter(runner: ModelRunner) -> None:
    """A sequence on the pages of another one's prefix continues exactly as if it had computed them."""
    first = Running(list(PROMPT), list(range(10)))
    generate(runner, [first], 1)
    other = [*PROMPT[:24], 5, 6, 7]
    alone = generate(small_runner(), [Running(list(other), list(range(30, 45)))], 12)
    shared = Running(list(other), [*range(6), *range(50, 60)], computed=24)
    assert generate(runner, [shared], 12) == alone


def test_the_batch_does_not_matter(runner: ModelRunner) -> None:
    """Sequences of different lengths say alone what they say together, greedily and with seeds."""
    prompts = [PROMPT[:length] for length in (1, 2, 9, 30, 37)]
    seeded = SamplingParams(temperature=0.9, seed=11, top_p=0.9)
    several = [SamplingParams(temperature=0), seeded, seeded, attrs.evolve(seeded, top_k=20), seeded]
    alone = []
    for prompt, params in zip(prompts, several, strict=True):
        alone += generate(runner, [Running(list(prompt), list(range(12)), params=params)], 10)
    together = [
        Running(list(prompt), list(range(12 * at, 12 * at + 12)), params=params)
        for at, (prompt, params) in enumerate(zip(prompts, several, strict=True))
    ]
    assert generate(runner, together, 10) == alone


def test_prefill_and_decode_mix(runner: ModelRunner) -> None:
    """Steps that decode some sequences while others are in the middle of their prompts change nobody's output."""
    expected = [generate(small_runner(), [Running(PROMPT[:length], list(range(20)))], 8)[0] for length in (7, 30)]
    early, late = Running(PROMPT[:7], list(range(10))), Running(PROMPT[:30], list(range(10, 25)))
    generate(runner, [early], 1)
    while len(early.tokens) < 7 + 8 or len(late.tokens) < 30 + 8:
        work = []
        if len(early.tokens) < 7 + 8:
            work.append((early, 1))
        if len(late.tokens) < 30 + 8:
            work.append((late, min(len(late.tokens) - late.computed, 11)))
        batch = step(runner, work)
        ready = [one for one, _ in work if one.computed == len(one.tokens)]
        for one, token in zip(ready, runner.launch(batch).wait().tokens.tolist(), strict=True):
            one.tokens.append(token)
    assert [early.tokens[7:], late.tokens[30:]] == expected


def test_a_step_takes_tokens_of_the_step_before(runner: ModelRunner) -> None:
    """A step launched before its input tokens are known finds them where `from_previous` says."""
    known = [Running(PROMPT[:5], list(range(4))), Running(PROMPT[5:12], list(range(4, 8)))]
    expected = generate(runner, known, 2)
    again = [Running(PROMPT[:5], list(range(4))), Running(PROMPT[5:12], list(range(4, 8)))]
    first = runner.launch(step(runner, [(one, one.prompt) for one in again]))
    for one in again:
        one.tokens.append(0)  # not known yet
    blind = step(runner, [(one, 1) for one in reversed(again)])
    second = runner.launch(attrs.evolve(blind, from_previous=np.array([1, 0]))).wait()
    assert [list(pair) for pair in zip(first.wait().tokens, second.tokens[::-1], strict=True)] == expected


def test_a_step_without_samples_gives_nothing(runner: ModelRunner) -> None:
    """A chunk that does not finish its prompt is computed, and samples no token."""
    result = runner.launch(step(runner, [(Running(list(PROMPT), list(range(10))), 8)])).wait()
    assert len(result.tokens) == 0
    assert result.logprobs == []


def test_logprobs_are_the_models(runner: ModelRunner) -> None:
    """Log-probabilities are those of the model, whatever the temperature; only for those who asked."""
    asking = SamplingParams(temperature=0.7, seed=3, logprobs=4)
    work = [(Running(PROMPT[:9], range(4), params=asking), 9), (Running(PROMPT[:9], range(4, 8)), 9)]
    batch = step(runner, work)
    result = runner.launch(batch).wait()
    expected = torch.log_softmax(runner.logits(batch)[0], -1)
    found = result.logprobs[0]
    assert found is not None
    assert result.logprobs[1] is None
    assert found.chosen == pytest.approx(float(expected[result.tokens[0]]), rel=1e-5)
    values, ids = expected.topk(4)
    assert [token for token, _ in found.top] == ids.tolist()
    assert [value for _, value in found.top] == pytest.approx(values.tolist(), rel=1e-5)


def test_too_many_samples_are_refused(runner: ModelRunner) -> None:
    """A step that samples more tokens than the runner keeps is refused, with both figures."""
    batch = step(runner, [(Running(PROMPT[:2], range(1)), 2)])
    crowded: StepBatch = attrs.evolve(batch, samples=list(batch.samples) * (MOST_SAMPLED + 1))
    with pytest.raises(ValueError, match="at most 4096 tokens, not 4097"):
        runner.launch(crowded)
