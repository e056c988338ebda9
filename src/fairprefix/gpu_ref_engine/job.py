"""One request on its way through the engine, and what its owner hears of it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from fairprefix.core.prefixes import chain_hashes
from fairprefix.core.request import BlockHash, Client, Request
from fairprefix.gpu_ref_engine.batch import Sample, TopLogprobs
from fairprefix.gpu_ref_engine.kvcache import TOKEN_BYTES, Holding
from fairprefix.gpu_ref_engine.sampling import SamplingParams
from fairprefix.gpu_ref_engine.stop import StopWatch


class Finish(Enum):
    """Why a request is over; the values are OpenAI's where it has one."""

    STOP = "stop"
    """The model ended its answer, or a stop string or stop token came."""
    LENGTH = "length"
    """It has produced `max_tokens`."""
    ABORT = "abort"
    """Its owner gave it up."""
    ERROR = "error"
    """The engine could not go on with it."""


@define(eq=False, kw_only=True)  # not frozen: one is made for every token
class Output:
    """What one step gave one request."""

    id: str
    tokens: Sequence[int]
    """New output tokens; the one that ended the answer is among them."""
    logprobs: Sequence[TopLogprobs | None] = ()
    """One for each token, where the request asked."""
    finish: Finish | None = None
    """Not None in the last output of a request."""
    cached_tokens: int = 0
    """How many tokens of its prompt were found in the cache when it was first admitted."""


@define(eq=False, repr=False)
class Job:
    """A request and where it stands. `context` and `pending` run ahead of what the device has finished."""

    request: Request
    params: SamplingParams
    tokens: list[int]
    """Prompt, and the output so far."""
    data: bytes
    """The prompt as 32-bit integers."""
    stop: StopWatch | None = None
    arrived_ns: int = 0
    chain: Sequence[BlockHash] = ()
    """Hashes of the prompt's full pages."""
    holding: Holding | None = None
    """Its pages while it runs."""
    row: int = -1
    """Its row in the tables of the batch while it runs."""
    context: int = 0
    """Tokens whose keys and values are in memory once the launched steps are done."""
    pending: int = 0
    """Sampled tokens of launched steps that are not known yet: at most 2, while a step is launched ahead."""
    admissions: int = 0
    cached_tokens: int = 0
    admitted_ns: int = -1
    first_token_ns: int = -1
    finished_ns: int = -1
    over: Finish | None = None
    feed: NDArray[np.int32] = field(init=False)
    """The tokens to compute, while it runs: prompt, and the output that it had when it was admitted."""
    _sample: Sample | None = field(init=False, default=None)

    @property
    def id(self) -> str:
        """The id of the request."""
        return self.request.id

    @property
    def client(self) -> Client:
        """Whose request it is."""
        return self.request.client

    @property
    def produced(self) -> int:
        """Output tokens that are known."""
        return len(self.tokens) - self.request.input_tokens

    @property
    def remaining(self) -> int:
        """Output tokens that may still be sampled."""
        return self.params.max_tokens - self.produced - self.pending

    @property
    def end(self) -> int:
        """Tokens in memory when its last token is sampled."""
        return self.request.input_tokens + self.params.max_tokens - 1

    @property
    def to_compute(self) -> int:
        """Tokens to feed before the next one is sampled: 1 while it decodes."""
        return len(self.tokens) + self.pending - self.context

    def sample(self) -> Sample:
        """Return how its next token is chosen."""
        if self.params.seed is not None:
            return Sample(params=self.params, produced=self.produced + self.pending)
        if self._sample is None:  # without a seed the draw does not depend on the place: one object will do
            self._sample = Sample(params=self.params, produced=0)
        return self._sample

    @property
    def computed(self) -> int:
        """Its known tokens whose keys and values are in memory once the launched steps are done."""
        return min(self.context, len(self.tokens))

    def all_data(self) -> bytes:
        """Return prompt and output as 32-bit integers."""
        return self.data + as_data(self.tokens[self.request.input_tokens :]) if self.produced else self.data


def as_data(tokens: Sequence[int]) -> bytes:
    """Return tokens as 32-bit little-endian integers."""
    return np.asarray(tokens, "<i4").tobytes()


def make_job(
    id: str,
    client: Client,
    prompt: Sequence[int],
    params: SamplingParams,
    *,
    page_size: int,
    stop: StopWatch | None = None,
    namespace: str = "",
    reuse: bool = True,
) -> Job:
    """Return a new request; touches nothing of the engine, so that any thread may do it. O(prompt)."""
    data = as_data(prompt)
    chain = chain_hashes(data, page_size) if reuse else ()
    # The policy hears only of pages that can be found in the cache: one token at least is always computed.
    findable = chain[: (len(data) // TOKEN_BYTES - 1) // page_size]
    request = Request(id, client, len(prompt), params.max_tokens, findable, namespace)
    values: dict[str, Any] = {"stop": stop, "chain": chain}
    return Job(request, params, list(prompt), data, **values)
