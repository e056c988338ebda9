"""Runs checks on a policy: factory in, report out."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from attrs import define, evolve, field, frozen
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as with_seed
from hypothesis.errors import Flaky

from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import at_least, nearest, reject
from fairprefix.core.policy import Policy
from fairprefix.testing import report as rp
from fairprefix.testing.checks import CHECKS, NAMES, Check
from fairprefix.testing.claims import Claims
from fairprefix.testing.events import Arrive, EngineLimits, History
from fairprefix.testing.lab import HungError, Lab, MakePolicy, OutOfTimeError, Subject
from fairprefix.testing.rules import mirror_of
from fairprefix.testing.story import Story, tell
from fairprefix.testing.trace import Trace

SMALL = PolicyConfig(quantum=10, slack=20)
"""The default configuration: a small quantum makes short histories, and short stories, possible."""

HISTORY_LIMIT_S = 3.0
"""Time for one history, of which a correct policy needs milliseconds."""

_METHODS = [name for name in vars(Policy) if not name.startswith("_")]
_SMALLEST = History(EngineLimits(), (Arrive("a"),))


def check_policy(
    make_policy: MakePolicy,
    *,
    claims: Claims = Claims(),  # noqa: B008 (frozen)
    config: PolicyConfig = SMALL,
    examples: int = 100,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    seed: int = 0,
    time_limit_s: float = 60.0,
) -> rp.Report:
    """Try to break a policy; tell what was tried, and the story of whatever broke.

    Nothing about the policy makes this raise: `Report.raise_if_failed` does. The same seed tries the same.

    Args:
        make_policy: called with (config, prefixes) for each history: returns a new policy.
        claims: what the policy promises; each claim switches checks on. `Claims.of(config)` returns those of the
            policies of this package.
        config: what the factory is given. Histories are made large enough for its quantum.
        examples: histories for each check.
        only: names of the checks to run; empty: all that apply.
        skip: names of checks to leave out.
        seed: of the random histories.
        time_limit_s: for each check; one that finds nothing until then has passed, and says so.

    Raises:
        ConfigError: an argument is outside its range, or there is no such check.
    """
    at_least("examples", examples, 1)
    if time_limit_s <= 0:
        raise reject("time_limit_s", time_limit_s, "a positive number")
    for name in (*only, *skip):
        if name not in NAMES:
            raise reject("check", name, f"one of {', '.join(NAMES)}{nearest(name, NAMES)}")
    subject = Subject(make_policy, config, claims)
    problem = _factory_problem(subject, min(HISTORY_LIMIT_S, time_limit_s))
    plan = _Plan(subject, examples, frozenset(only), frozenset(skip), seed, time_limit_s, problem)
    return rp.Report(subject=_name(make_policy), verdicts=tuple(map(plan.verdict, CHECKS)), seed=seed)


@frozen
class _Plan:
    subject: Subject
    examples: int
    only: frozenset[str]
    skip: frozenset[str]
    seed: int
    time_limit_s: float
    problem: str
    """What is wrong with the factory; empty when it works."""

    def verdict(self, check: Check) -> rp.Verdict:
        """Return what becomes of a check."""
        blank = rp.Verdict(check=check.name, claim=check.claim, status=rp.SKIPPED, seed=self.seed)
        if (self.only and check.name not in self.only) or check.name in self.skip:
            return evolve(blank, detail="not asked for")
        if not check.applies(self.subject.claims, self.subject.config):
            return evolve(blank, detail=f"needs the claim {check.enabled_by}")
        if self.problem:
            return evolve(blank, status=rp.NOT_RUN, detail=self.problem)
        return self._explored(check, blank)

    def _explored(self, check: Check, blank: rp.Verdict) -> rp.Verdict:
        start = time.monotonic()
        lab = Lab(self.subject, start + self.time_limit_s, min(HISTORY_LIMIT_S, self.time_limit_s), seed=self.seed)
        found = _explore(check, lab, self.examples)
        done = evolve(blank, examples=lab.runs, seconds=time.monotonic() - start)
        if not found.what:
            if not lab.runs and check.data is not None:
                return evolve(done, status=rp.NOT_RUN, detail="time ran out before the first history")
            if lab.broken:  # another check tells that story; this one has not seen whole histories
                return evolve(done, status=rp.NOT_RUN, detail=f"histories ended early: {lab.broken.text}")
            return evolve(done, status=rp.PASSED, detail=found.remark or lab.remark)
        story = _story(lab, found) if found.history else None
        return evolve(done, status=rp.FAILED, detail=found.what, story=story)


@define
class _Found:
    """The last failure seen: after shrinking, the smallest."""

    what: str = ""
    history: History | None = None
    hung: bool = False
    remark: str = ""
    size: float = field(default=float("inf"))

    def note(self, what: str, history: History | None) -> None:
        """Keep a failure unless a smaller one is known."""
        size = len(repr(history))
        if size <= self.size:
            self.what, self.history, self.size = what, history, size


def _explore(check: Check, lab: Lab, examples: int) -> _Found:
    """Run a check on histories until one fails, then shrink that one."""
    found = _Found()

    def body(data: Any) -> None:  # noqa: ANN401 (whatever the check draws)
        history = history_of(data)
        try:
            check.run(lab, data)
        except AssertionError as failure:
            found.note(_first_line(failure), history)
            raise
        except SystemExit as error:  # or the program would end here, and perhaps with exit code 0
            found.note(f"the policy raised SystemExit: {error}", history)
            raise AssertionError from error
        except Exception as error:
            found.note(f"{type(error).__name__}: {error}", history)
            raise

    try:
        _repeat(check, lab, examples, body)
    except HungError as hung:
        found = _Found(str(hung), _smallest_that_hangs(lab, hung.history), hung=True)
    except OutOfTimeError:
        found.remark = "" if found.what else f"time ran out after {lab.runs} histories"
    except Flaky as flaky:
        found.note(f"the same history does not always give the same result ({_first_line(flaky)})", found.history)
    except Exception as error:
        if not found.what:
            raise  # not the policy's fault: the kit itself failed
        found.remark = f"{type(error).__name__}"
    return found


def _repeat(check: Check, lab: Lab, examples: int, body: Any) -> None:  # noqa: ANN401 (a test function)
    if check.data is None:
        body(None)
        return
    limits = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=False,
        phases=(Phase.generate, Phase.target, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        print_blob=False,
    )
    with_seed(lab.seed)(limits(given(check.data(lab.subject))(body)))()


def history_of(data: Any) -> History | None:  # noqa: ANN401 (whatever a check draws)
    """Return the history in what a check was run on."""
    if isinstance(data, History):
        return data
    parts = data if isinstance(data, tuple) else ()
    return next((part for part in parts if isinstance(part, History)), None)


def _smallest_that_hangs(lab: Lab, history: History) -> History:
    """Drop events while the policy still hangs; each try costs a fraction of a second."""
    quick = evolve_lab(lab, call_limit_s=min(lab.call_limit_s, 0.3))
    for place in range(len(history.events) - 1, -1, -1):
        if len(history.events) == 1:
            break
        shorter = evolve(history, events=history.events[:place] + history.events[place + 1 :])
        try:
            quick.run(shorter)
        except HungError:
            history = shorter
    return history


def evolve_lab(lab: Lab, *, call_limit_s: float) -> Lab:
    """Return a laboratory for the same subject, without a deadline."""
    return Lab(lab.subject, call_limit_s=call_limit_s, seed=lab.seed)


def _story(lab: Lab, found: _Found) -> Story:
    assert found.history is not None, "there is nothing to tell"
    trace: Trace | None = None
    if not found.hung:
        try:
            trace = evolve_lab(lab, call_limit_s=lab.call_limit_s).record(found.history)
        except (Exception, HungError, SystemExit):  # noqa: BLE001 (a story without a log is better than none)
            trace = None
    cost = lab.subject.configured(found.history).cost
    return tell(found.history, found.what, trace, cost, mirror_of(lab, found.history))


def _factory_problem(subject: Subject, limit_s: float) -> str:
    """Return what is wrong with the factory, in words, or nothing."""
    call = f"make_policy = {_name(subject.make_policy)}: called with (config, prefixes)"
    given: object = subject.make_policy
    if not callable(given):
        return f"make_policy = {given!r} is not valid: expected a function of (config, prefixes)"
    try:
        lab = Lab(subject, call_limit_s=limit_s)
        (policy, _), (another, _) = lab.build(_SMALLEST), lab.build(_SMALLEST)
    except HungError as hung:
        return f"{call}: {hung}"
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever the factory raises)
        return f"{call} it raised {type(error).__name__}: {error}"
    missing = [name for name in _METHODS if not callable(getattr(policy, name, None))]
    if missing:
        lacks = ", ".join(missing)
        return f"{call} it returned {policy!r}, which is no fairprefix.Policy: it lacks {lacks}"
    if policy is another:
        return f"{call} twice it returned the same policy: expected a new one each time"
    return ""


def _first_line(failure: Exception) -> str:
    text = str(failure) or "an assertion failed"
    return text.splitlines()[0]


def _name(make_policy: object) -> str:
    name = getattr(make_policy, "__qualname__", None)
    return f"{getattr(make_policy, '__module__', '?')}:{name}" if name else repr(make_policy)
