"""A model that is exact about memory: its next token depends on every token that it reads through the page table.

It keeps token ids where a real model keeps keys and values. A page that is given to two requests, evicted while it
is held, shared too early or not written gives another token; a position that is wrong stops the test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from zlib import crc32

import numpy as np

from fairprefix.gpu_ref_engine.batch import Ints, StepBatch, StepResult, TopLogprobs

EOS = 0


def next_token(context: Sequence[int], vocabulary: int, seed: int | None = None, draw: int = 0) -> int:
    """Return what follows a context, by the model's lights."""
    data = np.asarray(context, np.int64).tobytes()
    if seed is not None:
        data += f"{seed}/{draw}".encode()
    return crc32(data) % vocabulary


def continuation(prompt: Sequence[int], tokens: int, vocabulary: int, *, eos: int | None = EOS) -> list[int]:
    """Return the whole answer to a prompt, computed without any engine."""
    context, answer = list(prompt), list[int]()
    while len(answer) < tokens:
        answer.append(next_token(context + answer, vocabulary))
        if answer[-1] == eos:
            break
    return answer


class FakeLaunched:
    """A step under way: its tokens are handed out once, in order."""

    def __init__(self, runner: FakeRunner, result: StepResult) -> None:
        self._runner, self.result = runner, result

    def wait(self) -> StepResult:
        """Return the result."""
        assert self._runner.under_way.pop(0) is self, "steps are waited for in the order of their launch"
        if self._runner.on_wait is not None:
            self._runner.on_wait()
        return self.result


class FakeRunner:
    """A model with `pages` pages of memory."""

    def __init__(self, pages: int = 64, page_size: int = 4, vocabulary: int = 97, longest: int = 4096) -> None:
        self.pages, self.page_size, self.vocabulary, self.longest = pages, page_size, vocabulary, longest
        self.memory = np.full(pages * page_size, -1, np.int64)
        self.under_way: list[FakeLaunched] = []
        self.most_ahead = 0
        self.batches: list[StepBatch] = []
        self.on_launch: Callable[[StepBatch], None] | None = None
        self.on_wait: Callable[[], None] | None = None
        self._previous: Ints = np.zeros(0, np.int64)

    def launch(self, batch: StepBatch) -> FakeLaunched:
        """Compute a step; nobody sees the result before `wait`."""
        if self.on_launch is not None:
            self.on_launch(batch)
        tokens = batch.tokens.copy()
        if batch.from_previous is not None:
            known = batch.from_previous >= 0
            tokens[known] = self._previous[batch.from_previous[known]]
        assert len(np.unique(batch.slots)) == len(batch.slots), "two tokens of a step share a place"
        self.memory[batch.slots] = tokens
        contexts = self._contexts(batch)
        ends = np.cumsum(batch.query_lens)
        assert (batch.positions[ends - 1] == batch.context_lens - 1).all()
        sampled = []
        for at, sample in zip(batch.sample_at.tolist(), batch.samples, strict=True):
            owner = int(np.searchsorted(ends, at, side="right"))
            assert at == ends[owner] - 1, "only after the last token of a sequence a next one is sampled"
            params = sample.params
            sampled.append(next_token(contexts[owner], self.vocabulary, params.seed, sample.produced))
        self._previous = np.array(sampled, np.int64)
        logprobs = [_logprobs(token, sample.params.logprobs) for token, sample in
                    zip(sampled, batch.samples, strict=True)]  # fmt: skip
        launched = FakeLaunched(self, StepResult(tokens=self._previous, logprobs=logprobs))
        self.under_way.append(launched)
        self.most_ahead = max(self.most_ahead, len(self.under_way))
        self.batches.append(batch)
        return launched

    def _contexts(self, batch: StepBatch) -> list[list[int]]:
        contexts = []
        for row, length in zip(batch.page_table, batch.context_lens.tolist(), strict=True):
            places = np.arange(length)
            slots = row[places // self.page_size].astype(np.int64) * self.page_size + places % self.page_size
            contexts.append(self.memory[slots].tolist())
        return contexts


def _logprobs(token: int, wanted: int | None) -> TopLogprobs | None:
    if wanted is None:
        return None
    return TopLogprobs(chosen=-0.5, top=tuple((token + place, -0.5 - place) for place in range(wanted)))
