"""The kit tells what it found, repeats it for the same seed, and refuses wrong arguments."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument
from hypothesis.stateful import run_state_machine_as_test

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError
from fairprefix.core.fcfs import FCFS
from fairprefix.core.history import Replay
from fairprefix.testing import Claims, ConformanceError, check_policy, policy_machine, strategies
from fairprefix.testing.checks import CHECKS, NAMES
from fairprefix.testing.events import Arrive, EngineLimits, History, Step
from fairprefix.testing.lab import Lab, Subject
from fairprefix.testing.mutants.deficit import CountsInFloats, ForgivesDebt
from fairprefix.testing.runner import SMALL

BOUND = Claims(bound="dlpm", keeps_debt=True)


# Reports.


def test_a_report_tells_every_failure() -> None:
    """The text has a line for every check that ran and the story of each failure; the error carries the same."""
    report = check_policy(CountsInFloats, examples=30, only=["termination", "conservation", "bound"], claims=BOUND)
    text = report.to_text()
    assert "1 failed" in text
    assert "passed   termination" in text
    assert "failed   conservation" in text
    assert "=> snapshot.state.accounts.accounts[0].balance = 9.0 is no integer" in text
    assert "found with seed 0" in text
    with pytest.raises(ConformanceError) as raised:
        report.raise_if_failed()
    assert str(raised.value) == text
    assert raised.value.report is report


def test_a_report_is_plain_data() -> None:
    """Everything can be written as JSON: verdicts, stories, the picture's numbers and the log."""
    report = check_policy(CountsInFloats, examples=30, only=["conservation"])
    data = json.loads(json.dumps(report.to_mapping()))
    assert data["ok"] is False
    (verdict,) = [verdict for verdict in data["verdicts"] if verdict["status"] == "failed"]
    assert verdict["check"] == "conservation"
    assert verdict["story"]["timeline"]["service"]["a"][-1] == [0, 3]
    assert verdict["story"]["timeline"]["backlogged"]["a"] == [[0, 0]]


def test_a_story_can_be_replayed() -> None:
    """The log of a story is a history that the library replays, and its repr makes the same history."""
    verdict = check_policy(ForgivesDebt, examples=200, only=["rejoin_bound"], claims=BOUND)["rejoin_bound"]
    story = verdict.story
    assert story is not None
    replay = Replay(story.log[0])
    decisions = [decision for event in story.log[1:] if (decision := replay.step(event))]
    assert len(decisions) > 10
    names = {"History": History, "EngineLimits": EngineLimits, "Arrive": Arrive, "Step": Step}
    assert eval(repr(story.history), names) == story.history  # noqa: S307


def test_the_same_seed_tells_the_same_story() -> None:
    """Two runs with one seed find the same; another seed may find another history."""
    first, second = (check_policy(FCFS, only=["refill_rules"], claims=BOUND, seed=7) for _ in range(2))
    assert first["refill_rules"].story == second["refill_rules"].story
    assert first["refill_rules"].status == "failed"
    assert first["refill_rules"].seed == 7


def test_what_is_not_claimed_is_not_checked() -> None:
    """Claiming nothing leaves the universal checks; each other one names the claim that it needs."""
    report = check_policy(make_policy, examples=1)
    skipped = {verdict.check: verdict.detail for verdict in report.verdicts if verdict.status == "skipped"}
    assert skipped["bound"] == "needs the claim bound"
    assert skipped["bounded_wait"] == "needs the claim bounded_wait"
    universal = {check.name for check in CHECKS if check.enabled_by == "always"}
    assert set(skipped) == set(NAMES) - universal


def test_a_check_can_be_left_out() -> None:
    """`skip` and `only` choose checks by name."""
    report = check_policy(make_policy, examples=1, only=["capacity", "inputs"], skip=["inputs"])
    assert [verdict.check for verdict in report.verdicts if verdict.status == "passed"] == ["capacity"]


def test_running_out_of_time_is_no_failure() -> None:
    """A check that finds nothing in its time has passed, and says how far it got."""
    verdict = check_policy(make_policy, examples=100_000, only=["termination"], time_limit_s=0.3)["termination"]
    assert verdict.status == "passed"
    assert verdict.detail == f"time ran out after {verdict.examples} histories"


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"examples": 0}, "examples = 0 is not valid: expected an integer >= 1"),
        ({"only": ["boundd"]}, "check = 'boundd' is not valid"),
        ({"skip": ["terminate"]}, "did you mean 'termination'"),
        ({"time_limit_s": 0}, "time_limit_s = 0 is not valid"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    """The error names the argument, its value and what is valid."""
    with pytest.raises(ConfigError, match=message):
        check_policy(make_policy, **arguments)


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"bound": "dlmp"}, "did you mean 'dlpm'"),
        ({"reservation": "half"}, "reservation = 'half' is not valid"),
        ({"recompute": "never"}, "recompute = 'never' is not valid"),
        ({"bounded_wait": 0}, "bounded_wait = 0 is not valid"),
        ({"workers": 0}, "workers = 0 is not valid"),
        ({"keeps_debt": True}, "False without a bound"),
    ],
)
def test_a_wrong_claim_is_refused(claims: dict[str, Any], message: str) -> None:
    """Claims are checked when they are made."""
    with pytest.raises(ConfigError, match=message):
        Claims(**claims)


