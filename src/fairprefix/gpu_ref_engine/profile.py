"""Where the time of each step goes: a ring buffer of the latest steps, and a Chrome trace of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import Any

import numpy as np

from fairprefix.core.errors import at_least

PHASES = ("policy", "allocation", "preparation", "launch", "sync", "post")
"""policy: calls of the policy. allocation: pages and queues. preparation: the arrays of the step. launch: handing
them to the device (where the device does not work by itself, this is the model). sync: waiting for the device.
post: finding out which requests are done."""
POLICY, ALLOCATION, PREPARATION, LAUNCH, SYNC, POST = range(len(PHASES))
SCHEDULING = ("policy", "allocation", "preparation", "post")
"""What the engine adds to the model's own time."""
_EXTRA = ("start", "tokens", "sequences")
_NS_PER_US = 1000


class Profile:
    """Times of the latest steps in nanoseconds.

    Args:
        steps: how many are kept.
    """

    def __init__(self, steps: int = 4096) -> None:
        self.steps: int = 0
        """Steps seen."""
        self.clock: Callable[[], int] = perf_counter_ns
        """Nanoseconds; `time.thread_time_ns` leaves out what others do on the processor."""
        self._rows = np.zeros((at_least("steps", steps, 1), len(PHASES) + len(_EXTRA)), np.int64)
        self._spent = [0] * len(PHASES)
        self._lap = self._start = self.clock()

    def begin(self) -> None:
        """Start a step."""
        self._start = self._lap = self.clock()

    def lap(self, phase: int) -> None:
        """Put the time since the last call down to a phase."""
        now = self.clock()
        self._spent[phase] += now - self._lap
        self._lap = now

    def charge(self, phase: int, nanoseconds: int) -> None:
        """Put time between two steps down to a phase of the next one."""
        self._spent[phase] += nanoseconds

    def move(self, phase: int, nanoseconds: int) -> None:
        """Put part of the time since the last `lap` down to a phase, and the rest to the phase that follows."""
        self._spent[phase] += nanoseconds
        self._lap += nanoseconds

    def end(self, tokens: int, sequences: int) -> None:
        """Close a step that computed so many tokens of so many sequences; one that did nothing is not kept."""
        if tokens:
            row = self._rows[self.steps % len(self._rows)]
            row[:] = (*self._spent, self._start, tokens, sequences)
            self.steps += 1
        self._spent = [0] * len(PHASES)

    def latest(self) -> Mapping[str, Sequence[int]]:
        """Return the figures of the steps that are kept, oldest first: phases, start, tokens, sequences."""
        kept = min(self.steps, len(self._rows))
        order = np.arange(self.steps - kept, self.steps) % len(self._rows)
        rows = self._rows[order]
        return {name: rows[:, place].tolist() for place, name in enumerate(PHASES + _EXTRA)}

    def shares(self) -> Mapping[str, float]:
        """Return each phase's share of the time of the steps that are kept; all 0 before the first step."""
        latest = self.latest()
        sums = {name: sum(latest[name]) for name in PHASES}
        return {name: spent / (sum(sums.values()) or 1) for name, spent in sums.items()}

    def chrome_trace(self) -> dict[str, Any]:
        """Return the steps as a trace that chrome://tracing and ui.perfetto.dev open."""
        latest = self.latest()
        events: list[dict[str, Any]] = []
        for step in range(len(latest["start"])):
            at = latest["start"][step]
            spent = {name: latest[name][step] for name in PHASES}
            figures = {"tokens": latest["tokens"][step], "sequences": latest["sequences"][step]}
            events.append(_slice("step", at, sum(spent.values()), figures))
            for name, length in spent.items():
                events.append(_slice(name, at, length, {}))
                at += length
        return {"traceEvents": events, "displayTimeUnit": "ms"}


def _slice(name: str, at: int, length: int, figures: dict[str, int]) -> dict[str, Any]:
    times = {"ts": at / _NS_PER_US, "dur": length / _NS_PER_US}
    return {"name": name, "ph": "X", "pid": 1, "tid": 1, "cat": "engine", **times, "args": figures}
