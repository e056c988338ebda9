"""Where a check works: it runs histories against new policies of the one factory, within time limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
from attrs import define, field, frozen

from fairprefix.core.config import PolicyConfig
from fairprefix.core.history import RecordedIndex, Recorder, opening
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.testing.claims import Claims
from fairprefix.testing.driver import Driver, Hook
from fairprefix.testing.events import History
from fairprefix.testing.trace import Broken, Trace
from fairprefix.testing.watchdog import TimeIsUpError, time_limit

MakePolicy = Callable[[PolicyConfig, PrefixIndex], Policy]
"""(config, prefixes) -> a new policy: the factory that is under test."""


class HungError(BaseException):
    """The policy did not return. Not an `Exception`, so that nothing goes on as if this were a usual failure."""

    def __init__(self, history: History, text: str) -> None:
        super().__init__(text)
        self.history = history


class OutOfTimeError(BaseException):
    """The time of the whole check is over."""


@frozen
class Subject:
    """What is under test: a factory, the configuration to give it, and what its policies claim."""

    make_policy: MakePolicy
    config: PolicyConfig
    claims: Claims

    def unit(self) -> int:
        """Return the tokens that lengths are multiples of: histories must be large beside the quantum."""
        return max(1, self.config.quantum // 10)

    def configured(self, history: History) -> PolicyConfig:
        """Return a configuration of its own for a history: its weights count, if it has any."""
        return attrs.evolve(self.config, weights=dict(history.weights or self.config.weights))


@define(eq=False)
class Lab:
    """Runs histories; everything that a check needs to know about its subject.

    Raises:
        HungError: a policy did not return within `call_limit_s`.
        OutOfTimeError: a history was to begin after the deadline.
    """

    subject: Subject
    deadline: float = float("inf")
    """Instant of the monotonic clock after which no history begins."""
    call_limit_s: float = 3.0
    """Time for one history, of which a correct policy needs milliseconds."""
    seed: int = 0
    runs: int = field(default=0, init=False)
    """Histories executed."""
    remark: str = field(default="", init=False)
    """What a check wants to add to its verdict."""
    broken: Broken | None = field(default=None, init=False)
    """Why the last one ended early, of those that did."""

    @property
    def claims(self) -> Claims:
        """What is claimed."""
        return self.subject.claims

    @property
    def config(self) -> PolicyConfig:
        """The configuration under test, without a history's own weights."""
        return self.subject.config

    def build(self, history: History, config: PolicyConfig | None = None) -> tuple[Policy, PrefixIndex]:
        """Return a new policy for a history, and the index that it looks at."""
        index = PrefixIndex(history.limits.block)
        return self._make(history, index, config), index

    @contextmanager
    def limited(self, history: History, calling: Callable[[], str]) -> Iterator[None]:
        """Give the policy `call_limit_s` for the body; `calling` says afterwards what it was asked last."""
        try:
            with time_limit(self.call_limit_s):
                yield
        except TimeIsUpError:
            text = f"{calling()}() did not return within {self.call_limit_s:g} s"
            raise HungError(history, text) from None

    def run(
        self,
        history: History,
        *,
        hook: Hook | None = None,
        amends: bool = False,
        **names: Callable[[str], str],
    ) -> Trace:
        """Execute a history against a new policy; see `Driver` for the other arguments."""
        if time.monotonic() > self.deadline:
            raise OutOfTimeError
        self.runs += 1
        policy, index = self.build(history)
        return self._execute(Driver(history, policy, index, hook=hook, amends=amends, **names))

    def record(self, history: History) -> Trace:
        """Execute a history once more, and keep the calls as a replayable log."""
        config = self.subject.configured(history)
        log: list[dict[str, Any]] = [opening(config, history.limits.block)]
        index = RecordedIndex(history.limits.block, log.append)
        recorder = Recorder(self._make(history, index), log.append)
        trace = self._execute(Driver(history, recorder, index))
        trace.log = log
        return trace

    def _make(self, history: History, index: PrefixIndex, config: PolicyConfig | None = None) -> Policy:
        with self.limited(history, lambda: "make_policy"):
            return self.subject.make_policy(config or self.subject.configured(history), index)

    def _execute(self, driver: Driver) -> Trace:
        with self.limited(driver.history, lambda: driver.slot.calling):
            trace = driver.run()
        self.broken = trace.broken or self.broken
        return trace
