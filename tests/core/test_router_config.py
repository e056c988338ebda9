"""The configuration of routers: every field is checked when it is set, and the message says how to do better."""

from __future__ import annotations

from typing import Any

import pytest

from fairprefix.core.errors import ConfigError
from fairprefix.core.router_catalog import make_router
from fairprefix.core.router_config import ROUTERS, RouterConfig


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("router", "d2lmp", r"router = 'd2lmp' .* \(did you mean 'd2lpm'\?\)"),
        ("prompt_charge", "all", "^prompt_charge = 'all' .* one of input, extend"),
        ("output_charge", 3, "^output_charge = 3 .* one of finish, max, average"),
        ("index", "guess", "^index = 'guess' .* one of approximate, exact"),
        *((name, 0, f"{name} = 0 .* integer >= 1") for name in ("quantum", "max_clients", "block_size")),
        *((name, 0, f"{name} = 0 .* integer >= 1") for name in ("worker_blocks", "hash_blocks", "hash_points")),
        *((name, 0, f"{name} = 0 .* integer >= 1") for name in ("default_weight", "window")),
        *((name, -1, f"{name} = -1 .* integer >= 0") for name in ("balance_abs", "seed", "prefill_ns")),
        ("decode_ns", 1.5, "decode_ns = 1.5 .* integer >= 0"),
        ("balance_rel_percent", 99, "balance_rel_percent = 99 .* integer >= 100"),
        ("load_percent", 99, "load_percent = 99 .* integer >= 100"),
        ("match_percent", 101, "match_percent = 101 .* percentage from 0 to 100"),
        ("match_percent", -1, "match_percent = -1"),
        ("weights", 3, "weights = 3 .* table of client names"),
        ("weights", {"": 1}, "a non-empty name"),
        ("weights", {1: 1}, "a non-empty name"),
        ("weights", {"a": 0}, r"weights\['a'\] = 0"),
        ("cost_extend", -1, "cost_extend = -1"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(field: str, value: object, message: str) -> None:
    """The error names the field, the value and the range, before anything runs."""
    with pytest.raises(ConfigError, match=message):
        RouterConfig(**{field: value})  # type: ignore[arg-type]


def test_values_at_the_ends_of_their_ranges_are_taken() -> None:
    """No percent and all of them; the smallest weight."""
    assert [RouterConfig(match_percent=percent).match_percent for percent in (0, 100)] == [0, 100]
    assert RouterConfig(weights={"a": 1}).weight("a") == 1


def test_a_mapping_is_read_and_written() -> None:
    """to_mapping and from_mapping are each other's inverse; weights have a default."""
    config = RouterConfig(router="preble", weights={"a": 2})
    assert RouterConfig.from_mapping(config.to_mapping()) == config
    assert (config.weight("a"), config.weight("b")) == (2, 1)


def test_unknown_settings_are_refused() -> None:
    """A misspelt name is an error that suggests the nearest one."""
    with pytest.raises(ConfigError, match=r"unknown router setting 'quantun' \(did you mean 'quantum'\?\)"):
        RouterConfig.from_mapping({"quantun": 1})
    wrong: Any = ["quantum"]
    with pytest.raises(ConfigError, match="a table of settings"):
        RouterConfig.from_mapping(wrong)


@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_is_made_by_the_catalog(name: str) -> None:
    """The name in the configuration is the router's own."""
    assert make_router(RouterConfig(router=name)).name == name
