"""The engine in a thread of its own, and asyncio streams of what it produces.

What goes in (requests, aborts) waits in a queue of commands until the step that is under way is done; what comes
out crosses over to the event loop once a step. A stream that nobody reads holds at most `max_tokens` tokens, and
gives them out together when it is read again: a slow reader costs bounded memory, and nobody else any time.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from fairprefix.core.errors import FairprefixError
from fairprefix.gpu_ref_engine.engine import Engine, StepError
from fairprefix.gpu_ref_engine.job import Finish, Job, Output

T = TypeVar("T")
LOG = logging.getLogger("fairprefix.engine")
MOST_FAILURES = 3
"""Failed steps in a row after which the engine is taken to be broken."""


class EngineStoppedError(FairprefixError):
    """The engine takes no more requests: it is shutting down, or broken."""


class Stream:
    """What some requests give, as it comes: iterate over `batches`, and `close` it in any case.

    Args:
        jobs: the requests.
        abort: gives one of them up.
    """

    def __init__(self, jobs: Sequence[Job], abort: Callable[[str], None]) -> None:
        self._open = {job.id for job in jobs}
        self._abort = abort
        self._outputs: list[Output] = []
        self._news = asyncio.Event()

    def put(self, output: Output) -> None:
        """Add an output; the event loop's thread only."""
        self._outputs.append(output)
        if output.finish is not None:
            self._open.discard(output.id)
        self._news.set()

    def close(self) -> None:
        """Give up whatever is not over: nothing of it is produced any more, what was produced is settled."""
        for id in self._open:
            self._abort(id)
        self._open.clear()
        self._news.set()

    async def batches(self) -> AsyncIterator[Sequence[Output]]:
        """Yield what has come since the last time, until everything is over or the stream is closed."""
        while self._open or self._outputs:
            await self._news.wait()
            self._news.clear()
            if self._outputs:
                batch, self._outputs = self._outputs, []
                yield batch


class EngineWorker:
    """Runs an engine in a thread. Make, start and use it within one event loop.

    Args:
        engine: nobody else may touch it from now on.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.failed: str | None = None
        """Why the engine is broken; None while it is not."""
        self.draining: bool = False
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

    def open(self, jobs: Sequence[Job]) -> Stream:
        """Hand requests to the engine; return the stream of their output.

        Raises:
            EngineStoppedError: the engine takes no more requests.
        """
        if self.failed or self.draining:
            raise EngineStoppedError(self.failed or "the server is shutting down")
        stream = Stream(jobs, self._abort)
        self._empty.clear()
        for job in jobs:
            self._streams[job.id] = stream
        self._command(lambda: self._submit(jobs))
        return stream

    async def ask(self, question: Callable[[], T]) -> T:
        """Return the answer to a question that the engine's thread answers between two steps."""
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def work() -> None:
            try:
                answer.set_result(question())
            except Exception as problem:  # noqa: BLE001 (it is the asker's to deal with)
                answer.set_exception(problem)

        self._command(work)
        return await asyncio.wrap_future(answer)

    async def drain(self) -> None:
        """Refuse new requests, and return when all others are over."""
        self.draining = True
        if self._streams:
            await self._empty.wait()

    async def stop(self) -> None:
        """Give up whatever is left, and end the thread."""
        self.draining = True
        for stream in set(self._streams.values()):
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

    def _submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            try:
                self.engine.submit(job)
            except FairprefixError:  # noqa: PERF203 (the others are to be taken all the same)
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
        except Exception as problem:
            LOG.exception("the engine cannot go on")
            self._break(f"the engine is broken: {type(problem).__name__}: {problem}")
            return ()
        self._failures = 0
        return outputs

    def _break(self, why: str) -> None:
        self.failed = why
        if self._loop is not None:
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
