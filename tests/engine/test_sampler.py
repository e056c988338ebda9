"""Sampling: the distribution that was asked for, and with a seed always the same draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairprefix.gpu_ref_engine.batch import Sample
from fairprefix.gpu_ref_engine.draws import uniforms
from fairprefix.gpu_ref_engine.sampler import SamplingPlan, choose
from fairprefix.gpu_ref_engine.sampling import SamplingParams

DRAWS = 20_000
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -3.0, 1.5])


def sampled(logits: torch.Tensor, params: list[SamplingParams], *, seed: int = 0) -> list[int]:
    """Return a token for each row."""
    samples = [Sample(params=one, produced=at) for at, one in enumerate(params)]
    return choose(logits, SamplingPlan.of(samples, np.random.default_rng(seed))).tolist()


def frequencies(params: SamplingParams) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return how often each token is drawn."""
    drawn = sampled(LOGITS.expand(DRAWS, -1), [params] * DRAWS)
    return np.bincount(drawn, minlength=len(LOGITS)) / DRAWS


def wanted(params: SamplingParams) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the distribution by definition: temperature, the k likeliest, then the least set that makes p."""
    shares = torch.softmax(LOGITS.double() / params.temperature, 0).numpy()
    order = np.argsort(-shares)
    if params.top_k:
        shares[order[params.top_k :]] = 0
        shares /= shares.sum()
    needed = int(np.searchsorted(np.cumsum(shares[order]), params.top_p - 1e-12)) + 1
    shares[order[needed:]] = 0
    return np.asarray(shares / shares.sum())


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.4),
        SamplingParams(temperature=2),
        SamplingParams(top_k=3),
        SamplingParams(top_p=0.6),
        SamplingParams(top_k=4, top_p=0.7, temperature=1.5),
        SamplingParams(top_k=1),
        SamplingParams(top_p=1e-6),
        SamplingParams(top_k=100, top_p=0.95),
    ],
)
def test_tokens_are_drawn_as_asked(params: SamplingParams) -> None:
    """Over 20 000 draws the frequencies are those of the definition, within five standard deviations."""
    expected = wanted(params)
    error = np.abs(frequencies(params) - expected)
    assert (error <= 5 * np.sqrt(expected * (1 - expected) / DRAWS) + 1e-9).all()


def test_draws_with_seeds_are_spread_evenly() -> None:
    """One seed's draws follow the distribution too, and so do the first draws of consecutive seeds."""
    many = [Sample(params=SamplingParams(seed=5), produced=at) for at in range(DRAWS)]
    others = [Sample(params=SamplingParams(seed=at), produced=0) for at in range(DRAWS)]
    for samples in (many, others):
        drawn = uniforms(samples, np.random.default_rng(0))
        assert drawn.min() >= 0
        assert drawn.max() < 1
        counts = np.histogram(drawn, 20, (0, 1))[0]
        assert ((counts - DRAWS / 20) ** 2 / (DRAWS / 20)).sum() < 44  # chi-square with 19 degrees, p = 0.001


def test_each_row_gets_its_own() -> None:
    """Rows of one step with different parameters do not disturb each other."""
    params = [
        SamplingParams(temperature=0),
        SamplingParams(seed=1),
        SamplingParams(seed=2, top_k=2),
        SamplingParams(seed=3, top_p=0.5, temperature=0.7),
        SamplingParams(temperature=0, top_k=5),
    ]
    logits = torch.randn((5, 500), generator=torch.Generator().manual_seed(0))
    together = sampled(logits, params)
    samples = [Sample(params=one, produced=at) for at, one in enumerate(params)]
    alone = [
        int(choose(logits[at : at + 1], SamplingPlan.of([one], np.random.default_rng(9)))[0])
        for at, one in enumerate(samples)
    ]
    assert together == alone
    assert together[0] == int(logits[0].argmax())
    assert together[2] in logits[2].topk(2).indices.tolist()


@given(uniform=st.floats(0, 1, exclude_max=True, width=32), size=st.integers(2, 3000), seed=st.integers(0, 99))
def test_no_draw_leaves_the_distribution(uniform: float, size: int, seed: int) -> None:
    """Whatever the random number, up to the last one below 1, the token is one that has a probability."""
    logits = torch.randn((1, size), generator=torch.Generator().manual_seed(seed)) * 5
    logits[0, size // 2 :] = float("-inf")
    for params in (SamplingParams(), SamplingParams(top_p=0.999), SamplingParams(top_k=size)):
        plan = SamplingPlan.of([Sample(params=params, produced=0)], np.random.default_rng(0))
        plan.uniform[:] = uniform
        assert int(choose(logits, plan)[0]) < max(size // 2, 1)


@pytest.mark.parametrize("size", [700, 1280, 2500])
def test_the_last_number_below_one_is_no_exception(size: int) -> None:
    """The largest random number, where sums round either way, still draws a token that has a probability."""
    for seed in range(20):
        logits = torch.randn((1, size), generator=torch.Generator().manual_seed(seed)) * 3
        logits[0, size // 2 :] = float("-inf")
        for params in (SamplingParams(), SamplingParams(top_p=0.999)):
            plan = SamplingPlan.of([Sample(params=params, produced=0)], np.random.default_rng(0))
            plan.uniform[:] = 1 - 2**-24
            assert int(choose(logits, plan)[0]) < size // 2


def test_a_wide_vocabulary_is_cut_right() -> None:
    """Top-p over a vocabulary that is too wide for a partial sort keeps the same tokens as the definition."""
    logits = torch.randn((1, 5000), generator=torch.Generator().manual_seed(1)) * 4
    shares, order = torch.softmax(logits[0].double(), 0).sort(descending=True)
    kept = set(order[: int((shares.cumsum(0) < 0.5).sum()) + 1].tolist())
    drawn = {token for seed in range(300) for token in sampled(logits, [SamplingParams(top_p=0.5)], seed=seed)}
    assert drawn <= kept
    assert len(drawn) > len(kept) // 4


@pytest.mark.parametrize("vocabulary", [7, 49152])
def test_a_step_of_prefill_alone_samples_nothing(vocabulary: int) -> None:
    """A step in which no prompt ends has no row, whatever the width of the vocabulary."""
    assert sampled(torch.empty(0, vocabulary), []) == []
