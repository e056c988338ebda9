"""Random numbers by counter: a request's draws depend on its seed and its place, not on what runs beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fairprefix.gpu_ref_engine.batch import Sample

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_MASK = (1 << 64) - 1


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's output function (Steele et al., Fast splittable pseudorandom number generators)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))


def uniforms(samples: Sequence[Sample], fallback: np.random.Generator) -> NDArray[np.float32]:
    """Return a number in [0, 1) per sample: a function of (seed, produced), or from `fallback` without a seed."""
    drawn = fallback.random(len(samples), np.float32)
    seeded = [at for at, sample in enumerate(samples) if sample.params.seed is not None]
    if seeded:
        seeds = np.array([(samples[at].params.seed or 0) & _MASK for at in seeded], np.uint64)
        places = np.array([samples[at].produced + 1 for at in seeded], np.uint64)
        bits = _mixed(_mixed(seeds + _INCREMENT) + places * _INCREMENT)
        drawn[seeded] = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    return drawn
