"""What each client got over all workers, what waits, and how the largest gap compares with its bound.

Counters grow when a request is over, by what the worker has reported: they are the ledger that users look at. The
gap is followed as service happens: prompts when they are let in, output as it comes, corrected at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from attrs import define

from fairprefix.core.config import PolicyConfig
from fairprefix.core.ledger import jain_index
from fairprefix.core.monitor import BoundMonitor
from fairprefix.core.request import Client
from fairprefix.hosting import Sample
from fairprefix.hosting.batched import BatchedMonitor
from fairprefix.hosting.figures import OTHER

_BATCH = 64
_NS = 1_000_000_000
_SCALE = 1 << 10
_MEMORY = 256
"""Requests over which the usual cost is an average."""


@define(eq=False)
class ClientTally:
    """What one client got."""

    requests: int = 0
    failed: int = 0
    """Requests that ended in an error of ours, or of the workers."""
    refused: int = 0
    """Requests that were turned away."""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    queued: int = 0
    running: int = 0

    @property
    def hit_rate(self) -> float:
        """Cached tokens as a share of prompt tokens."""
        return self.cached_tokens / self.input_tokens if self.input_tokens else 0.0


SAVED = ("requests", "failed", "refused", "input_tokens", "cached_tokens", "output_tokens")


class Tally:
    """Counts, in bounded memory: beyond `names` clients, further ones are counted together.

    Args:
        config: the policy's parameters.
        names: clients that are told apart.
        top: clients among which gaps are followed exactly.
    """

    def __init__(self, config: PolicyConfig, *, names: int, top: int = 8) -> None:
        self.clients: dict[Client, ClientTally] = {}
        self.wait_ns: int = 0
        """Time in queues, over all requests that were let in."""
        self.admissions: int = 0
        self.answered: int = 0
        """Requests that were served."""
        self._usual = 0
        """What one costs, scaled."""
        self.followed: dict[Client, None] = {}
        """Whose gaps are followed exactly: the first `top` clients that are heard of, as the monitor has it."""
        self.monitor: BoundMonitor = BoundMonitor(
            config.cost, weights=config.weights, default_weight=config.default_weight, top=top
        )
        self._batches = BatchedMonitor(self.monitor, _BATCH)
        self._config = config
        self._cost = config.cost
        self._most = names
        self._top = top

    # Events.

    def arrived(self, client: Client) -> None:
        """Count a request."""
        self.of(client).requests += 1

    def queued(self, client: Client, change: int) -> None:
        """Note that `change` (+1 or -1) requests of a client wait more than before."""
        self._hear_of(client)
        self.of(client).queued += change
        self._batches.queued(client, change)

    def let_in(self, client: Client, *, extend: int, waited_ns: int) -> None:
        """Count a request that gets inside, with the estimates of that moment."""
        self.of(client).running += 1
        self.wait_ns += waited_ns
        self.admissions += 1
        self.served(client, extend=extend)

    def served(self, client: Client, *, extend: int = 0, output: int = 0) -> None:
        """Note service for the gap; negative figures correct what was noted earlier."""
        if not extend and not output:
            return
        self._hear_of(client)
        self._batches.charge(client, self._cost.service(extend, output))
        self._batches.step()

    def let_out(self, client: Client) -> None:
        """Count a request that is not inside any more."""
        self.of(client).running -= 1

    def done(self, client: Client, *, input_tokens: int, cached: int, output: int) -> None:
        """Count what a request got."""
        tally = self.of(client)
        tally.input_tokens += input_tokens
        tally.cached_tokens += cached
        tally.output_tokens += output
        cost = self._cost.service(input_tokens - cached, output) * _SCALE
        self._usual += (cost - self._usual) // min(self.answered + 1, _MEMORY)
        self.answered += 1

    # Queries.

    def of(self, client: Client) -> ClientTally:
        """Return a client's counters, or those of all others together."""
        found = self.clients.get(client)
        if found is None:
            name = client if len(self.clients) < self._most else OTHER
            found = self.clients.setdefault(name, ClientTally())
        return found

    def waiting(self, client: Client) -> int:
        """Return how many requests of a client wait."""
        return self._batches.waiting.get(client, 0)

    def service(self) -> dict[Client, int]:
        """Return the service units of each client."""
        return {
            name: self._cost.service(of.input_tokens - of.cached_tokens, of.output_tokens)
            for name, of in self.clients.items()
        }

    @property
    def gap(self) -> Fraction:
        """The largest service gap of two clients that both waited, in service units per unit of weight."""
        self._batches.flush()
        return self.monitor.largest_gap.exact

    @property
    def usual_cost(self) -> int:
        """What a request costs of late, on average, in service units; 0 before the first one."""
        return -(-self._usual // _SCALE)

    @property
    def hit_rate(self) -> float:
        """Cached tokens as a share of all prompt tokens."""
        prompt = sum(of.input_tokens for of in self.clients.values())
        return sum(of.cached_tokens for of in self.clients.values()) / prompt if prompt else 0.0

    def jain(self) -> float:
        """Return Jain's index of service per weight."""
        weight = self._config.weight
        index = jain_index(Fraction(units, weight(name)) for name, units in self.service().items())
        return 1.0 if index is None else float(index)

    def samples(self) -> Iterator[Sample]:
        """Yield every figure."""
        for field, name, help, kind in _COLUMNS:
            for client, of in self.clients.items():
                labels = {"fairness_id": client}
                yield Sample(f"fairprefix_{name}", help, getattr(of, field), labels, kind)
        for client, units in self.service().items():
            help = "Service units received."
            yield Sample("fairprefix_attained_service_tokens", help, units, {"fairness_id": client})
        yield Sample("fairprefix_prefix_hit_ratio", "Prompt tokens found cached, as a share.", self.hit_rate)
        help = "What a request costs of late, in service units: what a quantum should be near."
        yield Sample("fairprefix_usual_request_cost_tokens", help, self.usual_cost)
        yield Sample("fairprefix_jains_fairness_index", "Jain's index of service per weight.", self.jain())
        yield Sample("fairprefix_largest_gap_tokens", "Largest service gap of two clients that both waited.",
                     float(self.gap))  # fmt: skip
        help = "Time from arrival to being let in."
        yield Sample("fairprefix_queue_wait_seconds_total", help, self.wait_ns / _NS, {}, "counter")
        yield Sample("fairprefix_admissions_total", "Requests let in.", self.admissions, {}, "counter")

    # State.

    def dump(self) -> dict[str, dict[str, int]]:
        """Return the counters as plain data."""
        return {name: {field: getattr(of, field) for field in SAVED} for name, of in self.clients.items()}

    def load(self, data: dict[str, dict[str, int]]) -> None:
        """Read back what `dump` returned."""
        for name, saved in data.items():
            tally = self.of(name)
            for field in SAVED:
                setattr(tally, field, getattr(tally, field) + saved[field])

    # Inside.

    def _hear_of(self, client: Client) -> None:
        if len(self.followed) < self._top:
            self.followed.setdefault(client)


_COLUMNS = (
    ("requests", "request_total", "Requests that arrived.", "counter"),
    ("failed", "request_failed_total", "Requests that ended in an error.", "counter"),
    ("refused", "request_refused_total", "Requests that were turned away.", "counter"),
    ("input_tokens", "request_input_tokens_total", "Prompt tokens of requests that are over.", "counter"),
    ("cached_tokens", "request_cached_tokens_total", "Prompt tokens that were found cached.", "counter"),
    ("output_tokens", "request_output_tokens_total", "Output tokens delivered.", "counter"),
    ("queued", "queue_depth", "Requests that wait.", "gauge"),
    ("running", "requests_running", "Requests at workers.", "gauge"),
)
