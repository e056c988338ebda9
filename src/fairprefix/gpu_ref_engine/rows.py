"""The running requests as rows of a few tables, and the arrays of a step made from them without a loop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from fairprefix.gpu_ref_engine.batch import Ints, StepBatch
from fairprefix.gpu_ref_engine.job import Job


@frozen(eq=False)
class Chunk:
    """Part of a prompt that one step computes."""

    job: Job
    start: int
    """First token of it."""
    end: int
    """The one behind its last token."""
    last: bool
    """Whether the next token is sampled after it."""


class Rows:
    """Pages, lengths and latest tokens of everything that runs.

    Args:
        rows: how many requests run at most.
        longest: tokens of the longest sequence.
        page_size: tokens per page.
    """

    def __init__(self, rows: int, longest: int, page_size: int) -> None:
        self._page_size = page_size
        self._free = list(range(rows - 1, -1, -1))
        self._pages = np.zeros((rows, -(-longest // page_size)), np.int32)
        self._held = np.zeros(rows, np.int64)
        """How many pages each row has."""
        self._context = np.zeros(rows, np.int64)
        self._latest = np.zeros(rows, np.int64)
        """The latest token that is known."""
        self._sampled = np.full(rows, -1, np.int64)
        """Where, in the step launched last, the latest token is sampled; -1: it is known."""

    def add(self, job: Job) -> None:
        """Give a request a row; it holds its pages."""
        job.row = self._free.pop()
        self._sampled[job.row] = -1
        self.copy_pages(job)

    def remove(self, job: Job) -> None:
        """Take a request's row back."""
        self._free.append(job.row)
        job.row = -1

    def copy_pages(self, job: Job) -> None:
        """Note that the pages of a request have changed."""
        assert job.holding is not None
        pages = job.holding.pages
        self._pages[job.row, : len(pages)] = pages
        self._held[job.row] = len(pages)

    def full(self, rows: Ints) -> NDArray[np.intp]:
        """Return which of the decoding rows have no place for their next token."""
        return np.flatnonzero(self._context[rows] >= self._held[rows] * self._page_size)

    def know(self, job: Job, token: int) -> None:
        """Note the latest token of a request."""
        self._latest[job.row] = token

    def know_all(self) -> None:
        """Note that nothing sampled is unknown any more."""
        self._sampled.fill(-1)

    def check_integrity(self, used: Sequence[int]) -> None:
        """Check that every row is either free or used by one request.

        Raises:
            AssertionError: it is not.
        """
        assert sorted([*self._free, *used]) == list(range(len(self._held))), "a row is lost, or has two owners"

    def batch(self, decodes: Sequence[Job], rows: Ints, chunks: Sequence[Chunk]) -> StepBatch:
        """Return the arrays of a step: one token of each decoding request, and the chunks.

        Afterwards the tokens that it samples count as unknown, and every context as extended.
        """
        chunk_rows = np.array([chunk.job.row for chunk in chunks], np.int64)
        all_rows = np.concatenate((rows, chunk_rows))
        starts = np.concatenate((self._context[rows], np.array([chunk.start for chunk in chunks], np.int64)))
        ends = np.concatenate((starts[: len(rows)] + 1, np.array([chunk.end for chunk in chunks], np.int64)))
        lengths = ends - starts
        firsts = np.cumsum(lengths) - lengths
        owners = np.repeat(np.arange(len(all_rows)), lengths)
        positions = np.arange(len(owners)) - firsts[owners] + starts[owners]
        places = self._pages[all_rows[owners], positions // self._page_size].astype(np.int64)
        sampling = np.array([True] * len(rows) + [chunk.last for chunk in chunks], np.bool_)
        batch = StepBatch(
            tokens=self._tokens(rows, chunks),
            positions=positions,
            slots=places * self._page_size + positions % self._page_size,
            query_lens=lengths,
            context_lens=ends,
            page_table=self._pages[all_rows, : -(-int(ends.max()) // self._page_size)],
            sample_at=(firsts + lengths - 1)[sampling],
            samples=[job.sample() for job in (*decodes, *(chunk.job for chunk in chunks if chunk.last))],
            from_previous=self._unknown(rows, len(owners)),
        )
        self._context[all_rows] = ends
        self._sampled.fill(-1)
        self._sampled[all_rows[sampling]] = np.arange(len(batch.sample_at))
        return batch

    def _tokens(self, rows: Ints, chunks: Sequence[Chunk]) -> Ints:
        parts = [chunk.job.feed[chunk.start : chunk.end].astype(np.int64) for chunk in chunks]
        return np.concatenate([self._latest[rows], *parts])

    def _unknown(self, rows: Ints, tokens: int) -> Ints | None:
        """Return where the input tokens come from that nobody knows yet; None when all are known."""
        sampled = self._sampled[rows]
        if not (sampled >= 0).any():
            return None
        unknown = np.full(tokens, -1, np.int64)
        unknown[: len(rows)] = sampled
        return unknown
