"""The component inside a Dynamo runtime: registers as the model that frontends see, and serves it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from dynamo.llm import (
    KvRouter,
    KvRouterConfig,
    ModelInput,
    ModelRuntimeConfig,
    ModelType,
    WorkerType,
    register_model,
)
from dynamo.runtime import DistributedRuntime

from fairprefix.adapters.dynamo.component import Chunk, Component
from fairprefix.adapters.dynamo.settings import Settings
from fairprefix.core.routing import WorkerName
from fairprefix.hosting.figures import Sample

LOG = logging.getLogger("fairprefix.dynamo")
_LOOK_S = 0.25
_LOG_S = 30.0


@frozen(kw_only=True)
class Place:
    """Where the component sits in a Dynamo deployment."""

    workers: str
    """Endpoint of the workers: namespace.component.endpoint."""
    own: str
    """Endpoint of the component."""
    model_path: str
    """Directory of the model's configuration and tokenizer, or its name."""
    model_name: str
    """Under which frontends serve it."""
    backend_model: str
    """Under which the workers have registered it; another name, or frontends would go past us."""
    discovery: str = "file"
    request_plane: str = "tcp"
    event_plane: str = "zmq"
    use_kv_events: bool = True
    """Whether workers publish what they cache and evict."""
    metrics_port: int | None = None
    status_file: str | None = None
    """Where all figures are written to, as JSON, every few seconds."""


class DynamoBackend:
    """The workers behind Dynamo's own KV router."""

    def __init__(self, router: KvRouter, model: str) -> None:
        self._router = router
        self._model = model

    async def overlap(self, tokens: list[int], namespace: str) -> Mapping[WorkerName, int]:
        """Ask the router's index, which follows the workers' events."""
        scores = await self._router.get_overlap_scores(tokens, cache_namespace=namespace or None)
        found: dict[WorkerName, int] = {}
        for row in scores["workers"]:
            name = str(row["worker_id"])
            found[name] = max(found.get(name, 0), int(row["device_blocks"]))
        return found

    async def generate(self, request: Mapping[str, Any], worker: WorkerName) -> AsyncGenerator[Chunk, None]:
        """Send a request to one worker."""
        routing = {**(request.get("routing") or {}), "backend_instance_id": int(worker), "dp_rank": 0}
        stream = await self._router.generate_from_request({**request, "model": self._model, "routing": routing})
        async for chunk in stream:
            yield chunk


async def run(place: Place, settings: Settings) -> None:
    """Serve until cancelled."""
    runtime = DistributedRuntime(
        asyncio.get_running_loop(), place.discovery, place.request_plane, event_plane=place.event_plane
    )
    workers = runtime.endpoint(place.workers)
    config = KvRouterConfig(use_kv_events=place.use_kv_events)
    router = KvRouter(endpoint=workers, block_size=settings.block_size, kv_router_config=config)
    client = await workers.client()
    await client.wait_for_instances()
    component = Component(DynamoBackend(router, place.backend_model), settings)
    component.instances(map(str, client.instance_ids()))
    watching = [
        asyncio.create_task(_watch(component, client)),
        asyncio.create_task(_report(component, place)),
    ]
    if place.metrics_port is not None:
        _serve_metrics(component, place.metrics_port)
    own = runtime.endpoint(place.own)
    await register_model(
        ModelInput.Tokens,
        ModelType.Chat | ModelType.Completions,
        own,
        place.model_path,
        place.model_name,
        worker_type=WorkerType.Aggregated,
        kv_cache_block_size=settings.block_size,
        runtime_config=ModelRuntimeConfig(),
    )
    LOG.info("fairprefix: model %s through %s workers", place.model_name, len(client.instance_ids()))
    try:
        await own.serve_endpoint(component.generate, graceful_shutdown=True)
    finally:
        for task in watching:
            task.cancel()


async def _watch(component: Component, client: Any) -> None:  # noqa: ANN401 (Dynamo's client)
    """Follow the workers as they come and go."""
    while True:
        await asyncio.sleep(_LOOK_S)
        component.instances(map(str, client.instance_ids()))


async def _report(component: Component, place: Place) -> None:
    """Add up counters, and say now and then what holds."""
    elapsed = 0.0
    while True:
        await asyncio.sleep(component.settings.report_period_s)
        component.report()
        elapsed += component.settings.report_period_s
        if place.status_file is not None:
            await asyncio.to_thread(_write, place.status_file, component.described())
        if elapsed >= _LOG_S:
            elapsed = 0.0
            LOG.info("%s", component.monitor.said())


def _write(path: str, figures: Mapping[str, object]) -> None:
    new = Path(f"{path}.new")
    new.write_text(json.dumps(figures), encoding="utf-8")
    new.replace(path)


def _serve_metrics(component: Component, port: int) -> None:
    from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 (only where asked for)

    from fairprefix.hosting.metrics import FiguresCollector  # noqa: PLC0415 (likewise)

    def samples() -> list[Sample]:
        own = [
            Sample("fairprefix_retried_total", "Requests sent again.", component.retried, {}, "counter"),
            Sample("fairprefix_queue_depth", "Requests that wait.", component.waiting),
        ]
        return [*component.monitor.samples(), *own]

    registry = CollectorRegistry()
    registry.register(FiguresCollector(samples))
    start_http_server(port, registry=registry)
