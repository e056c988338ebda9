"""Factories and policies that do not work get a clear verdict, whatever is wrong with them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.dlpm import DLPM
from fairprefix.core.fcfs import FCFS
from fairprefix.core.prefixes import Prefixes, PrefixIndex
from fairprefix.core.request import Request
from fairprefix.testing import Claims, ConformanceError, check_policy
from fairprefix.testing.lab import Lab, MakePolicy, OutOfTimeError
from fairprefix.testing.mutants.order import ByMood
from fairprefix.testing.runner import SMALL

BOUND = Claims(bound="dlpm", keeps_debt=True)


class Hangs(FCFS):
    """Does not return once three requests wait."""

    def peek(self) -> Request | None:
        """Look for ever."""
        while len(self._entries) > 2:
            time.sleep(0.01)
        return super().peek()


class CatchesAll(Hangs):
    """Hangs, and catches every exception on the way."""

    def peek(self) -> Request | None:
        """Look for ever, whatever happens."""
        while True:
            try:
                return super().peek()
            except Exception:  # noqa: BLE001, S112, PERF203
                continue


class HangsInside(FCFS):
    """Does not return where only a check asks, and not the engine."""

    def snapshot(self) -> dict[str, Any]:
        """Look for ever."""
        while True:
            time.sleep(0.01)

    def reweigh(self, client: str, weight: int) -> None:  # noqa: ARG002
        """Look for ever."""
        while True:
            time.sleep(0.01)


class ChangesRequests(DLPM):
    """Asks for less output than its clients did."""

    def arrive(self, request: Request) -> None:
        """Write into a request."""
        object.__setattr__(request, "max_output", 1)
        super().arrive(request)


class PlansOnce(DLPM):
    """Plans as a generator."""

    def plan(self, limit: int, *, budget: int | None = None) -> Any:  # noqa: ANN401
        """Return what can be gone through once."""
        return iter(super().plan(limit, budget=budget))


ONLY_ONE = FCFS(SMALL)


def always_the_same(config: PolicyConfig, prefixes: Prefixes) -> FCFS:  # noqa: ARG001
    """Return one policy to everybody."""
    return ONLY_ONE


class GivesNoReceipt(FCFS):
    """Admits, and forgets to say what that cost."""

    def take(self, id: str, *, extend: int, reserve: int) -> Any:  # noqa: ANN401
        """Return nothing."""
        super().take(id, extend=extend, reserve=reserve)


class WritesIntoTheIndex(FCFS):
    """Takes the view of the cache for a notebook."""

    def __init__(self, config: PolicyConfig, prefixes: Prefixes | None = None) -> None:
        super().__init__(config, prefixes)
        assert isinstance(prefixes, PrefixIndex)
        self._index = prefixes

    def arrive(self, request: Request) -> None:
        """Call something cached that is not."""
        self._index.cached((4711,))
        super().arrive(request)


class KnowsNoBudget(FCFS):
    """Plans as the interface was once."""

    def plan(self, limit: int) -> Sequence[Request]:  # type: ignore[override]
        """Plan."""
        return super().plan(limit)


class RaisesLate(FCFS):
    """Fails when it is asked to plan."""

    def plan(self, limit: int, *, budget: int | None = None) -> Sequence[Request]:  # noqa: ARG002
        """Fail."""
        raise ZeroDivisionError(f"limit {limit}")


class SpoilsTheConfig(DLPM):
    """Writes into the table of weights that it is given."""

    def __init__(self, config: PolicyConfig, prefixes: Prefixes | None = None) -> None:
        super().__init__(config, prefixes)
        config.weights["somebody"] = 1  # type: ignore[index]


def no_arguments() -> FCFS:
    """Take nothing where (config, prefixes) is given."""
    return FCFS(SMALL)


def dawdles(config: PolicyConfig, prefixes: Prefixes) -> FCFS:
    """Take too long to make a policy."""
    time.sleep(10)
    return FCFS(config, prefixes)


def refuses(config: PolicyConfig, prefixes: object) -> FCFS:
    """Fail to make a policy."""
    raise ValueError(f"no {config.policy} today: {prefixes is None}")


@pytest.mark.parametrize(
    ("factory", "verdict"),
    [
        (no_arguments, "it raised TypeError: no_arguments() takes 0 positional arguments but 2 were given"),
        (refuses, "it raised ValueError: no dlpm today: False"),
        (
            lambda _config, _prefixes: 7,
            "it returned 7, which is no fairprefix.Policy: it lacks arrive",
        ),
        (always_the_same, "twice it returned the same policy: expected a new one each time"),
        ("a name", "make_policy = 'a name' is not valid: expected a function of (config, prefixes)"),
    ],
)
def test_a_factory_that_does_not_work_gets_one_clear_verdict(factory: MakePolicy, verdict: str) -> None:
    """Nothing is run, and each check says why."""
    report = check_policy(factory)
    assert not report.ok
    assert not report.failed
    assert verdict in report["termination"].detail
    assert {v.status for v in report.verdicts} == {"not run", "skipped"}
    with pytest.raises(ConformanceError, match="not run"):
        report.raise_if_failed()


@pytest.mark.parametrize("factory", [Hangs, CatchesAll])
def test_a_policy_that_hangs_is_interrupted(factory: type[FCFS]) -> None:
    """The time limit turns a hang into a failure with a short history, and the timer is gone afterwards."""
    start = time.monotonic()
    verdict = check_policy(factory, only=["termination"], time_limit_s=3)["termination"]
    assert verdict.status == "failed"
    assert verdict.detail == "peek() did not return within 3 s"
    assert verdict.story is not None
    assert len(verdict.story.history.events) == 1
    assert time.monotonic() - start < 60
    time.sleep(0.6)


@pytest.mark.parametrize(("check", "call"), [("snapshots", "snapshot"), ("inputs", "reweigh")])
def test_a_hang_is_told_by_the_call_that_hangs(check: str, call: str) -> None:
    """Also where it is a check's own question that does not return."""
    verdict = check_policy(HangsInside, only=[check], time_limit_s=0.5)[check]
    assert (verdict.status, verdict.detail) == ("failed", f"{call}() did not return within 0.5 s")


