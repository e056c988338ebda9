"""The operator's side, on a listener of its own (loopback unless told otherwise): figures and state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, generate_latest

from fairprefix.gateway import ui
from fairprefix.gateway.gateway import Gateway
from fairprefix.gateway.view import deficit_of, describe
from fairprefix.hosting import Sample
from fairprefix.hosting.metrics import FiguresCollector

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Page = Callable[[], tuple[str, bytes]]
"""Returns the type and the body of a page."""

_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_LOCAL = frozenset(("localhost", "127.0.0.1", "[::1]"))


class AdminApp:
    """An ASGI application: `/metrics`, `/admin/state`, `/health`, `/ui`.

    Args:
        gateway: whose figures are shown.
        pages: further ones by path; by default the live page.
    """

    def __init__(self, gateway: Gateway, pages: Mapping[str, Page] | None = None) -> None:
        self._gateway = gateway
        self._hosts = _LOCAL | {gateway.settings.gateway.admin_host}
        # On another address whoever reaches it may call it by any name.
        self._checks_host = gateway.settings.gateway.admin_host in ("127.0.0.1", "::1", "localhost")
        self._pages: dict[str, Page] = {
            "/admin/state": self._state,
            "/metrics": self._metrics,
            "/health": lambda: ("application/json", b'{"status":"ok"}'),
            **(ui.pages() if pages is None else pages),
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        if scope["type"] != "http":
            return
        page = self._pages.get(scope["path"])
        if not self._is_ours(scope):
            await _respond(send, 403, "text/plain", b"this listener is for this machine: unexpected Host\n")
        elif page is None:
            known = " ".join(self._pages)
            await _respond(send, 404, "text/plain", f"not found; there are: {known}\n".encode())
        elif scope["method"] not in ("GET", "HEAD"):
            await _respond(send, 405, "text/plain", b"expected GET\n")
        else:
            kind, body = page()
            await _respond(send, 200, kind, body)

    def _is_ours(self, scope: Message) -> bool:
        """Refuse what a web page elsewhere makes a browser here ask for under a name of its own."""
        if not self._checks_host:
            return True
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "localhost")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return name in self._hosts

    def _state(self) -> tuple[str, bytes]:
        gateway = self._gateway
        state = describe(gateway.fleet, gateway.callers.spoofed, events=gateway.events, ledgers=gateway.ledgers)
        return "application/json", orjson.dumps(state)

    def _metrics(self) -> tuple[str, bytes]:
        registry = CollectorRegistry()
        registry.register(FiguresCollector(lambda: samples(self._gateway)))
        return _TEXT, generate_latest(registry)


def samples(gateway: Gateway) -> Iterator[Sample]:
    """Yield every figure. Clients are told apart up to the configured number, workers are those configured."""
    fleet = gateway.fleet
    yield from fleet.tally.samples()
    for name in fleet.tally.clients:
        deficit = deficit_of(fleet, name)
        if deficit is not None:
            help = "Deficit counter over all queues, in service units."
            yield Sample("fairprefix_deficit_tokens", help, deficit, {"fairness_id": name})
    bound = fleet.promise.bound() if gateway.ledgers is None else None
    if bound:
        help = "Largest gap divided by its bound."
        ratio = float(fleet.tally.gap) / bound.total
        yield Sample("fairprefix_bound_ratio", help, ratio, {"bound": "a_posteriori"})
    yield from _of_workers(gateway)
    yield from _of_sharing(gateway)
    for name, text, value in (
        ("retries_total", "Requests that were sent again.", fleet.retries),
        ("spoofed_identity_total", "Requests of untrusted peers that named a client.", gateway.callers.spoofed),
        ("slow_readers_total", "Clients that were cut off.", gateway.cut_off),
    ):
        yield Sample(f"fairprefix_{name}", text, value, {}, "counter")
    help = "The most refills that a client missed at a worker while it waited at others."
    yield Sample("fairprefix_missed_refills", help, fleet.promise.missed_refills)
    yield Sample("fairprefix_requests_open", "Requests under way.", len(gateway.exchanges))
    for status, count in gateway.responses.items():
        yield Sample("fairprefix_errors_total", "The gateway's errors.", count, {"status": str(status)}, "counter")


def _of_workers(gateway: Gateway) -> Iterator[Sample]:
    for worker in gateway.fleet.workers.values():
        labels = {"worker": worker.name}
        queue, counts = worker.queue, worker.counts
        for name, text, value in (
            ("worker_alive", "Whether the worker is in rotation.", int(worker.alive)),
            ("worker_in_flight", "Places taken at the worker.", queue.taken),
            ("worker_queue_depth", "Requests in the worker's queue.", len(queue.waiting)),
            ("worker_prefix_hit_ratio", "Prompt tokens found cached, as a share.", counts.hit_rate),
        ):
            yield Sample(f"fairprefix_{name}", text, value, labels)
        if queue.window is not None:
            yield Sample("fairprefix_worker_window", "Places at the worker.", queue.window, labels)
        for name, text, value in (
            ("worker_requests_total", "Requests that the worker served.", counts.requests),
            ("worker_failures_total", "Answers that failed.", counts.failures),
            ("policy_errors_total", "Failures of the queue's policy.", queue.policy.errors),
            ("policy_stalls_total", "Times the policy offered nobody although nothing ran.", queue.stalls),
        ):
            yield Sample(f"fairprefix_{name}", text, value, labels, "counter")
        rounds = queue.policy.rounds
        if rounds is not None:
            yield Sample("fairprefix_quantum_refills_total", "Refill rounds.", rounds, labels, "counter")


def _of_sharing(gateway: Gateway) -> Iterator[Sample]:
    """Yield how well this gateway knows of its workers' caches, and of other gateways."""
    for feed in gateway.events:
        for name, value in feed.state().items():
            yield Sample(
                f"fairprefix_kv_events_{name}", "A worker's cache events.", value, {"worker": feed.worker}
            )
    if gateway.ledgers is not None:
        for name, figure in gateway.ledgers.state().items():
            yield Sample(f"fairprefix_sharing_{name}", "The ledger that gateways share.", figure)


async def _respond(send: Send, status: int, kind: str, body: bytes) -> None:
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", ui.POLICY.encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
