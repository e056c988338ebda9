"""One configuration schema for every host: file, environment, flags and keyword arguments end up here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from attrs import Factory, frozen

from fairprefix.core.cost import CostWeights
from fairprefix.core.errors import ConfigError, at_least, nearest, one_of, reject
from fairprefix.core.request import Client

POLICIES = ("fcfs", "lpm", "vtc", "dlpm")
GATES = ("deficit", "credit")
RESERVATIONS = ("full", "none")
RECOMPUTATIONS = ("free", "charged")
VTC_CHARGES = ("input", "extend")
DEFAULT_IDENTITY = ("client_id", "header:x-llm-d-inference-fairness-id", "header:x-tenant-id", "api_key")


@frozen(kw_only=True)
class PolicyConfig:
    """Everything that shapes a policy; every value is checked when the object is made.

    A policy ignores what does not concern it (FCFS has no quantum), so that one configuration can be tried
    under several policies.

    Raises:
        ConfigError: a value is outside its range; the message names the field, the value and the range.
    """

    policy: str = "dlpm"
    """fcfs, lpm, vtc or dlpm."""
    quantum: int = 2048
    """Q: service units that a client of weight 1 gets at each refill (DLPM)."""
    gate: str = "deficit"
    """DLPM: admit while the deficit counter is positive (deficit, as published), or while the counter less
    the outstanding output is (credit: a bound that does not depend on the engine's reservation mode)."""
    slack: int = 65536
    """S: with the credit gate, a client holds back the refill only while its counter exceeds this; a larger
    slack keeps the engine busier, a smaller one tightens the bound."""
    overdraft: int = 0
    """With the deficit gate: while no request of a client with credit finds room, others may be admitted
    down to a counter of -overdraft."""
    bounded_wait: int | None = None
    """Every how many admissions of a client (LPM: of all) its oldest request is taken; None: never."""
    weights: Mapping[Client, int] = Factory(dict)
    """Share of service per client; a client of weight 2 gets twice what a client of weight 1 gets."""
    default_weight: int = 1
    vtc_charge: str = "input"
    """VTC charges the whole prompt (input, as published) or its extend tokens (extend)."""
    reservation: str = "full"
    """How the engine admits: `full` reserves prompt and longest output, `none` looks at present occupancy."""
    recompute: str = "free"
    """Whether tokens that are computed again after a preemption are charged again."""
    cost_extend: int = 1
    """w_e: service units per extend token."""
    cost_output: int = 2
    """w_q: service units per output token."""
    max_clients: int = 10_000
    """Accounts that are kept; further names share one."""
    identity: tuple[str, ...] = DEFAULT_IDENTITY
    """Where a host finds the client's name, first match wins: client_id, api_key, header:NAME, body:FIELD,
    xargs:FIELD, lora, session."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        one_of("policy", self.policy, POLICIES)
        one_of("gate", self.gate, GATES)
        one_of("vtc_charge", self.vtc_charge, VTC_CHARGES)
        one_of("reservation", self.reservation, RESERVATIONS)
        one_of("recompute", self.recompute, RECOMPUTATIONS)
        for name in ("quantum", "default_weight", "max_clients"):
            at_least(name, getattr(self, name), 1)
        for name in ("slack", "overdraft"):
            at_least(name, getattr(self, name), 0)
        if self.bounded_wait is not None:
            at_least("bounded_wait", self.bounded_wait, 1)
        if self.gate == "credit" and self.overdraft:
            raise reject("overdraft", self.overdraft, "0 with gate 'credit' (its knob is slack)")
        if not isinstance(self.weights, Mapping):
            raise reject("weights", self.weights, "a table of client names and integer weights")
        for client, weight in self.weights.items():
            _check_name("weights: client", client)
            at_least(f"weights[{client!r}]", weight, 1)
        _check_identity(self.identity)
        self.cost  # noqa: B018 (building it checks both weights)

    @property
    def cost(self) -> CostWeights:
        """The cost function."""
        return CostWeights(self.cost_extend, self.cost_output)

    def weight(self, client: Client) -> int:
        """Return a client's weight."""
        return self.weights.get(client, self.default_weight)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> PolicyConfig:
        """Build a configuration from parsed JSON, TOML or YAML.

        Raises:
            ConfigError: a key is unknown (the nearest name is suggested) or a value is not valid.
        """
        if not isinstance(values, Mapping):
            raise reject("configuration", values, "a table of settings")
        known = [attribute.name for attribute in attrs.fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown setting {key!r}{nearest(str(key), known)}; known: {', '.join(known)}")
        given = dict(values)
        if isinstance(given.get("identity"), list):
            given["identity"] = tuple(given["identity"])
        return cls(**given)

    def to_mapping(self) -> dict[str, Any]:
        """Return the settings as JSON-serialisable data that `from_mapping` reads."""
        values = {attribute.name: getattr(self, attribute.name) for attribute in attrs.fields(type(self))}
        return values | {"weights": dict(self.weights), "identity": list(self.identity)}


def _check_name(field: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        raise reject(field, name, "a non-empty name (text)")


_IDENTITY_WORDS = ("client_id", "api_key", "lora", "session")
_IDENTITY_KINDS = ("header", "body", "xargs")


def _check_identity(sources: object) -> None:
    valid = f"{', '.join(_IDENTITY_WORDS)}, or one of {', '.join(_IDENTITY_KINDS)} followed by :NAME"
    if not isinstance(sources, tuple) or not sources:
        raise reject("identity", sources, f"a list of at least one source: {valid}")
    for source in sources:
        kind, colon, name = source.partition(":") if isinstance(source, str) else ("", "", "")
        if not (source in _IDENTITY_WORDS or (kind in _IDENTITY_KINDS and colon and name)):
            raise reject("identity source", source, valid)
