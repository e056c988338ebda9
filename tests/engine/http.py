"""A server in the test's own process: a real socket, a real engine, in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs

from fairprefix.gpu_ref_engine.batch import Runner
from fairprefix.gpu_ref_engine.config import EngineConfig
from fairprefix.gpu_ref_engine.server.assemble import make_service
from fairprefix.gpu_ref_engine.server.run import Server
from fairprefix.gpu_ref_engine.server.service import Service
from fairprefix.gpu_ref_engine.server.settings import ServerConfig
from fairprefix.gpu_ref_engine.tokenizer import Tokenizer, byte_tokenizer
from fairprefix.hosting import host_config
from fairprefix.hosting.listen import listen
from tests.engine.fake import FakeRunner


@attrs.frozen(eq=False)
class Served:
    """A running server."""

    url: str
    service: Service
    runner: Runner

    def figures(self) -> dict[str, dict[str, int]]:
        """Return tokens by client, as the policy's figures have them."""
        engine = self.service.worker.engine
        found: dict[str, dict[str, int]] = {}
        for sample in engine.policy.samples():  # type: ignore[attr-defined]
            if "fairness_id" in sample.labels:
                found.setdefault(sample.labels["fairness_id"], {})[sample.name] = int(sample.value)
        return found


@contextmanager
def serving(
    runner: Runner | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    engine: EngineConfig | None = None,
    policy: Mapping[str, Any] | None = None,
    **settings: Any,  # noqa: ANN401
) -> Iterator[Served]:
    """Serve until the block ends; then check that nothing is left over."""
    runner = runner or FakeRunner(pages=512, page_size=16, vocabulary=300)
    engine = engine or EngineConfig()
    config = ServerConfig(**{"model": "tiny", "port": 0, "trusted": ("127.0.0.1",), **settings})
    service = make_service(
        runner,
        tokenizer or byte_tokenizer(300),
        host_config(policy or {}, reservation=engine.reservation, environ={}),
        engine,
        config,
    )
    address: list[str] = []
    accepting = threading.Event()

    def announce(found: str) -> None:
        address.append(found)
        accepting.set()

    server = Server(service, announce)
    listening = listen(config.host, config.port)
    server.capture_signals = _no_signals  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    assert accepting.wait(20), "the server did not start"
    try:
        yield Served(address[0], service, runner)
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive(), "the server did not stop"
    assert not service.worker.requests
    assert not service.open
    assert not service.worker.engine.busy
    service.worker.engine.check_integrity()


@contextmanager
def _no_signals() -> Iterator[None]:
    """Leave the signals of the test's process alone."""
    yield
