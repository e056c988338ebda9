"""What the scheduler and the model say to each other, once a step: flat arrays, one row per running sequence.

The scheduler builds a `StepBatch` and hands it to a `Runner`, which launches it and returns at once where the
device works by itself; `Launched.wait` gives the sampled tokens. Between the two the scheduler may build and
launch the next step, whose input tokens it does not know yet: `from_previous` says where to find them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from fairprefix.gpu_ref_engine.sampling import SamplingParams

Ints = NDArray[np.int64]


@frozen(eq=False, kw_only=True)
class Sample:
    """One next token to choose."""

    params: SamplingParams
    produced: int
    """Output tokens of the request before this one: with `params.seed` it fixes the random draw."""


@frozen(eq=False, kw_only=True)
class StepBatch:
    """One step: T tokens of B sequences, of which S get a next token; prefill and decode are mixed freely."""

    tokens: Ints
    """[T] token ids, sequence after sequence."""
    positions: Ints
    """[T] position of each token in its sequence."""
    slots: Ints
    """[T] where its key and value go: page * page_size + offset."""
    query_lens: Ints
    """[B] how many of the T tokens belong to each sequence."""
    context_lens: Ints
    """[B] keys of each sequence, those of this step included."""
    page_table: NDArray[np.int32]
    """[B, P] the pages of each sequence, first page first, padded with 0."""
    sample_at: Ints
    """[S] indices into T: the tokens after which a next one is sampled."""
    samples: Sequence[Sample]
    """[S] how."""
    from_previous: Ints | None = None
    """[T] index into the S of the step launched before, whose token is the input here; -1: `tokens` has it."""


@frozen(eq=False, kw_only=True)
class TopLogprobs:
    """Log-probabilities at one position."""

    chosen: float
    top: tuple[tuple[int, float], ...]
    """Token id and log-probability of the likeliest tokens, best first."""


@frozen(eq=False, kw_only=True)
class StepResult:
    """What a step gave."""

    tokens: Ints
    """[S] token ids."""
    logprobs: Sequence[TopLogprobs | None]
    """[S] None where the request did not ask."""


class Launched(Protocol):
    """A step under way."""

    def wait(self) -> StepResult:
        """Return the result, as soon as the device has it."""
        ...


class Runner(Protocol):
    """A model on a device, with KV memory of `pages` pages of `page_size` tokens."""

    page_size: int
    pages: int
    vocabulary: int
    longest: int
    """The longest sequence that the model takes, in tokens."""

    def launch(self, batch: StepBatch) -> Launched:
        """Start a step; steps are carried out in the order in which they are launched."""
        ...
