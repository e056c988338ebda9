"""The configuration, and what else refuses bad figures: each message names the field, the value and the range."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fairprefix.core.config import GATES, POLICIES, RECOMPUTATIONS, RESERVATIONS, VTC_CHARGES, PolicyConfig
from fairprefix.core.cost import CostWeights
from fairprefix.core.errors import ConfigError, FairprefixError, at_least, nearest, one_of
from fairprefix.core.request import Request

SOURCES = "client_id, api_key, lora, session, or one of header, body, xargs followed by :NAME"

BAD: list[tuple[str, object, str]] = [
    (
        "policy",
        "dplm",
        "policy = 'dplm' is not valid: expected one of fcfs, lpm, vtc, dlpm (did you mean 'dlpm'?)",
    ),
    ("policy", "random", "policy = 'random' is not valid: expected one of fcfs, lpm, vtc, dlpm"),
    ("policy", None, "policy = None is not valid: expected one of fcfs, lpm, vtc, dlpm"),
    ("quantum", 0, "quantum = 0 is not valid: expected an integer >= 1"),
    ("quantum", 10.5, "quantum = 10.5 is not valid: expected an integer >= 1"),
    ("quantum", True, "quantum = True is not valid: expected an integer >= 1"),
    ("quantum", "8192", "quantum = '8192' is not valid: expected an integer >= 1"),
    ("gate", "credits", "gate = 'credits' is not valid: expected one of deficit, credit (did you mean 'credit'?)"),
    ("slack", -1, "slack = -1 is not valid: expected an integer >= 0"),
    ("overdraft", -1, "overdraft = -1 is not valid: expected an integer >= 0"),
    ("bounded_wait", 0, "bounded_wait = 0 is not valid: expected an integer >= 1"),
    ("weights", ["a"], "weights = ['a'] is not valid: expected a table of client names and integer weights"),
    ("weights", {"a": 0}, "weights['a'] = 0 is not valid: expected an integer >= 1"),
    ("weights", {"a": 1.5}, "weights['a'] = 1.5 is not valid: expected an integer >= 1"),
    ("default_weight", 0, "default_weight = 0 is not valid: expected an integer >= 1"),
    (
        "vtc_charge",
        "inputs",
        "vtc_charge = 'inputs' is not valid: expected one of input, extend (did you mean 'input'?)",
    ),
    ("reservation", "ful", "reservation = 'ful' is not valid: expected one of full, none (did you mean 'full'?)"),
    ("recompute", 0, "recompute = 0 is not valid: expected one of free, charged"),
    ("cost_extend", -1, "cost_extend = -1 is not valid: expected an integer >= 0"),
    ("cost_output", -2, "cost_output = -2 is not valid: expected an integer >= 0"),
    ("max_clients", 0, "max_clients = 0 is not valid: expected an integer >= 1"),
    ("identity", (), f"identity = () is not valid: expected a list of at least one source: {SOURCES}"),
    (
        "identity",
        "api_key",
        f"identity = 'api_key' is not valid: expected a list of at least one source: {SOURCES}",
    ),
    ("identity", ("header:",), f"identity source = 'header:' is not valid: expected {SOURCES}"),
    ("identity", ("cookie:x",), f"identity source = 'cookie:x' is not valid: expected {SOURCES}"),
    ("identity", ("header",), f"identity source = 'header' is not valid: expected {SOURCES}"),
    ("identity", (7,), f"identity source = 7 is not valid: expected {SOURCES}"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_a_bad_value_is_named_with_its_range(name: str, value: object, message: str) -> None:
    """The error names the field, the value and what would be valid, and suggests the nearest word."""
    with pytest.raises(ConfigError) as caught:
        PolicyConfig.from_mapping({name: value})
    assert str(caught.value) == message


def test_every_setting_can_be_wrong() -> None:
    """No setting takes whatever it is given: there is a bad value for each."""
    assert {name for name, _, _ in BAD} == set(PolicyConfig().to_mapping())


def test_overdraft_and_the_credit_gate_exclude_each_other() -> None:
    """The credit gate has slack in place of overdraft, and says so."""
    with pytest.raises(ConfigError) as caught:
        PolicyConfig(gate="credit", overdraft=5)
    assert str(caught.value) == "overdraft = 5 is not valid: expected 0 with gate 'credit' (its knob is slack)"


def test_a_cost_function_that_charges_nothing_is_refused() -> None:
    """At least one of the two cost weights is positive."""
    with pytest.raises(ConfigError, match=r"cost_extend \+ cost_output = 0 is not valid: expected"):
        PolicyConfig(cost_extend=0, cost_output=0)
    assert PolicyConfig(cost_extend=0).cost.service(100, 3) == 6


@pytest.mark.parametrize(
    ("key", "guess"), [("quantun", "quantum"), ("weight", "weights"), ("bounded_wai", "bounded_wait")]
)
def test_an_unknown_key_suggests_the_nearest(key: str, guess: str) -> None:
    """An unknown key is an error that suggests the nearest setting and lists all of them."""
    with pytest.raises(ConfigError) as caught:
        PolicyConfig.from_mapping({key: 1})
    known = ", ".join(PolicyConfig().to_mapping())
    assert str(caught.value) == f"unknown setting {key!r} (did you mean {guess!r}?); known: {known}"


def test_an_unknown_key_that_is_near_to_nothing_has_no_suggestion() -> None:
    """A key that resembles no setting is listed without a guess."""
    with pytest.raises(ConfigError, match="unknown setting 'zzz'; known: policy, quantum, "):
        PolicyConfig.from_mapping({"zzz": 1})


def test_a_configuration_is_a_table() -> None:
    """What is not a table of settings is refused as a whole."""
    not_a_table: Any = ["policy"]
    with pytest.raises(ConfigError, match=r"configuration = \['policy'\] is not valid: expected a table"):
        PolicyConfig.from_mapping(not_a_table)


@given(
    st.builds(
        PolicyConfig,
        policy=st.sampled_from(POLICIES),
        quantum=st.integers(1),
        gate=st.sampled_from(GATES),
        slack=st.integers(0),
        bounded_wait=st.none() | st.integers(1),
        weights=st.dictionaries(st.text(min_size=1), st.integers(1)),
        default_weight=st.integers(1),
        vtc_charge=st.sampled_from(VTC_CHARGES),
        reservation=st.sampled_from(RESERVATIONS),
        recompute=st.sampled_from(RECOMPUTATIONS),
        identity=st.lists(st.sampled_from(["client_id", "header:x", "body:user", "xargs:a:b"]), min_size=1).map(
            tuple
        ),
    )
)
def test_a_configuration_survives_json(config: PolicyConfig) -> None:
    """What `to_mapping` returns goes through JSON and `from_mapping` unchanged."""
    assert PolicyConfig.from_mapping(json.loads(json.dumps(config.to_mapping()))) == config


def test_a_client_without_a_weight_has_the_default() -> None:
    """`weight` returns a client's own weight, or the default."""
    config = PolicyConfig(weights={"a": 5}, default_weight=2)
    assert (config.weight("a"), config.weight("b")) == (5, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input_tokens": 0}, "request 'r1': input_tokens = 0 is not valid: expected an integer >= 1"),
        ({"max_output": 0}, "request 'r1': max_output = 0 is not valid: expected an integer >= 1"),
        ({"max_output": 1.0}, "request 'r1': max_output = 1.0 is not valid: expected an integer >= 1"),
        ({"client": ""}, "request 'r1': client = '' is not valid: expected a non-empty name"),
    ],
)
def test_a_request_that_no_engine_can_serve_is_refused(changed: dict[str, Any], message: str) -> None:
    """A request has a client, a prompt and room for output."""
    good: dict[str, Any] = {"id": "r1", "client": "a", "input_tokens": 1, "max_output": 1}
    assert Request(**good).blocks == ()
    with pytest.raises(ConfigError) as caught:
        Request(**(good | changed))
    assert str(caught.value) == message


