"""What a policy claims: each claim switches checks on; claiming nothing leaves the universal ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from attrs import evolve, frozen

from fairprefix.core.bounds import (
    Bound,
    Engine,
    credit_both_backlogged,
    dlpm_backlogged_vs_any,
    dlpm_both_backlogged,
    lower_bound_work_conserving,
    vtc_backlogged_vs_any,
    vtc_both_backlogged,
    vtc_lemma,
)
from fairprefix.core.bounds_base import one_client_debt
from fairprefix.core.config import RECOMPUTATIONS, RESERVATIONS, PolicyConfig
from fairprefix.core.errors import at_least, one_of, reject
from fairprefix.core.ledger import View

BOUNDS = ("dlpm", "credit", "vtc")

OwnBound = Callable[[PolicyConfig, Engine, Sequence[int]], int | Fraction | Bound]
"""(config, engine, weights of f and g) -> what |W_f/weight_f - W_g/weight_g| stays below or reaches."""


@frozen(kw_only=True)
class Claims:
    """What a policy promises beyond keeping the life cycle of requests.

    Raises:
        ConfigError: a value is outside its range.
    """

    bound: str | OwnBound | None = None
    """On the gap of two backlogged clients: "dlpm" (deficit counters, published gate), "credit" (deficit
    counters, committed-credit gate) or "vtc" (virtual counters) mean the rule as well as its bound; a function
    of (config, engine, weights) claims that number and no particular rule."""
    weighted: bool = False
    """The bound holds in service per unit of weight, for any weights in `config.weights`."""
    locality_aware: bool = False
    """The longest cached prefix is first, among those who may be admitted."""
    keeps_debt: bool = False
    """The bound also holds between a backlogged client and one that leaves and comes back."""
    bounded_wait: int | None = None
    """k: every k-th admission takes the oldest request, and waits for it."""
    reservation: str = "full"
    """Engines that the bound is claimed for: "full" alone, or "none" as well."""
    recompute: str | None = None
    """Tokens that are computed again after a preemption are "free" or "charged"."""
    workers: int = 1
    """So many engines of one process may each have a policy of the factory: these share nothing."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        if self.bound is not None and not callable(self.bound):
            one_of("bound", self.bound, BOUNDS)
        one_of("reservation", self.reservation, RESERVATIONS)
        if self.recompute is not None:
            one_of("recompute", self.recompute, RECOMPUTATIONS)
        if self.bounded_wait is not None:
            at_least("bounded_wait", self.bounded_wait, 1)
        at_least("workers", self.workers, 1)
        if self.bound is None and (self.weighted or self.keeps_debt):
            raise reject("weighted, keeps_debt", (self.weighted, self.keeps_debt), "False without a bound")

    @property
    def rule(self) -> str | None:
        """The rule that is claimed along with the bound: dlpm, credit, vtc, or None."""
        return self.bound if isinstance(self.bound, str) else None

    @classmethod
    def of(cls, config: PolicyConfig) -> Claims:
        """Return what the policies of this package claim under a configuration."""
        wait = config.bounded_wait if config.policy in ("lpm", "dlpm") else 1
        local = config.policy in ("lpm", "dlpm") and wait != 1
        if config.policy in ("fcfs", "lpm"):
            return cls(locality_aware=local, bounded_wait=wait, recompute=config.recompute, workers=2)
        rule = "vtc" if config.policy == "vtc" else ("credit" if config.gate == "credit" else "dlpm")
        return cls(
            bound=rule,
            weighted=True,
            locality_aware=local,
            keeps_debt=True,
            bounded_wait=wait,
            reservation="none",
            recompute=config.recompute,
            workers=2,
        )


def promised(claims: Claims, config: PolicyConfig, engine: Engine, weights: Sequence[int]) -> Bound:
    """Return the claimed bound on the gap of two backlogged clients of these weights."""
    if claims.rule == "vtc":
        return vtc_both_backlogged(engine, config.cost, weights=weights)
    if claims.rule == "credit":
        return credit_both_backlogged(
            engine,
            config.cost,
            config.quantum,
            slack=config.slack,
            weights=weights,
            recompute=config.recompute,
        )
    if claims.rule == "dlpm":
        return dlpm_both_backlogged(
            engine,
            config.cost,
            config.quantum,
            weights=weights,
            overdraft=config.overdraft,
            recompute=config.recompute,
        )
    return _own(claims, config, engine, weights)


def promised_against_any(claims: Claims, config: PolicyConfig, engine: Engine, weights: Sequence[int]) -> Bound:
    """Return the claimed bound on the lead of any client (the second weight) over a backlogged one."""
    if claims.rule == "vtc":
        return _vtc_against_any(config, engine, weights)
    if claims.rule == "dlpm":
        return dlpm_backlogged_vs_any(
            engine,
            config.cost,
            config.quantum,
            weights=weights,
            overdraft=config.overdraft,
            recompute=config.recompute,
        )
    # The argument for the credit gate is that for the published one: g is refilled no more often than f.
    return promised(claims, config, engine, weights)


def _vtc_against_any(config: PolicyConfig, engine: Engine, weights: Sequence[int]) -> Bound:
    bound = vtc_backlogged_vs_any(engine, config.cost)
    behind, ahead = weights
    if behind == ahead == 1:
        return bound
    debt = vtc_lemma(engine, config.cost).exact
    exact, formula = debt / behind + 2 * debt / ahead, "U/weight_f + 2*U/weight_g"
    return evolve(bound, exact=exact, formula=formula, source="docs/theory.md, theorem 13")


def generous(config: PolicyConfig, engine: Engine) -> Bound:
    """Return what no policy should exceed before it serves a waiting client: for those that promise nothing."""
    least = lower_bound_work_conserving(engine, config.cost).exact
    debt = one_client_debt(engine, config.cost)
    return _bound(100 * (least + debt + config.quantum), "100 times what one batch and one quantum are worth")


def service_view(claims: Claims, config: PolicyConfig) -> View:
    """Return in which service the claim is counted: VTC promises what it charges, the others what was computed."""
    whole_prompts = claims.rule == "vtc" and config.vtc_charge == "input"
    return View.CLIENT if whole_prompts else View.ACTUAL


def _own(claims: Claims, config: PolicyConfig, engine: Engine, weights: Sequence[int]) -> Bound:
    if claims.bound is None or isinstance(claims.bound, str):
        raise reject("bound", claims.bound, "a claim")
    claimed = claims.bound(config, engine, weights)
    return claimed if isinstance(claimed, Bound) else _bound(Fraction(claimed), "the policy's own function")


def _bound(value: Fraction, formula: str) -> Bound:
    return Bound(
        name="gap of two backlogged clients, as claimed",
        exact=value,
        formula=formula,
        source="claimed by the policy",
        assumptions=(),
        relation="<=",
    )
