"""Decode steps captured as CUDA graphs: one launch in place of hundreds, for a choice of batch sizes.

A step is padded to the next size captured. Padding sequences have one token; it is stored in a page of the
key/value memory that no scheduler knows of (`KvMemory.spare`), and their logits are dropped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import attrs
import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from fairprefix.gpu_ref_engine.attention.base import Attention
from fairprefix.gpu_ref_engine.attention.choose import Fixed
from fairprefix.gpu_ref_engine.batch import StepBatch
from fairprefix.gpu_ref_engine.model import Model, StepTensors
from fairprefix.gpu_ref_engine.transfer import to_device

Replay = Callable[[], None]
Record = Callable[[Callable[[], Tensor]], tuple[Replay, Tensor]]
"""From a computation on fixed memory to what repeats it, and the memory of its result."""

SIZES = (1, 2, 4, *range(8, 257, 8))
"""Batch sizes that are captured, unless told otherwise."""
_WARM_UPS = 2
"""Runs before the capture, in which libraries choose and compile their kernels."""


def cuda_recorder() -> Record:
    """Return a recorder of CUDA graphs that share their memory: largest first, please."""
    pool = torch.cuda.graph_pool_handle()

    def record(work: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
        side: torch.cuda.Stream = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            result = work()
        return graph.replay, result

    return record


@frozen(eq=False)
class _Captured:
    inputs: Tensor
    """[4, size]: tokens, from_previous, positions, slots."""
    attention: Attention
    replay: Replay
    logits: Tensor


class DecodeGraphs:
    """The decode steps of a model, captured.

    Args:
        model: the model.
        fixed: makes attention backends that can be captured.
        previous: [at least the largest size] tokens that the step before has sampled.
        record: captures a computation.
        sizes: batch sizes to capture.
    """

    def __init__(
        self, model: Model, fixed: Fixed, previous: Tensor, *, record: Record, sizes: Sequence[int] = SIZES
    ) -> None:
        self._model = model
        self._sizes = sorted(sizes)
        result = (self._sizes[-1], model.memory.shape.vocabulary)
        self._logits = torch.empty(result, device=model.memory.device)
        """Of all sizes: one at a time is replayed."""
        self._captured = {
            size: self._capture(size, fixed(size), previous, record) for size in reversed(self._sizes)
        }

    def _capture(self, size: int, attention: Attention, previous: Tensor, record: Record) -> _Captured:
        memory = self._model.memory
        inputs = torch.zeros((4, size), dtype=torch.int64, device=memory.device)
        every_row = torch.arange(size, device=memory.device)

        def work() -> Tensor:
            tokens, source, positions, slots = inputs
            fed = torch.where(source >= 0, previous[source.clamp(min=0)], tokens)
            step = StepTensors(tokens=fed, positions=positions, slots=slots, sample_at=every_row)
            return self._logits[:size].copy_(self._model.forward(step, attention))  # in float32

        empty = np.zeros(0, np.int64)
        nothing = StepBatch(
            tokens=empty, positions=empty, slots=empty, query_lens=empty, context_lens=empty,
            page_table=np.zeros((0, 1), np.int32), sample_at=empty, samples=(),
        )  # fmt: skip
        self._feed(inputs, attention, self._padded(nothing, size))
        replay, logits = record(work)
        return _Captured(inputs, attention, replay, logits)

    def logits(self, batch: StepBatch) -> Tensor | None:
        """Return the logits [B, vocabulary] of a step, valid until the next one; None: it was not captured."""
        count = len(batch.query_lens)
        if count > self._sizes[-1] or len(batch.sample_at) != count or len(batch.tokens) != count or count == 0:
            return None
        if (batch.sample_at != np.arange(count)).any():
            return None
        size = self._sizes[bisect_left(self._sizes, count)]
        captured = self._captured[size]
        self._feed(captured.inputs, captured.attention, self._padded(batch, size))
        captured.replay()
        return captured.logits[:count]

    def _feed(self, inputs: Tensor, attention: Attention, batch: StepBatch) -> None:
        source = np.full(len(batch.tokens), -1) if batch.from_previous is None else batch.from_previous
        fresh = np.stack([batch.tokens, source, batch.positions, batch.slots])
        inputs.copy_(to_device(fresh, inputs.device), non_blocking=True)
        attention.plan(batch)

    def _padded(self, batch: StepBatch, size: int) -> StepBatch:
        """Return the step with as many sequences as were captured."""
        missing = size - len(batch.tokens)
        if not missing:
            return batch
        spare, zeros, ones = self._model.memory.spare, np.zeros(missing, np.int64), np.ones(missing, np.int64)
        table = np.full((missing, batch.page_table.shape[1]), spare, np.int32)
        return attrs.evolve(
            batch,
            tokens=np.concatenate([batch.tokens, zeros]),
            positions=np.concatenate([batch.positions, zeros]),
            slots=np.concatenate([batch.slots, zeros + spare * self._model.memory.page_size]),
            query_lens=np.concatenate([batch.query_lens, ones]),
            context_lens=np.concatenate([batch.context_lens, ones]),
            page_table=np.concatenate([batch.page_table, table]),
            from_previous=None
            if batch.from_previous is None
            else np.concatenate([batch.from_previous, zeros - 1]),
        )
