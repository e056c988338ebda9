"""The engine in a thread of its own, and asyncio streams of what it produces.

What goes in (requests, aborts) waits in a queue of commands until the step that is under way is done; what comes out
crosses over to the event loop once a step. A stream that nobody reads holds at most `max_tokens` tokens, and gives
them out together when it is read again: a slow reader costs memory that is bounded, and nobody else any time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from fairprefix.core.errors import FairprefixError
from fairprefix.gpu_ref_engine.engine import Engine, StepError
from fairprefix.gpu_ref_engine.job import Finish, Job, Output

LOG = logging.getLogger("fairprefix.engine")
MOST_FAILURES = 3
"""Failed steps in a row after which the engine is taken to be broken."""


class EngineStoppedError(FairprefixError):
    """The engine takes no more requests: it is shutting down, or broken."""


class Stream:
    """What one request gives, as it comes: iterate over it, and close it in any case.

    Nothing is produced any more after `close`; the request is settled with what it had produced until then.
    """

    def __init__(self, job: Job, abort: Callable[[str], None]) -> None:
        self.job = job
        self._abort = abort
        self._outputs: deque[Output] = deque()
        self._news = asyncio.Event()
        self._over = False

    def put(self, output: Output) -> None:
        """Add an output; the event loop's thread only."""
        self._outputs.append(output)
        self._over = self._over or output.finish is not None
        self._news.set()

    def close(self) -> None:
        """Give the request up unless it is over."""
        if not self._over:
            self._over = True
            self._abort(self.job.id)
            self._news.set()

    async def batches(self) -> AsyncIterator[Sequence[Output]]:
        """Yield what has come since the last time, until the request is over or the stream is closed."""
        while True:
            await self._news.wait()
            self._news.clear()
            batch = list(self._outputs)
            self._outputs.clear()
            if batch:
                yield batch
            if self._over and not self._outputs:
                return


class EngineWorker:
    """Runs an engine in a thread. Make, start and use it within one event loop.

    Args:
        engine: nobody else may touch it from now on.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.failed: str | None = None
        """Why the engine is broken; None while it is not."""
        self.draining = False
        """Whether new requests are refused."""
        self._streams: dict[str, Stream] = {}
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._empty = asyncio.Event()
        self._failures = 0

    @property
    def requests(self) -> int:
        """Requests whose streams are open."""
        return len(self._streams)

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="fairprefix-engine", daemon=True)
        self._thread.start()

    def open(self, job: Job) -> Stream:
        """Hand a request to the engine; return the stream of its output.

        Raises:
            EngineStoppedError: the engine takes no more requests.
        """
        if self.failed or self.draining:
            raise EngineStoppedError(self.failed or "the server is shutting down")
        stream = self._streams[job.id] = Stream(job, self._abort)
        self._empty.clear()
        self._command(lambda: self._submit(job))
        return stream

    def call(self, function: Callable[[], None]) -> None:
        """Have a function called by the engine's thread between two steps."""
        self._command(function)

    async def drain(self) -> None:
        """Refuse new requests, and return when all others are over."""
        self.draining = True
        if self._streams:
            await self._empty.wait()

    async def stop(self) -> None:
        """Give up whatever is left, and end the thread."""
        self.draining = True
        for stream in list(self._streams.values()):
            stream.close()
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    # In the event loop's thread.

    def _command(self, function: Callable[[], None]) -> None:
        self._commands.append(function)
        self._wake.set()

    def _abort(self, id: str) -> None:
        self._forget(id)
        self._command(lambda: _ignore(self.engine.abort(id)))

    def _forget(self, id: str) -> None:
        self._streams.pop(id, None)
        if not self._streams:
            self._empty.set()

    def _deliver(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            stream = self._streams.get(output.id)
            if stream is not None:
                stream.put(output)
                if output.finish is not None:
                    self._forget(output.id)

    # In the engine's thread.

    def _work(self) -> None:
        while not self._stopping or self._commands:
            self._wake.clear()
            while self._commands:
                self._carry_out(self._commands.popleft())
            if self.engine.busy and self.failed is None:
                self._post(self._step())
            elif not self._stopping and not self._commands:
                self._wake.wait()

    def _submit(self, job: Job) -> None:
        try:
            self.engine.submit(job)
        except FairprefixError:
            LOG.exception("request %s was not taken", job.id)
            self._post([Output(id=job.id, tokens=(), finish=Finish.ERROR)])

    def _step(self) -> Sequence[Output]:
        try:
            outputs: Sequence[Output] = self.engine.step()
        except StepError as failure:
            self._failures += 1
            LOG.exception("a step failed")
            if self._failures >= MOST_FAILURES:
                self._break(f"the engine is broken: {failure}")
            return failure.outputs
        self._failures = 0
        return outputs

    def _break(self, why: str) -> None:
        self.failed = why
        self.call(self._end_all)

    def _end_all(self) -> None:
        """End every request of a broken engine."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._fail_all)

    def _fail_all(self) -> None:
        self._deliver([Output(id=id, tokens=(), finish=Finish.ERROR) for id in list(self._streams)])

    def _carry_out(self, command: Callable[[], None]) -> None:
        try:
            command()
        except Exception:
            LOG.exception("a command failed")

    def _post(self, outputs: Sequence[Output]) -> None:
        if outputs and self._loop is not None:
            self._loop.call_soon_threadsafe(self._deliver, outputs)


def _ignore(_result: object) -> None:
    """Make a call with a result one without."""
