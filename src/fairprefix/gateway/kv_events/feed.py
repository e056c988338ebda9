"""Follows the event stream of one worker and tells the index what that worker has cached.

What was missed is asked for again. Where that does not help, everything known of the worker is dropped, and built
up again from all that the publisher still remembers: the index may know too little, never something that is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from math import inf
from time import monotonic

import zmq
import zmq.asyncio
from attrs import asdict, define, field, frozen
from zmq.utils.monitor import parse_monitor_message

from fairprefix.core.errors import at_least, reject
from fairprefix.core.routing import WorkerName
from fairprefix.gateway.feed import CacheIndex
from fairprefix.gateway.kv_events.blocks import BlockMap
from fairprefix.gateway.kv_events.numbering import Numbering, Verdict
from fairprefix.gateway.kv_events.wire import Batch, Cleared, Removed, Stored, WireError, decode

_NUMBER_BYTES = 8
_END = b"\xff" * _NUMBER_BYTES
_WATCHED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
_BATCHES_AT_ONCE = 64
_RECONNECT_MOST_MS = 2_000
_HEARTBEAT_MS = 5_000
_BETWEEN_REPLAYS_S = 0.1


@frozen(kw_only=True)
class FeedConfig:
    """Where one worker's events come from.

    Raises:
        ConfigError: a value is outside its range.
    """

    endpoint: str
    """ZeroMQ address of the publisher, such as tcp://10.0.0.5:5557."""
    replay: str = ""
    """Address of its replay socket; without one, what is missed is lost."""
    topic: str = ""
    """Only messages whose topic begins so."""
    block_size: int = 16
    """Tokens per block of the index."""
    limit: int = 1_000_000
    """Engine blocks that are remembered."""
    replay_timeout_s: float = 2.0
    """How long to wait for the next batch of a replay."""
    idle_s: float = 5.0
    """After so long without news it is asked whether something was missed."""
    most_bytes: int = 64 << 20
    """Longer messages close the connection."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        for name in ("endpoint", "replay"):
            address = getattr(self, name)
            if (address or name == "endpoint") and not address.startswith(("tcp://", "ipc://", "inproc://")):
                raise reject(name, address, "a ZeroMQ address such as tcp://127.0.0.1:5557")
        for name in ("block_size", "limit", "most_bytes"):
            at_least(name, getattr(self, name), 1)
        for name in ("replay_timeout_s", "idle_s"):
            if not getattr(self, name) > 0:
                raise reject(name, getattr(self, name), "a number of seconds above 0")


@define
class FeedFigures:
    """What has happened on a stream."""

    connected: bool = False
    batches: int = 0
    """Batches that were taken in."""
    gaps: int = 0
    """How often batches were missing."""
    replayed: int = 0
    """Batches that a replay has brought."""
    restarts: int = 0
    """How often the publisher had begun anew, or may have."""
    resets: int = 0
    """How often all that was known had to be dropped."""
    malformed: int = 0
    """Messages that are none of ours, or damaged."""
    unknown: int = 0
    """Events of kinds that are not known here."""


@define(eq=False)
class KvEventFeed:
    """One stream. `run` follows it until it is cancelled; one connection for events, one for each replay."""

    worker: WorkerName
    config: FeedConfig
    figures: FeedFigures = field(factory=FeedFigures, init=False)
    on_trouble: Callable[[str], None] = lambda _text: None
    """Told in one sentence whenever something had to be dropped."""
    _context: zmq.asyncio.Context = field(factory=zmq.asyncio.Context.instance, kw_only=True)
    _blocks: BlockMap = field(init=False)
    _numbers: Numbering = field(factory=Numbering, init=False)
    _fresh: bool = field(default=True, init=False)
    """Whether nothing is known of the worker: then nothing can be wrong, whatever was missed."""
    _asked_at: float = field(default=-inf, init=False)
    _index: CacheIndex = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with nothing known."""
        self._blocks = BlockMap(self.config.block_size, self.config.limit)

    def state(self) -> dict[str, int | bool]:
        """Return the figures, as plain data."""
        blocks = self._blocks
        return {
            **asdict(self.figures),
            "expected": self._numbers.expected,
            "blocks": len(blocks),
            "orphans": blocks.orphans,
            "over_limit": blocks.over_limit,
            "elsewhere": blocks.elsewhere,
        }

    async def run(self, index: CacheIndex) -> None:
        """Follow the stream, across restarts of the worker, until cancelled."""
        self._index = index
        socket = self._socket(zmq.SUB)
        socket.subscribe(self.config.topic)
        monitor = socket.get_monitor_socket(_WATCHED)
        poller = zmq.asyncio.Poller()
        poller.register(monitor, zmq.POLLIN)
        poller.register(socket, zmq.POLLIN)
        try:
            socket.connect(self.config.endpoint)
            while True:
                ready = dict(await poller.poll(round(1000 * self.config.idle_s)))
                if monitor in ready:
                    await self._connection(await monitor.recv_multipart())
                elif socket in ready:
                    await self._take_some(socket, monitor)
                elif self.figures.connected:
                    await self._catch_up(None)
        finally:
            socket.disable_monitor()
            monitor.close(linger=0)
            socket.close(linger=0)

    # What comes in.

    async def _connection(self, message: list[bytes]) -> None:
        """Take in news of the connection. Whoever answers after an interruption may be somebody else."""
        if parse_monitor_message(message)["event"] == zmq.EVENT_DISCONNECTED:
            self.figures.connected = False
            return
        self.figures.connected = True
        if self.figures.batches:
            self.figures.restarts += 1
            self._reset("the connection was interrupted")
        self._numbers.begin()
        await self._catch_up(None)

    async def _take_some(self, socket: zmq.asyncio.Socket, monitor: zmq.asyncio.Socket) -> None:
        for _ in range(_BATCHES_AT_ONCE):
            if await monitor.poll(0) or not await socket.poll(0):
                break
            await self.live(await socket.recv_multipart())
        await asyncio.sleep(0)

    async def live(self, frames: Sequence[bytes]) -> None:
        """Take in one message that came by itself: topic, number, batch."""
        number = _number(frames[1]) if len(frames) == 3 else None  # noqa: PLR2004 (as documented)
        if number is None:
            self.figures.malformed += 1
            return
        verdict = self._numbers.judge(number)
        if verdict is Verdict.KNOWN:
            return
        if verdict is Verdict.RESTART:
            self.figures.restarts += 1
            self._reset("the publisher has begun anew")
            self._numbers.begin()
            verdict = self._numbers.judge(number)
        if verdict is Verdict.GAP:
            self.figures.gaps += not self._fresh
            await self._catch_up(number)
        if self._numbers.expected <= number:
            self._apply(number, frames[2])

    async def _catch_up(self, until: int | None) -> None:
        """Ask for everything from the next batch on, as far as it was missed.

        Args:
            until: the number of the batch at hand; None: there is none, and the end of the stream is not known.
        """
        fresh, asked = self._fresh, self._numbers.expected
        began = await self._replay(asked, until)
        complete = (began is None or began == asked) and (until is None or self._numbers.expected >= until)
        if not complete and not fresh:
            self._reset(f"batches from {asked} on are lost")
            self._numbers.expected = 0
            await self._replay(0, until)
        # What is still missing now was before anything that is known.
        self._numbers.expected = max(self._numbers.expected, until or 0)

    async def _replay(self, start: int, until: int | None) -> int | None:
        """Take in what the publisher repeats, up to but without `until`; return the number that it began with.

        Batches are taken in from where they follow each other; None: nothing came.
        """
        began: int | None = None
        async with contextlib.aclosing(self._repeated(start)) as repeated:
            async for number, payload in repeated:
                if until is not None and number >= until:
                    continue
                if began is None:
                    began = number
                    if number > start and not self._fresh:
                        return began  # some are lost for good; the caller begins anew
                    self._numbers.expected = number
                if number == self._numbers.expected:
                    self.figures.replayed += 1
                    self._apply(number, payload)
        return began

    async def _repeated(self, start: int) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield what the publisher repeats from a number on."""
        if not self.config.replay:
            return
        # A stream that is nothing but gaps must not keep the engine busy with repeating.
        await asyncio.sleep(self._asked_at + _BETWEEN_REPLAYS_S - monotonic())
        self._asked_at = monotonic()
        socket = self._socket(zmq.DEALER)
        try:
            socket.connect(self.config.replay)
            await socket.send_multipart((b"", start.to_bytes(_NUMBER_BYTES, "big")))
            deadline = monotonic() + self.config.replay_timeout_s
            while await socket.poll(max(round(1000 * (deadline - monotonic())), 0)):
                frames = await socket.recv_multipart()
                # Delimiter, number and batch; some versions name the topic before the number.
                found = frames[-2:] if len(frames) in (3, 4) else []
                if found and found[0] == _END:
                    return
                number = _number(found[0]) if found else None
                if number is None:
                    self.figures.malformed += 1
                    continue
                deadline = monotonic() + self.config.replay_timeout_s
                yield number, found[1]
                if not number % _BATCHES_AT_ONCE:
                    await asyncio.sleep(0)
        finally:
            socket.close(linger=0)

    # What it means.

    def _apply(self, number: int, payload: bytes) -> None:
        self._numbers.expected = number + 1
        self._fresh = False
        try:
            batch = decode(payload)
        except WireError as problem:
            self.figures.malformed += 1
            self._reset(f"batch {number} cannot be read: {problem}")
            return
        self.figures.batches += 1
        self.figures.unknown += batch.unknown
        self._tell(batch)

    def _tell(self, batch: Batch) -> None:
        for event in batch.events:
            if isinstance(event, Stored):
                fresh = self._blocks.stored(event)
                if fresh:
                    self._index.stored(self.worker, fresh)
            elif isinstance(event, Removed):
                gone = self._blocks.removed(event)
                if gone:
                    self._index.removed(self.worker, gone)
            elif isinstance(event, Cleared):
                self._drop()

    def _reset(self, why: str) -> None:
        """Drop what is known of the worker, because it may be wrong."""
        self.figures.resets += 1
        self._drop()
        self._fresh = True
        self.on_trouble(f"worker {self.worker!r}: {why}; what was known of its cache is dropped")

    def _drop(self) -> None:
        self._blocks.clear()
        self._index.cleared(self.worker)

    def _socket(self, kind: int) -> zmq.asyncio.Socket:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, self.config.most_bytes)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MOST_MS)
        socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        return socket


def _number(frame: bytes) -> int | None:
    return int.from_bytes(frame, "big") if len(frame) == _NUMBER_BYTES else None
