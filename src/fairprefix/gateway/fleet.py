"""All workers, and every request's way through one of them: routed, queued, let in, settled or given back, once.

Synchronous: nothing in here waits. A request belongs to one worker at a time; when that worker falls out, whoever
waits in its queue is routed anew, and whoever is inside finds out by the broken connection.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from time import monotonic, monotonic_ns

from fairprefix.core.request import Request
from fairprefix.core.router_base import BaseRouter
from fairprefix.core.routing import WorkerName
from fairprefix.core.worker_index import ExactIndex
from fairprefix.gateway.cacheview import CacheView, GuessedCache, ReportedCache
from fairprefix.gateway.config import Settings
from fairprefix.gateway.errors import TOO_MANY, UNAVAILABLE, GatewayError, no_worker
from fairprefix.gateway.promise import Promise
from fairprefix.gateway.tally import Tally
from fairprefix.gateway.turn import Place, Turn
from fairprefix.gateway.worker import MakePolicy, Worker

LOG = logging.getLogger("fairprefix.gateway")


class Fleet:
    """See above.

    Args:
        settings: the operator's.
        router: chooses workers; it knows none yet, or (restored) just the configured ones.
        make: makes the policies of queues.
        tally: counts.
    """

    def __init__(self, settings: Settings, router: BaseRouter, make: MakePolicy, tally: Tally) -> None:
        self.settings = settings
        self.router = router
        self.tally = tally
        self.retries: int = 0
        """Requests that were sent again after a failure."""
        self.waiting: int = 0
        """Requests in queues."""
        self.workers: dict[str, Worker] = {}
        for config in settings.workers:
            blocks = config.blocks or router.config.worker_blocks
            self.workers[config.name] = Worker(
                config,
                settings.policy,
                make,
                self._view(config.name, blocks),
                let_in=self._let_in,
                window=settings.gateway.window,
                on_error=_policy_failed,
            )
            if config.name not in router.workers:
                router.worker_joined(config.name, weight=config.weight, blocks=blocks)
        # A worker that runs fairprefix itself has an empty queue here, of which nothing can be promised.
        all_queue = not any(config.fairprefix for config in settings.workers)
        queues = {name: worker.queue for name, worker in self.workers.items()} if all_queue else None
        self.promise: Promise = Promise(settings.policy, queues, tally.followed)

    def _view(self, worker: WorkerName, blocks: int) -> CacheView:
        index, block_size = self.router.index, self.router.config.block_size
        if isinstance(index, ExactIndex):
            return ReportedCache(index, lambda: self.router.workers.named(worker).slot, block_size)
        return GuessedCache(blocks, block_size)

    # Requests.

    def check_room(self, client: str) -> None:
        """Refuse a request of a client whose own queue is full, and any while far too many wait.

        Raises:
            GatewayError: 429 or 503, with the reason.
        """
        limits = self.settings.gateway
        if self.tally.waiting(client) >= limits.max_queued:
            raise GatewayError(
                TOO_MANY,
                "client_queue_full",
                f"{limits.max_queued} requests of client {client!r} wait already: try again when some are done",
            )
        if self.waiting >= limits.max_waiting:
            raise GatewayError(UNAVAILABLE, "queue_full", f"{self.waiting} requests wait already: try again later")

    def enter(self, request: Request, reserve: int, *, places: int = 1) -> Turn:
        """Send a new request on its way; it may be inside when this returns.

        Args:
            request: what is asked for.
            reserve: output tokens to set aside for it, over all answers.
            places: how many answers are computed at once, each of which takes a place at the worker.

        Raises:
            GatewayError: no worker is alive.
        """
        turn = Turn(request, reserve, monotonic_ns(), places)
        self._bind(turn, ())
        return turn

    def delivered(self, turn: Turn, tokens: int) -> None:
        """Charge output as it is handed on."""
        self.workers[turn.worker].queue.produced(turn, tokens)
        self.tally.served(turn.request.client, output=tokens)

    def settle(self, turn: Turn, *, prompt: int, cached: int, output: int) -> None:
        """End a request that was served.

        Args:
            turn: a request that is inside.
            prompt: tokens of its prompt.
            cached: how many of these the worker had cached.
            output: output tokens that it produced.
        """
        assert turn.receipt is not None
        worker, client = self.workers[turn.worker], turn.request.client
        extend = max(prompt - cached, 0)
        self.tally.served(client, extend=extend - turn.receipt.extend, output=output - turn.charged_output)
        self.tally.let_out(client)
        self.promise.sized(extend=extend, output=output)
        self.tally.done(client, input_tokens=prompt, cached=cached, output=output)
        counts = worker.counts
        counts.requests += 1
        counts.input_tokens += prompt
        counts.cached_tokens += cached
        counts.output_tokens += output
        worker.queue.settle(turn, extend=extend, output=output)
        self.router.settle(turn.request.id, output=output, extend=extend)
        turn.place = Place.OVER

    def give_up(self, turn: Turn) -> None:
        """End a request that got nothing, wherever it is: nothing is charged. Again is no change."""
        if turn.place is not Place.OVER:
            self._unbind(turn)
            turn.place = Place.OVER

    def send_again(self, turn: Turn) -> None:
        """Send a request elsewhere of which nothing was delivered.

        Raises:
            GatewayError: no worker is alive.
        """
        failed = turn.worker
        self.retries += 1
        self._unbind(turn)
        self._bind(turn, (failed,))

    # Workers.

    def failed(self, worker: Worker, why: str, *, gone: bool) -> None:
        """Note that a worker failed to answer: one that is gone falls out at once, others after several times."""
        limits = self.settings.gateway
        worker.counts.failures += 1
        worker.failures_in_a_row += 1
        if gone:
            self.suspend(worker, why)
        elif worker.failures_in_a_row >= limits.breaker_failures:
            worker.rests_until = monotonic() + limits.breaker_rest_s
            self.suspend(worker, f"{worker.failures_in_a_row} failures in a row, the last one: {why}")

    def suspend(self, worker: Worker, why: str) -> None:
        """Take a worker out of rotation; those in its queue go elsewhere."""
        if not worker.alive:
            return
        LOG.warning("worker %s is out of rotation: %s", worker.name, why)
        worker.alive, worker.why = False, why
        worker.queue.open = False
        self.router.worker_suspended(worker.name)
        for turn in list(worker.queue.waiting.values()):
            self._unbind(turn)
            try:
                self._bind(turn, ())
            except GatewayError as problem:
                turn.lost = problem
                turn.wake()

    def resume(self, worker: Worker) -> None:
        """Take a worker into rotation again, with an empty cache: it may have been restarted."""
        if worker.alive:
            return
        LOG.warning("worker %s is back in rotation", worker.name)
        worker.alive, worker.why = True, ""
        worker.failures_in_a_row = 0
        worker.view.clear()
        if self.router.index.kind != ExactIndex.kind:  # of an exact one the worker's own events take care
            self.router.cleared(worker.name)
        self.router.worker_resumed(worker.name)
        worker.queue.open = True
        worker.queue.pump()

    def any_alive(self) -> Worker:
        """Return the worker with the fewest requests inside, for what is no generation.

        Raises:
            GatewayError: no worker is alive.
        """
        alive = [worker for worker in self.workers.values() if worker.alive]
        if not alive:
            raise no_worker()
        return min(alive, key=lambda worker: worker.queue.taken)

    # Inside.

    def _bind(self, turn: Turn, avoid: Collection[str]) -> None:
        request = turn.request
        choice = self.router.pick(request, now=monotonic_ns(), avoid=avoid)
        if choice is None and avoid:
            choice = self.router.pick(request, now=monotonic_ns())
        if choice is None:
            raise no_worker()
        turn.worker = choice.worker
        self.workers[choice.worker].queue.enter(turn)
        if turn.place is Place.WAITING:
            self._count(turn)

    def _unbind(self, turn: Turn) -> None:
        """Take a request out of wherever it is, and give back what it was charged."""
        client = turn.request.client
        if turn.place is Place.WAITING:
            self._uncount(turn)
        elif turn.place is Place.INSIDE:
            assert turn.receipt is not None
            self.tally.served(client, extend=-turn.receipt.extend, output=-turn.charged_output)
            self.tally.let_out(client)
        else:
            return
        self.workers[turn.worker].queue.withdraw(turn)
        self.router.refund(turn.request.id)

    def _count(self, turn: Turn) -> None:
        turn.counted = True
        self.waiting += 1
        self.tally.queued(turn.request.client, +1)
        if self.tally.waiting(turn.request.client) == 1:
            self.promise.queued(turn.request.client, waiting=True)

    def _uncount(self, turn: Turn) -> None:
        turn.counted = False
        self.waiting -= 1
        self.tally.queued(turn.request.client, -1)
        if not self.tally.waiting(turn.request.client):
            self.promise.queued(turn.request.client, waiting=False)

    def _let_in(self, worker: Worker, turn: Turn) -> None:
        assert turn.receipt is not None
        request = turn.request
        self.promise.sized(extend=turn.receipt.extend, output=turn.reserve)
        waited_ns = turn.admitted_ns - turn.arrived_ns
        self.tally.let_in(request.client, extend=turn.receipt.extend, waited_ns=waited_ns)
        if turn.counted:
            self._uncount(turn)
        worker.view.let_in(request)


def _policy_failed(problem: Exception) -> None:
    LOG.error("the policy failed, arrival order takes over: %s", problem, exc_info=problem)
