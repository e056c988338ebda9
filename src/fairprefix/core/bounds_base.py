"""What every bound is made of: the engine that it is computed for, the result, and the common arithmetic.

Letters as in the DLPM paper (arXiv 2501.14312): M tokens of KV memory, N running requests, L the longest prompt,
O the longest output, Q the quantum of a client of weight 1, w_e and w_q the cost of an extend and of an output
token. Every amount is in service units, or in service units per unit of weight where two clients are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil

from attrs import field, frozen

from fairprefix.core.cost import CostWeights
from fairprefix.core.errors import at_least, one_of, reject
from fairprefix.core.request import Client

DERIVED = "derived here"
FULL = "full"
NONE = "none"
GATED = "gated"
HELD = "held"
FREE = "free"
CHARGED = "charged"

BOTH_BACKLOGGED = "both clients have a request queued at every refill of the interval"
DEBT_KEPT = "a client's debt survives when it leaves and returns"
RESERVES_ALL = "prompt and longest output of every running request are reserved when it is admitted"
EVERYBODY_ADVANCES = (
    "a running request occupies at least one unshared prompt token and each output token produced, "
    "and all running requests produce in every step"
)
RESUME_IS_GATED = "a preempted request resumes only when its client may be admitted"
RESUME_IS_HELD = "running requests and those preempted but not yet resumed are never more than N together"


@frozen(kw_only=True)
class Engine:
    """How an engine admits requests, as far as a bound depends on it.

    Raises:
        ConfigError: a field is outside its valid range.
    """

    reservation: str
    """"full": prompt and longest output of a running request are reserved at admission. "none": a request is
    admitted on present occupancy, and preempted when memory runs out."""
    kv_tokens: int
    """M: tokens of KV memory, at least 2: a prompt and its output. An engine that stores a token only one step
    after producing it adds `max_running`."""
    max_running: int
    """N: the most requests that run at once."""
    longest_input: int
    """L: tokens of the longest prompt."""
    longest_output: int
    """O: the most output tokens of one request."""
    resume: str = GATED
    """"gated": a preempted request is queued again, the policy decides when it resumes. "held": the engine
    resumes it by itself. Without meaning when the reservation is "full": nothing is preempted then."""

    def __attrs_post_init__(self) -> None:
        """Refuse an engine that cannot exist."""
        one_of("engine.reservation", self.reservation, (FULL, NONE))
        one_of("engine.resume", self.resume, (GATED, HELD))
        at_least("engine.kv_tokens", self.kv_tokens, 2)
        at_least("engine.max_running", self.max_running, 1)
        at_least("engine.longest_input", self.longest_input, 1)
        at_least("engine.longest_output", self.longest_output, 1)

    def assumptions(self) -> tuple[str, ...]:
        """Return what this engine is taken to guarantee."""
        if self.reservation == FULL:
            return (RESERVES_ALL,)
        if self.resume == HELD:
            return (RESUME_IS_HELD,)
        return (EVERYBODY_ADVANCES, RESUME_IS_GATED)


@frozen(kw_only=True)
class Bound:
    """A theorem applied to numbers: what is promised, and under which assumptions."""

    name: str
    """What is bounded."""
    exact: Fraction
    """The bound, not rounded."""
    formula: str
    """How `exact` was computed, in the letters of this module."""
    source: str
    """Paper and theorem, or "derived here"."""
    assumptions: tuple[str, ...]
    """What has to hold; without it nothing is promised."""
    relation: str = field(default="<")
    """How the quantity relates to `exact`: "<", "<=", or ">=" for a bound from below that some history reaches."""
    unit: str = "service units per unit of weight"

    @property
    def value(self) -> int:
        """The bound rounded up to a whole unit; the relation still holds."""
        return ceil(self.exact)

    def admits(self, quantity: int | Fraction) -> bool:
        """Tell whether a quantity that was seen agrees with this bound; one from below excludes nothing."""
        if self.relation == "<":
            return quantity < self.exact
        return self.relation == ">=" or quantity <= self.exact


@frozen(kw_only=True)
class CounterRange:
    """Where a client's counter can be, in service units: `above` < counter <= `at_most`."""

    name: str
    above: int
    at_most: int
    formula: str
    source: str
    assumptions: tuple[str, ...]

    def __contains__(self, counter: int) -> bool:
        return self.above < counter <= self.at_most


