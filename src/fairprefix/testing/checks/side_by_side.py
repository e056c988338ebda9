"""Workers of one process, each with a policy of its own, do not hear of each other."""

from __future__ import annotations

from hypothesis import strategies as st

from fairprefix.testing.checks.determinism import same_decisions
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import anything, contests
from fairprefix.testing.driver import Driver, StoppedError
from fairprefix.testing.events import History, Step
from fairprefix.testing.lab import Lab
from fairprefix.testing.parts import PolicyRaisedError


def check(lab: Lab, histories: tuple[History, History]) -> None:
    """Run a history alone, and again with other workers that take turns with it; compare."""
    history, elsewhere = histories
    others = [_Worker(lab, elsewhere) for _ in range(lab.claims.workers - 1)]

    def take_turns(_driver: Driver) -> None:
        for other in others:
            other.go_on()

    alone, beside = lab.run(history), lab.run(history, hook=take_turns)
    same_decisions("the same policy beside another worker", alone.decisions(), beside.decisions())


class _Worker:
    """Another engine with a policy of its own, which goes on by an event and a step whenever it is told to."""

    def __init__(self, lab: Lab, history: History) -> None:
        self._lab, self._history = lab, history
        self._driver: Driver | None = None
        self._left = list(history.events)

    def go_on(self) -> None:
        """Let something happen; what goes wrong here is told by the checks of a single worker."""
        if self._driver is None:
            self._driver = Driver(self._history, *self._lab.build(self._history))
        try:
            if self._left:
                self._driver.apply(self._left.pop(0))
            if self._driver.jobs:
                self._driver.apply(Step(1))
        except (StoppedError, PolicyRaisedError):
            self._left.clear()
            self._driver.jobs.clear()


CHECK = Check(
    name="side_by_side",
    claim="policies of several workers in one process do not disturb each other",
    run=check,
    data=lambda subject: st.tuples(anything(subject) | contests(subject), contests(subject)),
    enabled_by="workers",
    applies=lambda claims, _config: claims.workers > 1,
)
