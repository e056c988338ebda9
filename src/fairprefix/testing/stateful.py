"""A Hypothesis state machine for policies: events one by one, judged after each.

    from fairprefix.testing import Claims, policy_machine

    TestMine = policy_machine(make_policy, claims=Claims(bound="dlpm")).TestCase

Where `check_policy` tries many properties on short histories, a machine goes through fewer, longer ones and checks
everything at once: the life cycle, the policy's own invariants, that looking changes nothing, the claimed rule at
every offer, and at the end the claimed bound.
"""

from __future__ import annotations

from typing import Any, ClassVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fairprefix.core.config import PolicyConfig
from fairprefix.testing import events as ev
from fairprefix.testing import strategies as fst
from fairprefix.testing import trace as tr
from fairprefix.testing.claims import Claims
from fairprefix.testing.driver import Driver, StoppedError
from fairprefix.testing.gapwatch import both_backlogged
from fairprefix.testing.lab import Lab, MakePolicy, Subject
from fairprefix.testing.mirror import Mirror, oracle_of
from fairprefix.testing.parts import BLOCKED, RUNNING, WAITING, PolicyRaisedError
from fairprefix.testing.rules import judge
from fairprefix.testing.runner import SMALL
from fairprefix.testing.watchdog import TimeIsUpError, time_limit

_EVENT_LIMIT_S = 3.0
"""Time for one event, of which a correct policy needs less than a millisecond."""
_AFTER_A_HANG_S = 0.3
"""The same once the policy has hung: or finding the smallest history in which it does takes minutes."""
_which = st.integers(0, 20)


def policy_machine(
    make_policy: MakePolicy,
    *,
    config: PolicyConfig = SMALL,
    claims: Claims = Claims(),  # noqa: B008 (frozen)
) -> type[RuleBasedStateMachine]:
    """Return a state machine class; run it with `run_state_machine_as_test`, or use its `TestCase`.

    Args:
        make_policy: called with (config, prefixes): returns a new policy.
        config: what the factory is given.
        claims: what the policy promises.
    """
    subject = Subject(make_policy, config, claims)

    class PolicyMachine(_Machine):
        """The machine for one factory."""

        def __init__(self) -> None:
            super().__init__(subject)

    return PolicyMachine


class _Machine(RuleBasedStateMachine):
    """Lets events happen to a policy, and judges it after each."""

    limit_s: ClassVar[float] = _EVENT_LIMIT_S

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject
        self.happened: list[ev.HostEvent] = []
        self.seen = 0
        """Facts that have been judged."""
        self.driver: Driver | None = None
        self.reweighed = False

    @initialize(data=st.data())
    def start(self, data: st.DataObject) -> None:
        """Make an engine and a policy."""
        limits = fst.engine_limits(unit=self.subject.unit(), reservations=self._reservations())
        history = ev.History(data.draw(limits, label="engine"), ())
        self.mirror = Mirror(oracle_of(self.subject.claims, self.subject.config, history.limits.block, fst.ABC))
        self.driver = Driver(history, *Lab(self.subject).build(history))

    @property
    def engine(self) -> Driver:
        """The driver, once it is there."""
        assert self.driver is not None, "`start` comes first"
        return self.driver

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        """Requests arrive."""
        self.let(data.draw(fst.requests(limits=self.engine.limits, counts=(1, 1, 2, 5), every=(0, 0, 1, 3))))

    @rule(steps=st.integers(1, 5))
    def step(self, steps: int) -> None:
        """The engine runs."""
        self.let(ev.Step(steps))

    @precondition(lambda self: self.engine.jobs)
    @rule(which=_which)
    def abort(self, which: int) -> None:
        """A request is aborted, wherever it stands."""
        self.let(ev.Abort(which))

    @precondition(lambda self: self.engine.of_stage(WAITING))
    @rule(which=_which)
    def block(self, which: int) -> None:
        """A waiting request is blocked."""
        self.let(ev.Block(which))

    @precondition(lambda self: self.engine.of_stage(BLOCKED))
    @rule(which=_which)
    def unblock(self, which: int) -> None:
        """A blocked request is queued again."""
        self.let(ev.Unblock(which))

    @precondition(lambda self: self.engine.of_stage(RUNNING))
    @rule(which=_which, hold=st.booleans())
    def preempt(self, which: int, *, hold: bool) -> None:
        """A running request loses its memory."""
        self.let(ev.Preempt(which, hold=hold and self.subject.config.recompute == "free"))

    @rule()
    def refund(self) -> None:
        """The next admission will be taken back."""
        self.let(ev.Refund())

    @rule(prefix=st.sampled_from(fst.TREE[1:]), start=st.integers(0, 2))
    def evict(self, prefix: tuple[int, ...], start: int) -> None:
        """The cache loses blocks."""
        self.let(ev.Evict(prefix, start))

    @precondition(lambda self: self.engine.jobs)
    @rule(client=st.sampled_from(fst.ABC))
    def leave(self, client: str) -> None:
        """A client goes away."""
        self.let(ev.Leave(client))

    @precondition(lambda self: self.engine.jobs)
    @rule(client=st.sampled_from(fst.ABC), weight=st.integers(1, 4))
    def reweigh(self, client: str, weight: int) -> None:
        """A client's weight changes; the bound for constant weights says nothing about what follows."""
        self.reweighed = True
        self.let(ev.Reweigh(client, weight))

    @invariant()
    def looking_changes_nothing(self) -> None:
        """The policy's own invariants hold, and a look leaves it as it was."""
        if self.driver is None:
            return
        self._guarded(self._look)

    def _look(self) -> None:
        policy = self.engine.slot.asked
        policy.validate()
        state = policy.canonical()
        offered, planned = policy.peek(), policy.plan(3)
        assert (planned[0] if planned else None) is offered, "peek() and plan() disagree"
        assert policy.canonical() == state, "looking changed the state"

    def let(self, event: ev.HostEvent) -> None:
        """Let an event happen, and judge what the policy made of it."""
        self.happened.append(event)
        self._guarded(lambda: self.engine.apply(event))

    def teardown(self) -> None:
        """Run until nothing is left to do; then look at the bound."""
        if self.driver is None:
            return
        self._guarded(self.engine.drain)
        trace, claims = self.engine.trace, self.subject.claims
        trace.end = self.engine.at
        history = ev.History(self.engine.limits, tuple(self.happened))
        if claims.bound is not None and history.arrivals() and not self.reweighed:
            both_backlogged(claims, self.subject.config, history, trace)

    def _guarded(self, act: Any) -> None:  # noqa: ANN401 (a function without arguments)
        try:
            with time_limit(self.limit_s):
                act()
        except TimeIsUpError:
            type(self).limit_s = _AFTER_A_HANG_S
            raise AssertionError(f"{self.engine.slot.calling}() does not return") from None
        except (StoppedError, PolicyRaisedError) as error:
            raise AssertionError(str(error)) from error
        finally:
            self._judge()

    def _judge(self) -> None:
        facts = self.engine.trace.facts
        while self.seen < len(facts):
            fact = facts[self.seen]
            self.seen += 1
            if isinstance(fact, tr.Offered) and self.subject.claims.rule:
                judge(self.mirror.oracle, fact)
            self.mirror.feed(fact)

    def _reservations(self) -> tuple[str, ...]:
        return ("full", "none") if self.subject.claims.reservation == "none" else ("full",)