def held_output(engine: Engine, cost: CostWeights) -> int:
    """Return B: the most output, in service units, that running requests of one client may still be charged.

    Under "full" everything that they may produce is reserved: w_q * min(M, N*O). Under "none" it is not, but
    requests that still have t tokens to produce will each fill t + 1 at the same time; there are at most
    M // (t + 1) of them, hence w_q * sum over t = 1..O of min(N, M // (t + 1)). An engine that resumes preempted
    requests by itself escapes that argument: N*O output tokens may follow.
    """
    if engine.reservation == FULL:
        return cost.output * min(engine.kv_tokens, engine.max_running * engine.longest_output)
    if engine.resume == HELD:
        return cost.output * engine.max_running * engine.longest_output
    return cost.output * _outstanding_tokens(engine)


def one_client_debt(engine: Engine, cost: CostWeights, recompute: str = FREE) -> int:
    """Return U: the most, in service units, that a client can be charged after its last admission was decided.

    Under "full" the prompt and the output share the memory: the largest w_e*e + w_q*o with e <= L, o <= N*O and
    e + o <= M, which is w_q*M + max(0, w_e - w_q)*L unless N*O is small. Under "none" it is w_e*L + B.

    Args:
        engine: how the engine admits.
        cost: what a token costs.
        recompute: "free" or "charged": whether tokens that are computed again after a preemption are charged,
            which makes an admission as large as w_e*(L + O).

    Raises:
        ConfigError: recomputation is charged although the engine resumes without asking: no bound exists.
    """
    longest = longest_extend(engine, recompute)
    if engine.reservation == NONE:
        return cost.extend * longest + held_output(engine, cost)
    tokens = min(engine.kv_tokens, engine.max_running * engine.longest_output)
    if cost.output >= cost.extend:
        prompt = min(longest, engine.kv_tokens - tokens)
        return cost.service(prompt, tokens)
    prompt = min(longest, engine.kv_tokens)
    return cost.service(prompt, min(tokens, engine.kv_tokens - prompt))


def longest_extend(engine: Engine, recompute: str) -> int:
    """Return the most tokens that one admission computes and charges (see `one_client_debt`)."""
    one_of("recompute", recompute, (FREE, CHARGED))
    if recompute == FREE or engine.reservation == FULL:
        return engine.longest_input
    if engine.resume == HELD:
        raise reject("recompute", recompute, "'free' when engine.resume is 'held': nothing limits it then")
    return engine.longest_input + engine.longest_output


def lightest_pair(weights: Mapping[Client, int]) -> tuple[int, int]:
    """Return the weights of the two lightest clients: the largest bound over all pairs is theirs.

    Raises:
        ConfigError: fewer than two clients, or a weight below 1.
    """
    if len(weights) < 2:  # noqa: PLR2004 - a pair is two
        raise reject("weights", dict(weights), "the weights of at least two clients")
    for client, weight in weights.items():
        at_least(f"weights[{client!r}]", weight, 1)
    lightest, second = sorted(weights.values())[:2]
    return lightest, second


def pair_gap(
    *, debt: int, excess: int, quantum: int, weights: Sequence[int], fresh_start: bool = False
) -> Fraction:
    """Return the gap of two clients whose counters stay in (-debt, weight*quantum + excess].

    Both are refilled equally often, so the service of each differs from its refills by how far its counter
    moved. From a fresh start both counters are 0 at first, and only their last values count.
    """
    light_f, light_g = (Fraction(1, weight) for weight in pair_of("weights", weights, 1))
    if fresh_start:
        return quantum + max(debt * light_f + excess * light_g, debt * light_g + excess * light_f)
    return (debt + excess) * (light_f + light_g) + 2 * quantum


def pair_of(name: str, values: Sequence[int], least: int) -> tuple[int, int]:
    """Return two integers of at least `least`, one for each client of a pair.

    Raises:
        ConfigError: there are not two, or one is too small.
    """
    if len(values) != 2:  # noqa: PLR2004 - a pair is two
        raise reject(name, values, "two integers, one for each client of the pair")
    first, second = (at_least(f"{name}[{i}]", value, least) for i, value in enumerate(values))
    return first, second


def _outstanding_tokens(engine: Engine) -> int:
    """Return the sum over t = 1..O of min(N, M // (t + 1)), in about 2*sqrt(M) steps."""
    memory, running = engine.kv_tokens, engine.max_running
    last = min(engine.longest_output + 1, memory)  # beyond that the floor is 0
    # While M // d >= N the smaller one is N.
    capped = min(last, memory // running)
    total = running * max(0, capped - 1)
    first = max(2, capped + 1)
    while first <= last:
        floor = memory // first
        end = min(last, memory // floor)  # the last divisor with that floor
        total += floor * (end - first + 1)
        first = end + 1
    return total
