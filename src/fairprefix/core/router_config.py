"""One configuration schema for all routing policies; every value is checked when the object is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from attrs import Factory, frozen

from fairprefix.core.cost import CostWeights
from fairprefix.core.errors import ConfigError, at_least, nearest, one_of, reject
from fairprefix.core.request import Client

ROUTERS = (
    *("d2lpm", "preble", "cache_aware", "dualmap", "consistent_hash"),
    *("least_loaded", "power_of_two", "rr", "client_rr"),
)
"""Routers that bind a request to a worker when it arrives."""
INDEX_KINDS = ("approximate", "exact")
PROMPT_CHARGES = ("input", "extend")
OUTPUT_CHARGES = ("finish", "max", "average")


@frozen(kw_only=True)
class RouterConfig:
    """Everything that shapes a router. A router ignores what does not concern it.

    Raises:
        ConfigError: a value is outside its range; the message names the field, the value and the range.
    """

    router: str = "d2lpm"
    """d2lpm, preble, cache_aware, dualmap, consistent_hash, least_loaded, power_of_two, rr or client_rr."""
    quantum: int = 20_000
    """D2LPM: Q^w, service units that a client of weight 1 gets for each worker of weight 1 at a refill; the
    larger, the longer a client stays where its prefix is cached."""
    prompt_charge: str = "input"
    """D2LPM charges the whole prompt at dispatch (input, as published), or what the worker is not taken to have
    cached (extend)."""
    output_charge: str = "finish"
    """D2LPM charges output when a request is done (finish, as published: without limit while many are out), or a
    prediction at dispatch, settled in the end: its longest output (max), or what is usual for the client
    (average)."""
    weights: Mapping[Client, int] = Factory(dict)
    """D2LPM: share of service per client."""
    default_weight: int = 1
    cost_extend: int = 1
    """w_e: service units per prompt token."""
    cost_output: int = 2
    """w_q: service units per output token."""
    max_clients: int = 10_000
    """Idle clients that are remembered."""
    block_size: int = 16
    """Tokens per block of the requests' hashes."""
    index: str = "approximate"
    """What is cached where: by what was sent there (approximate), or by the workers' own events (exact)."""
    worker_blocks: int = 32_768
    """Blocks that a worker's cache holds, where the host does not say."""
    balance_abs: int = 64
    """cache_aware, dualmap: workers are out of balance when their loads differ by more than this..."""
    balance_rel_percent: int = 150
    """...and by more than this factor, in percent. preble: of two loads, when the larger one is redirected."""
    match_percent: int = 30
    """cache_aware: share of the prompt that has to be cached for locality to decide."""
    hash_blocks: int = 16
    """consistent_hash, dualmap: blocks of the prompt's beginning that are hashed."""
    hash_points: int = 64
    """consistent_hash: points of each worker on the ring."""
    load_percent: int = 125
    """consistent_hash: the most load of a worker, in percent of the average."""
    seed: int = 0
    """power_of_two, dualmap, consistent_hash: goes into every hash."""
    window: int = 180_000_000_000
    """preble: H, nanoseconds of history that loads are computed from."""
    prefill_ns: int = 80_000
    """preble: time to compute a prompt token."""
    decode_ns: int = 800_000
    """preble: time to compute an output token."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        one_of("router", self.router, ROUTERS)
        one_of("prompt_charge", self.prompt_charge, PROMPT_CHARGES)
        one_of("output_charge", self.output_charge, OUTPUT_CHARGES)
        one_of("index", self.index, INDEX_KINDS)
        for name in ("quantum", "default_weight", "max_clients", "block_size", "worker_blocks"):
            at_least(name, getattr(self, name), 1)
        for name in ("hash_blocks", "hash_points", "window"):
            at_least(name, getattr(self, name), 1)
        for name in ("balance_abs", "seed", "prefill_ns", "decode_ns"):
            at_least(name, getattr(self, name), 0)
        for name in ("balance_rel_percent", "load_percent"):
            at_least(name, getattr(self, name), 100)
        if at_least("match_percent", self.match_percent, 0) > 100:  # noqa: PLR2004 (percent)
            raise reject("match_percent", self.match_percent, "a percentage from 0 to 100")
        if not isinstance(self.weights, Mapping):
            raise reject("weights", self.weights, "a table of client names and integer weights")
        for client, weight in self.weights.items():
            if not client or not isinstance(client, str):
                raise reject("weights: client", client, "a non-empty name (text)")
            at_least(f"weights[{client!r}]", weight, 1)
        self.cost  # noqa: B018 (building it checks both weights)

    @property
    def cost(self) -> CostWeights:
        """The cost function."""
        return CostWeights(self.cost_extend, self.cost_output)

    def weight(self, client: Client) -> int:
        """Return a client's weight."""
        return self.weights.get(client, self.default_weight)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> RouterConfig:
        """Build a configuration from parsed JSON, TOML or YAML.

        Raises:
            ConfigError: a key is unknown (the nearest name is suggested) or a value is not valid.
        """
        if not isinstance(values, Mapping):
            raise reject("router configuration", values, "a table of settings")
        known = [attribute.name for attribute in attrs.fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(
                    f"unknown router setting {key!r}{nearest(str(key), known)}; known: {', '.join(known)}"
                )
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """Return the settings as JSON-serialisable data that `from_mapping` reads."""
        values = {attribute.name: getattr(self, attribute.name) for attribute in attrs.fields(type(self))}
        return values | {"weights": dict(self.weights)}