def test_a_check_without_a_single_history_has_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time that is over before anything was tried is no time in which nothing was found."""
    monkeypatch.setattr(Lab, "run", Mock(side_effect=OutOfTimeError))
    verdict = check_policy(make_policy, only=["termination"])["termination"]
    assert (verdict.status, verdict.detail) == ("not run", "time ran out before the first history")


def test_a_factory_that_hangs_is_interrupted() -> None:
    """A factory has as little time as a policy."""
    detail = check_policy(dawdles, time_limit_s=0.3)["termination"].detail
    assert detail.endswith("make_policy() did not return within 0.3 s")


def test_a_factory_that_nobody_can_import_is_checked_in_this_process_alone() -> None:
    """The verdict on hash seeds says that it was left out."""
    verdict = check_policy(partial(FCFS), only=["hash_seed"])["hash_seed"]
    assert (verdict.status, verdict.detail) == ("passed", "left out: no other process can import the factory")


def test_a_policy_that_hangs_is_interrupted_on_any_thread() -> None:
    """Away from the main thread, where no signal arrives, another thread interrupts the policy."""
    verdicts: list[str] = []

    def work() -> None:
        verdicts.append(check_policy(Hangs, only=["termination"], time_limit_s=3)["termination"].detail)

    worker = threading.Thread(target=work)
    worker.start()
    worker.join(60)
    assert verdicts == ["peek() did not return within 3 s"]


def test_a_policy_that_raises_fails_where_it_raises() -> None:
    """An exception of the policy's own is a failure with a story, never a crash of the kit."""
    report = check_policy(RaisesLate, examples=5)
    assert {verdict.check for verdict in report.failed} == {"only_queued", "capacity", "looking"}
    assert report["looking"].detail == "ZeroDivisionError: limit 3"
    assert report["looking"].story is not None


def test_a_check_that_saw_no_whole_history_has_not_passed() -> None:
    """Where the policy raises, the checks that it keeps from their work are not counted as passed."""

    class RaisesAtOnce(FCFS):
        def begin_pass(self) -> None:
            raise RuntimeError("no pass")

    report = check_policy(RaisesAtOnce, examples=5, claims=BOUND)
    assert report["life_cycle"].detail == "begin_pass() raised RuntimeError: no pass"
    assert report["bound"].status == "not run"
    assert "begin_pass() raised RuntimeError" in report["bound"].detail


def test_a_policy_that_spoils_its_input_is_found_out() -> None:
    """The table of weights belongs to whoever made it."""
    config = PolicyConfig(quantum=10, weights={})
    assert check_policy(SpoilsTheConfig, config=config, only=["inputs"])["inputs"].detail == (
        "the configuration was changed"
    )


def test_a_policy_that_changes_requests_is_told_so() -> None:
    """The verdict names the field; no other check takes the consequences for mistakes of the engine."""
    report = check_policy(ChangesRequests, only=["inputs", "conservation"], examples=20)
    assert report["inputs"].detail == "the request a1 was changed: max_output was 2, and is 1"
    assert report["conservation"].status == "not run"
    assert "was changed: max_output was" in report["conservation"].detail


@pytest.mark.parametrize("check", ["looking", "only_queued", "capacity"])
def test_a_plan_that_is_no_sequence_is_told_so(check: str) -> None:
    """And not as whatever Python says of generators."""
    verdict = check_policy(PlansOnce, only=[check], examples=5)[check]
    assert re.fullmatch(r"plan\(\) returned a \w+, expected a sequence of requests", verdict.detail)


@pytest.mark.parametrize(
    ("factory", "check", "detail"),
    [
        (GivesNoReceipt, "life_cycle", "take() returned None, expected a fairprefix.Receipt"),
        (WritesIntoTheIndex, "inputs", "the prefix index was changed: 1 blocks in it, 0 cached"),
        (KnowsNoBudget, "looking", "got an unexpected keyword argument 'budget'"),
    ],
)
def test_what_only_some_hosts_would_notice_is_noticed(factory: MakePolicy, check: str, detail: str) -> None:
    """Receipts, budgets and the index matter to some hosts alone; the kit stands for all of them."""
    verdict = check_policy(factory, only=[check], examples=10)[check]
    assert verdict.status == "failed"
    assert detail in verdict.detail


def test_a_policy_that_throws_dice_is_found_out() -> None:
    """One that decides differently each time fails, whether or not the difference can be reproduced."""
    report = check_policy(ByMood, only=["determinism"])
    assert report["determinism"].status == "failed"
