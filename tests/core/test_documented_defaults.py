"""What a host may leave out counts as what the documentation says, in the interface and behind it."""

from __future__ import annotations

import inspect

import pytest

from fairprefix.core.base import BasePolicy
from fairprefix.core.bounds import Engine, dlpm_both_backlogged, over_workers
from fairprefix.core.cost import CostWeights
from fairprefix.core.errors import ConfigError
from fairprefix.core.ledger_view import LedgerView
from fairprefix.core.monitor import BoundMonitor
from fairprefix.core.policy import Policy
from fairprefix.core.router_base import BaseRouter
from fairprefix.core.routing import Router

ENGINE = Engine(reservation="full", kv_tokens=10, max_running=2, longest_input=4, longest_output=4)


@pytest.mark.parametrize(("interface", "made"), [(Policy, BasePolicy), (Policy, LedgerView), (Router, BaseRouter)])
def test_whoever_stands_behind_an_interface_takes_what_it_says(interface: type, made: type) -> None:
    """Names, order and defaults of all parameters are the same."""
    # Mutation testing puts copies beside the methods, with other letters in their names.
    methods = [
        name
        for name, value in vars(interface).items()
        if inspect.isfunction(value) and name.isascii() and name[0] != "_"
    ]
    assert len(methods) > 8
    for name in methods:
        promised, kept = (
            [
                (one.name, one.kind, one.default)
                for one in inspect.signature(getattr(each, name)).parameters.values()
            ]
            for each in (interface, made)
        )
        assert kept == promised, name


def test_who_missed_no_refill_need_not_say_so() -> None:
    """The bounds of workers add up, and nothing is added."""
    one = dlpm_both_backlogged(ENGINE, CostWeights(), 1)
    assert over_workers([one, one], 1).exact == 2 * one.exact
    with pytest.raises(ConfigError, match=r"^quantum = 0 .* integer >= 1"):
        over_workers([one], 0)


def test_a_host_that_knows_no_holds_need_not_tell_any() -> None:
    """Then the bound from what was seen knows prompts alone."""
    monitor = BoundMonitor(CostWeights(), quantum=10)
    assert monitor.sized(input_tokens=9, extend=4, charged=4) == 4
    assert monitor.a_posteriori is not None
    assert monitor.a_posteriori.exact == 2 * (4 + 10)
