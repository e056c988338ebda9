"""Live figures of a host: what each client got, what waits, and how the largest gap compares with its bound.

Bounded: so many clients are told apart, further ones are counted together as "other". The monitor is told of a
step together, and of output in batches of steps, since a gap is a matter of thousands of tokens:
the largest gap may exceed what is seen by what was charged in one batch, and never falls short of it.

Cost: O(clients that produced) a step; O(clients + `top`^2) for one that admits, or when a client comes or goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

from attrs import define, frozen

from fairprefix.core.bounds import Engine
from fairprefix.core.compiling import mypyc_attr
from fairprefix.core.config import PolicyConfig
from fairprefix.core.guarantee import guarantee
from fairprefix.core.ledger import jain_index
from fairprefix.core.monitor import BoundMonitor
from fairprefix.core.request import Client
from fairprefix.hosting.batched import BatchedMonitor

OTHER = "other"
"""Who stands for all clients beyond those that are told apart."""

_MOST_NAMES = 1000
_STEPS_IN_A_BATCH = 64
_NS = 1_000_000_000


@frozen
class Sample:
    """One figure, as Prometheus has it."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = {}
    kind: str = "gauge"
    """gauge, or counter."""


@define(eq=False)
class _Client:
    """What one client got; tokens, not service units."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    extend_tokens: int = 0
    output_tokens: int = 0
    recomputed_tokens: int = 0
    waiting: int = 0


@mypyc_attr(allow_interpreted_subclasses=True)
class Figures:
    """Counts what happens at a host.

    Args:
        config: the policy's parameters.
        limits: the engine's, for the bound; None: no bound is known.
        top: clients among which gaps are followed exactly; for the others an upper bound is kept.
        names: clients that are told apart.
    """

    def __init__(
        self, config: PolicyConfig, limits: Engine | None = None, *, top: int = 8, names: int = _MOST_NAMES
    ) -> None:
        self._config = config
        self._most = names
        self._clients: dict[Client, _Client] = {}
        self._pick_ns = self._picks = self._wait_ns = self._first_admissions = 0
        # Whoever will come, at least two have the default weight, or a lighter one that is configured.
        weights = {**config.weights, "any": config.default_weight, "any other": config.default_weight}
        promised = guarantee(config, limits, weights) if limits else None
        self.monitor: BoundMonitor = BoundMonitor(
            config.cost,
            weights=config.weights,
            default_weight=config.default_weight,
            bound=promised.bound if promised else None,
            quantum=config.quantum if config.policy == "dlpm" else None,
            overdraft=config.overdraft,
            **({"view": promised.view} if promised else {}),
            top=top,
        )
        self._batches = BatchedMonitor(self.monitor, _STEPS_IN_A_BATCH)

    # Events.

    def arrived(self, client: Client) -> None:
        """Count a request."""
        self._of(client).requests += 1

    def queued(self, client: Client, change: int) -> None:
        """Note that `change` (+1 or -1) requests of a client wait more than before."""
        (self._clients.get(client) or self._of(client)).waiting += change
        self._batches.queued(client, change)

    def admitted(
        self, client: Client, *, input_tokens: int, extend: int, charged: int, hold: int, waited_ns: int
    ) -> None:
        """Count a first admission, of a request that waited; `hold` is h of the client in service units."""
        figures = self._clients.get(client) or self._of(client)
        figures.input_tokens += input_tokens
        figures.extend_tokens += extend
        if extend < input_tokens:
            figures.cached_tokens += input_tokens - extend
        self._wait_ns += waited_ns
        self._first_admissions += 1
        units = self.monitor.sized(input_tokens=input_tokens, extend=extend, charged=charged, hold=hold)
        batches = self._batches
        batches.pending[client] = batches.pending.get(client, 0) + units
        batches.admitted = True
        figures.waiting -= 1
        batches.queued(client, -1)

    def recomputed(self, client: Client, tokens: int) -> None:
        """Count tokens that are computed again after a preemption."""
        self._of(client).recomputed_tokens += tokens

    def produced(self, tokens: Mapping[Client, int]) -> None:
        """Count output tokens of one step."""
        if self._batches.admitted:
            self._batches.flush()
        pending, output_cost, known = self._batches.pending, self._config.cost_output, self._clients
        for client, count in tokens.items():
            pending[client] = pending.get(client, 0) + output_cost * count
            (known.get(client) or self._of(client)).output_tokens += count
        self._batches.step()

    def picked(self, nanoseconds: int) -> None:
        """Count the time of one decision."""
        self._picks += 1
        self._pick_ns += nanoseconds

    # Queries.

    @property
    def names(self) -> list[Client]:
        """The clients that are told apart, and "other" if there are more."""
        return list(self._clients)

    @property
    def bound_ratio(self) -> float | None:
        """The largest gap divided by the bound that holds for this engine in advance; None without one."""
        self._batches.flush()
        ratio = self.monitor.bound_ratio
        return None if ratio is None else float(ratio)

    @property
    def bound_ratio_so_far(self) -> float | None:
        """The largest gap divided by the bound that follows from the sizes seen so far; None without one."""
        self._batches.flush()
        bound = self.monitor.a_posteriori
        return None if bound is None or not bound.exact else float(self.monitor.largest_gap.exact / bound.exact)

    @property
    def hit_rate(self) -> float:
        """Cached tokens as a share of all prompt tokens admitted."""
        prompt = sum(figures.input_tokens for figures in self._clients.values())
        return sum(figures.cached_tokens for figures in self._clients.values()) / prompt if prompt else 0.0

    def service(self) -> dict[Client, int]:
        """Return the service units that each client has received; recomputation is not service."""
        self._batches.flush()
        cost = self._config.cost
        return {name: cost.service(of.extend_tokens, of.output_tokens) for name, of in self._clients.items()}

    def samples(self) -> Iterator[Sample]:
        """Yield every figure."""
        yield from self._of_clients()
        yield from self._of_all()

    # Inside.

    def _of_clients(self) -> Iterator[Sample]:
        service = self.service()
        columns: list[tuple[str, str, str, Callable[[str, _Client], int]]] = [
            ("request_total", "Requests that arrived.", "counter", lambda _, of: of.requests),
            ("request_input_tokens_total", "Prompt tokens admitted.", "counter", lambda _, of: of.input_tokens),
            ("request_cached_tokens_total", "Prompt tokens found cached at first admission.", "counter",
             lambda _, of: of.cached_tokens),
            ("request_output_tokens_total", "Output tokens produced.", "counter", lambda _, of: of.output_tokens),
            ("recomputed_tokens_total", "Tokens computed again after a preemption.", "counter",
             lambda _, of: of.recomputed_tokens),
            ("queue_depth", "Requests that wait.", "gauge", lambda _, of: of.waiting),
            ("attained_service_tokens", "Service units received.", "gauge", lambda name, _: service[name]),
        ]  # fmt: skip
        for name, text, kind, figure in columns:
            for client, of in self._clients.items():
                yield Sample(f"fairprefix_{name}", text, figure(client, of), {"fairness_id": client}, kind)

    def _of_all(self) -> Iterator[Sample]:
        monitor = self.monitor
        yield Sample("fairprefix_prefix_hit_ratio", "Prompt tokens found cached, as a share.", self.hit_rate)
        yield Sample("fairprefix_jains_fairness_index", "Jain's index of service per weight.", self._jain())
        yield Sample("fairprefix_largest_gap_tokens", "Largest service gap of two clients that both waited.",
                     float(monitor.largest_gap.exact))  # fmt: skip
        for kind, ratio in (("a_priori", self.bound_ratio), ("a_posteriori", self.bound_ratio_so_far)):
            if ratio is not None:
                yield Sample("fairprefix_bound_ratio", "Largest gap divided by its bound.", ratio, {"bound": kind})
        for name, text, value in (
            ("pick_duration_seconds_total", "Time spent on choosing requests.", self._pick_ns / _NS),
            ("picks_total", "Choices made.", self._picks),
            ("queue_wait_seconds_total", "Time from arrival to first admission.", self._wait_ns / _NS),
            ("admissions_total", "First admissions.", self._first_admissions),
        ):
            yield Sample(f"fairprefix_{name}", text, value, {}, "counter")

    def _jain(self) -> float:
        service = self.service()
        index = jain_index(Fraction(units, self._config.weight(name)) for name, units in service.items())
        return 1.0 if index is None else float(index)

    def _of(self, client: Client) -> _Client:
        figures = self._clients.get(client)
        if figures is None:
            name = client if len(self._clients) < self._most else OTHER
            figures = self._clients.setdefault(name, _Client())
        return figures