def test_two_requests_are_equal_only_if_they_are_the_same() -> None:
    """Requests are compared by identity, so that comparing long prompts costs nothing."""
    first, second = Request("r1", "a", 1, 1), Request("r1", "a", 1, 1)
    assert first != second
    assert len({first, second}) == 2


def test_service_is_weighted() -> None:
    """Service is w_e * extend + w_q * output."""
    assert CostWeights().service(10, 3) == 16
    assert CostWeights(3, 5).service(10, 3) == 45


def test_errors_can_be_caught_together() -> None:
    """Every error raised on purpose is a FairprefixError, and a bad parameter is a ValueError besides."""
    with pytest.raises(FairprefixError):
        at_least("n", 0, 1)
    with pytest.raises(ValueError, match="n = 0"):
        at_least("n", 0, 1)
    assert at_least("n", 1, 1) == 1
    assert one_of("word", "one", ["one"]) == "one"
    assert nearest("xyz", ["abc"]) == ""


@pytest.mark.parametrize("client", ["", 5])
def test_weights_are_given_by_name(client: object) -> None:
    """A client in the table of weights has a name, which is text and not empty."""
    with pytest.raises(ConfigError, match=r"weights: client = .* expected a non-empty name"):
        PolicyConfig(weights={client: 2})  # type: ignore[dict-item]  # what a file may say