def test_a_bound_of_ones_own_is_checked() -> None:
    """A function claims a number and no rule: DLPM keeps a generous one, and not a tiny one."""

    def checked(units: int) -> str:
        claims = Claims(bound=lambda _config, _engine, _weights: units)
        report = check_policy(make_policy, claims=claims, only=["bound", "refill_rules"])
        assert report["refill_rules"].status == "skipped"
        return report["bound"].status

    assert (checked(10_000), checked(1)) == ("passed", "failed")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: strategies.clients(names=()),
        lambda: strategies.clients(names="abc"),
        lambda: strategies.clients(min_size=4),
        lambda: strategies.prefix_trees(max_children=10),
        lambda: strategies.engine_limits(unit=0),
        lambda: strategies.engine_limits(max_memory=11),
        lambda: strategies.engine_limits(reservations=("half",)),
        lambda: strategies.requests(limits=EngineLimits(kv_tokens=6)),
        lambda: strategies.histories(kinds=(Step,)),
        lambda: strategies.histories(max_events=0),
        lambda: strategies.configurations(max_quantum=True),
        lambda: strategies.weights(max_weight=0),
    ],
)
def test_a_strategy_checks_its_arguments_at_once(wrong: Callable[[], object]) -> None:
    """Wrong arguments are refused when the strategy is made, not when it is drawn from."""
    with pytest.raises(InvalidArgument):
        wrong()


@given(st.data())
@settings(max_examples=50)
def test_strategies_make_valid_values(data: st.DataObject) -> None:
    """Clients, trees, configurations and histories are valid, and every history ends under FCFS."""
    names = data.draw(strategies.clients(min_size=2))
    tree = data.draw(strategies.prefix_trees())
    assert () in tree
    assert all(chain[:-1] in tree for chain in tree if chain)
    assert data.draw(strategies.configurations(names=names)).quantum >= 1
    limits = data.draw(strategies.engine_limits())
    events = data.draw(strategies.workloads(limits=limits, names=names, prefixes=tree))
    assert {type(event) for event in events} <= {Arrive, Step}
    assert {event.client for event in events if isinstance(event, Arrive)} <= set(names)
    assert isinstance(events[0], Arrive)
    history = data.draw(strategies.histories(names=names, prefixes=tree))
    trace = Lab(Subject(FCFS, SMALL, Claims())).run(history)
    assert trace.broken is None
    finished = [fact for fact in trace.facts if type(fact).__name__ == "Finished"]
    assert len(finished) == len(trace.clients)


# The state machine.

_QUICK = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


@pytest.mark.parametrize("values", [{}, {"gate": "credit"}, {"policy": "vtc"}, {"policy": "lpm"}])
def test_the_machine_accepts_the_shipping_policies(values: dict[str, Any]) -> None:
    """Longer histories, judged after every event, find nothing wrong."""
    config = PolicyConfig(**({"quantum": 10, "slack": 20} | values))
    run_state_machine_as_test(
        policy_machine(make_policy, config=config, claims=Claims.of(config)), settings=_QUICK
    )


def test_the_machine_interrupts_a_look_that_does_not_return() -> None:
    """What the machine itself asks has a time limit as well."""

    class NeverValid(FCFS):
        def validate(self) -> None:
            while True:
                time.sleep(0.01)

    machine = policy_machine(NeverValid)
    machine.limit_s = 0.3
    with pytest.raises(AssertionError, match=r"validate\(\) does not return"):
        run_state_machine_as_test(machine, settings=settings(_QUICK, max_examples=2, phases=[Phase.generate]))


def test_the_machine_finds_a_wrong_rule() -> None:
    """A policy that breaks its rule fails with the rule's own message."""
    machine = policy_machine(FCFS, claims=BOUND)
    with pytest.raises(AssertionError, match="is offered without credit"):
        run_state_machine_as_test(machine, settings=settings(_QUICK, max_examples=100, phases=[Phase.generate]))


# Installation.


def run_python(code: str) -> str:
    """Return what a program prints in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout  # noqa: S603


def test_without_hypothesis_one_sentence_says_what_to_install() -> None:
    """Importing the kit without its extra tells the command that installs it, and no chain of exceptions."""
    code = (
        "import sys\n"
        "sys.modules['hypothesis'] = None\n"
        "try:\n"
        "    import fairprefix.testing\n"
        "except ImportError as error:\n"
        "    print(error, error.__cause__, error.__suppress_context__)\n"
    )
    sentence = "fairprefix.testing needs Hypothesis: pip install 'fairprefix[testing]'"
    assert run_python(code) == f"{sentence} None True\n"


def test_the_kit_needs_neither_pytest_nor_the_simulator() -> None:
    """Hypothesis is all that it imports beyond the core."""
    code = (
        "import sys, fairprefix.testing, fairprefix.testing.mutants\n"
        "print([name for name in ('pytest', 'fairprefix.sim', 'fairprefix.cli', 'numpy') if name in sys.modules])"
    )
    assert run_python(code) == "[]\n"
