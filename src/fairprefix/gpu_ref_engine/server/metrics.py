"""Figures in Prometheus' format: those of the policy, of the engine and of HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from fairprefix.gpu_ref_engine.config import Nobody
from fairprefix.gpu_ref_engine.engine import Engine
from fairprefix.gpu_ref_engine.job import Finish, Job
from fairprefix.gpu_ref_engine.profile import PHASES
from fairprefix.hosting import HostedPolicy, Sample
from fairprefix.hosting.metrics import FiguresCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NS = 1_000_000_000
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)


class Metrics(Nobody):
    """Observes an engine, and writes everything out when asked.

    Args:
        model: its name, a label of every figure.
    """

    def __init__(self, model: str) -> None:
        self._labels = {"model_name": model}
        self._registry = CollectorRegistry()
        names = ("model_name",)

        def histogram(name: str, help: str) -> Histogram:
            made = Histogram(name, help, names, registry=self._registry, buckets=_SECONDS)
            return made.labels(model)

        self._ttft = histogram("fairprefix_time_to_first_token_seconds", "From arrival to the first output token.")
        self._e2e = histogram("fairprefix_request_seconds", "From arrival to the last output token.")
        self._wait = histogram("fairprefix_queue_wait_seconds", "From arrival to the first admission.")
        self._ends = Counter(
            "fairprefix_finished_total", "Requests that are over.", (*names, "reason"), registry=self._registry
        )
        self._responses = Counter(
            "fairprefix_http_responses_total", "HTTP responses.", (*names, "status"), registry=self._registry
        )

    def admitted(self, job: Job, at: int, *, extend: int, charged: int, again: bool) -> None:  # noqa: ARG002
        """Take down how long a request has waited."""
        if not again:
            self._wait.observe((at - job.arrived_ns) / _NS)

    def finished(self, job: Job) -> None:
        """Take down a request that is over."""
        over = job.over or Finish.ERROR
        self._ends.labels(**self._labels, reason=over.value).inc()
        if job.first_token_ns >= 0:
            self._ttft.observe((job.first_token_ns - job.arrived_ns) / _NS)
        if over in (Finish.STOP, Finish.LENGTH):
            self._e2e.observe((job.finished_ns - job.arrived_ns) / _NS)

    def responded(self, status: int) -> None:
        """Count a response."""
        self._responses.labels(**self._labels, status=str(status)).inc()

    def text(self, samples: list[Sample]) -> bytes:
        """Return everything in Prometheus' text format, with samples that were taken in the engine's thread."""
        registry = CollectorRegistry()
        registry.register(FiguresCollector(lambda: samples, self._labels))
        return generate_latest(registry) + generate_latest(self._registry)


def engine_samples(engine: Engine) -> list[Sample]:
    """Return the figures of an engine and of its policy; in the engine's thread only."""
    policy = engine.policy
    own = list(_engine_samples(engine))
    # The time from arrival to admission is a histogram here.
    hidden = ("fairprefix_queue_wait_seconds_total",)
    return own + [
        sample
        for sample in (policy.samples() if isinstance(policy, HostedPolicy) else ())
        if sample.name not in hidden
    ]


def _engine_samples(engine: Engine) -> Iterator[Sample]:
    cache = engine.cache
    used = cache.pages - cache.available
    for name, text, value in (
        ("requests_running", "Requests that run.", engine.running),
        ("requests_waiting", "Requests that wait.", engine.waiting),
        ("kv_pages", "Pages of KV memory.", cache.pages),
        ("kv_pages_used", "Pages that running requests hold.", used),
        ("kv_pages_cached", "Pages that nobody holds, kept for whoever asks the same.", cache.evictable),
    ):
        yield Sample(f"fairprefix_{name}", text, value)
    for name, text, value in (
        ("steps_total", "Steps.", engine.profile.steps),
        ("preemptions_total", "Requests that were preempted.", engine.preemptions),
        ("evicted_pages_total", "Cached pages that were evicted.", cache.evicted_pages),
        ("policy_stalls_total", "Times the policy offered nobody although nothing ran.", engine.stalls),
    ):
        yield Sample(f"fairprefix_{name}", text, value, {}, "counter")
    shares: Mapping[str, float] = engine.profile.shares()
    for phase in PHASES:
        yield Sample("fairprefix_step_share", "Share of the latest steps' time.", shares[phase], {"phase": phase})
