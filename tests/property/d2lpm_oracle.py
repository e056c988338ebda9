"""D2LPM transcribed from Algorithm 2 (arXiv 2501.14312): tables, loops and lists, and nothing of the library.

What the paper leaves open is filled in the most literal way: of equally loaded workers the one that was chosen, or
joined, longest ago;
prompts, outputs and weights as described where the options are documented. A worker that is suspended, or to be
avoided, has no say in whether all are refilled.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field


@dataclass
class OracleWorker:
    """A worker, with a list of its cached blocks, the least recently used one first."""

    weight: int
    capacity: int
    s: int = 0
    last: int = 0
    suspended: bool = False
    cached: list[int] = field(default_factory=list)

    def match(self, path: Sequence[int]) -> int:
        """Return how many leading blocks are cached."""
        length = 0
        while length < len(path) and path[length] in self.cached:
            length += 1
        return length

    def send(self, path: Sequence[int]) -> None:
        """Cache a prompt, its end to be evicted before its beginning."""
        for block in reversed(path[: self.capacity]):
            if block in self.cached:
                self.cached.remove(block)
            self.cached.append(block)
        while len(self.cached) > self.capacity:
            self.cached.pop(0)


@dataclass
class OracleRequest:
    """A request that is out."""

    client: str
    worker: str
    extend: int
    output: int


@dataclass
class D2LPMOracle:
    """The dispatcher."""

    quantum: int
    w_e: int
    w_q: int
    charge_extend: bool
    predict: str
    workers: dict[str, OracleWorker] = field(default_factory=dict)
    q: dict[str, dict[str, int]] = field(default_factory=dict)
    """By client and worker; a client is in here from its first pick on."""
    weights: dict[str, int] = field(default_factory=dict)
    averages: dict[str, int] = field(default_factory=dict)
    out: dict[str, OracleRequest] = field(default_factory=dict)
    picks: int = 0
    """Dispatches, and workers that joined."""

    def gain(self, client: str, worker: str) -> int:
        """Return what one refill brings."""
        return self.quantum * self.weights.get(client, 1) * self.workers[worker].weight

    def join(self, name: str, weight: int, capacity: int) -> None:
        """Enter a worker as after a refill."""
        self.picks += 1
        self.workers[name] = OracleWorker(weight, capacity, last=self.picks)
        for client, table in self.q.items():
            table[name] = self.gain(client, name)

    def leave(self, name: str) -> list[str]:
        """Forget a worker."""
        gone = [id for id, request in self.out.items() if request.worker == name]
        for id in gone:
            self.refund(id)
        del self.workers[name]
        for table in self.q.values():
            del table[name]
        return gone

    def pick(
        self, id: str, client: str, path: Sequence[int], sizes: tuple[int, int], avoid: Collection[str]
    ) -> str | None:
        """SELECT_WORKER, and the dispatch."""
        usable = [name for name, worker in self.workers.items() if not worker.suspended and name not in avoid]
        if id in self.out:
            if self.out[id].worker in usable:
                return self.out[id].worker
            self.refund(id)
        if not usable:
            return None
        input_tokens, max_output = sizes
        q = self.q.setdefault(client, dict.fromkeys(self.workers, 0))
        while not any(q[w] > 0 for w in usable):
            for w in self.workers:
                if q[w] <= 0:
                    q[w] += self.gain(client, w)
        longest = max(self.workers[w].match(path) for w in usable)
        g = [w for w in usable if longest and self.workers[w].match(path) == longest]
        a = [w for w in usable if q[w] > 0]
        c = [w for w in g if w in a]
        chosen = min(c or a, key=lambda w: (self.workers[w].s, self.workers[w].last))
        worker = self.workers[chosen]
        extend = input_tokens
        if self.charge_extend:
            extend -= min(worker.match(path), input_tokens - 1)
        predicted = {"finish": 0, "max": max_output}.get(
            self.predict, min(self.averages.get(client, max_output), max_output)
        )
        q[chosen] -= self.w_e * extend + self.w_q * predicted
        worker.s += 1
        self.picks += 1
        worker.last = self.picks
        worker.send(path)
        self.out[id] = OracleRequest(client, chosen, extend, predicted)
        return chosen

    def settle(self, id: str, output: int, extend: int | None) -> None:
        """Stream 2: a request is done."""
        request = self.out.pop(id)
        late = extend - request.extend if self.charge_extend and extend is not None else 0
        self.q[request.client][request.worker] -= self.w_e * late + self.w_q * (output - request.output)
        self.workers[request.worker].s -= 1
        known = self.averages.get(request.client)
        self.averages[request.client] = output if known is None else (4 * known + output) // 5

    def refund(self, id: str) -> None:
        """Undo a dispatch."""
        request = self.out.pop(id)
        self.q[request.client][request.worker] += self.w_e * request.extend + self.w_q * request.output
        self.workers[request.worker].s -= 1
