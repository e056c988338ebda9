"""Publishers of cache events: real sockets, and bytes exactly as the engines' own encoders make them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Literal

import msgspec
import zmq
import zmq.asyncio

from fairprefix.core.request import BlockHash
from fairprefix.gateway.kv_events.feed import FeedConfig, KvEventFeed

Form = Literal["map", "array", "all-map"]
_END = (-1).to_bytes(8, "big", signed=True)


class Cache:
    """Remembers what it is told, as a router would."""

    def __init__(self) -> None:
        self.held: set[BlockHash] = set()
        self.cleared_times = 0

    def stored(self, worker: str, blocks: Any, namespace: str = "") -> None:  # noqa: ANN401, ARG002
        """Add blocks, each of which is new."""
        assert not self.held & set(blocks)
        self.held |= set(blocks)

    def removed(self, worker: str, blocks: Any, namespace: str = "") -> None:  # noqa: ANN401, ARG002
        """Remove blocks, each of which was there."""
        assert self.held >= set(blocks)
        self.held -= set(blocks)

    def cleared(self, worker: str) -> None:  # noqa: ARG002
        """Forget everything."""
        self.held.clear()
        self.cleared_times += 1


def stored(ids: list[int], tokens: list[int], parent: int | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a BlockStored event with its fields in the engines' order."""
    size = len(tokens) // len(ids)
    fields = {"type": "BlockStored", "block_hashes": ids, "parent_block_hash": parent, "token_ids": tokens}
    return {**fields, "block_size": size, "lora_id": None, "medium": "GPU", **more}


def removed(ids: list[int], **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a BlockRemoved event."""
    return {"type": "BlockRemoved", "block_hashes": ids, "medium": "GPU", **more}


CLEARED = {"type": "AllBlocksCleared"}


def encode(events: list[dict[str, Any]], form: Form, rank: int = 0) -> bytes:
    """Return a batch as bytes: maps in an array, arrays in an array, or maps in a map."""
    if form == "array":
        return msgspec.msgpack.encode([1.5, [list(event.values()) for event in events], rank])
    if form == "map":
        return msgspec.msgpack.encode([1.5, events, rank])
    return msgspec.msgpack.encode({"ts": 1.5, "events": events, "data_parallel_rank": rank})


class Publisher:
    """A PUB and a ROUTER socket on free ports, or on given ones, as an engine has them."""

    def __init__(
        self, form: Form = "map", *, buffer: int = 10_000, ports: tuple[int, int] = (0, 0), topic: bytes = b"kv"
    ) -> None:
        self.form = form
        self.topic = topic
        self.names_topic = False
        """Whether a replay names the topic before the number, as vLLM does from 0.32 on."""
        self.asked: list[int] = []
        self.number = 0
        self._buffer: deque[tuple[int, bytes]] = deque(maxlen=buffer)
        context = zmq.asyncio.Context.instance()
        self._pub = context.socket(zmq.PUB)
        self._router = context.socket(zmq.ROUTER)
        try:
            self.ports = _bound(self._pub, ports[0]), _bound(self._router, ports[1])
        except zmq.ZMQError:
            for socket in (self._pub, self._router):
                socket.close(linger=0)
            raise
        self._task = asyncio.ensure_future(self._serve())

    def feed(self, **settings: Any) -> KvEventFeed:  # noqa: ANN401
        """Return a feed that follows this publisher."""
        events, replay = (f"tcp://127.0.0.1:{port}" for port in self.ports)
        settings = {"replay": replay, "topic": "kv", "block_size": 4, "replay_timeout_s": 0.5, **settings}
        return KvEventFeed("w", FeedConfig(endpoint=events, **settings))

    def keep(self, *events: dict[str, Any]) -> bytes:
        """Make the next batch, which nobody gets unless it is replayed."""
        payload = encode(list(events), self.form)
        self._buffer.append((self.number, payload))
        self.number += 1
        return payload

    async def publish(self, *events: dict[str, Any]) -> None:
        """Send the next batch."""
        number, payload = self.number, self.keep(*events)
        await self.send(self.topic, number.to_bytes(8, "big"), payload)

    async def send(self, *frames: bytes) -> None:
        """Send anything."""
        await self._pub.send_multipart(frames)

    async def replaced(self) -> Publisher:
        """Go away, as an engine that is killed; return the next one in the same place."""
        await self.close()
        while True:
            try:
                return Publisher(self.form, ports=self.ports, topic=self.topic)
            except zmq.ZMQError:  # noqa: PERF203 (sockets are closed in the background)
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Go away, as an engine that is killed."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for socket in (self._pub, self._router):
            socket.close(linger=0)

    async def _serve(self) -> None:
        while True:
            peer, _, start = await self._router.recv_multipart()
            self.asked.append(int.from_bytes(start, "big"))
            named = [self.topic] if self.names_topic else []
            for number, payload in list(self._buffer):
                if number >= self.asked[-1]:
                    await self._router.send_multipart([peer, b"", *named, number.to_bytes(8, "big"), payload])
            await self._router.send_multipart([peer, b"", *([b""] if named else []), _END, b""])


def _bound(socket: zmq.asyncio.Socket, port: int) -> int:
    socket.bind(f"tcp://127.0.0.1:{port or '*'}")
    return int(socket.get_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
