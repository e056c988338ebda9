"""The engine in its thread, and the streams of what it produces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fairprefix.core.config import PolicyConfig
from fairprefix.gpu_ref_engine.batch import StepBatch
from fairprefix.gpu_ref_engine.config import EngineConfig
from fairprefix.gpu_ref_engine.engine import Engine
from fairprefix.gpu_ref_engine.job import Finish, Job, Output
from fairprefix.gpu_ref_engine.sampling import SamplingParams
from fairprefix.gpu_ref_engine.server.worker import MOST_FAILURES, EngineStoppedError, EngineWorker, Stream
from tests.engine.fake import FakeRunner, continuation


@asynccontextmanager
async def working(runner: FakeRunner, **settings: Any) -> AsyncIterator[EngineWorker]:  # noqa: ANN401
    """Give a worker that is stopped in the end, with nothing left over."""
    engine = Engine(runner, PolicyConfig(reservation="none"), EngineConfig(**settings))
    worker = EngineWorker(engine)
    worker.start()
    yield worker
    await worker.stop()
    assert not worker.requests
    if worker.failed is None:
        assert not engine.busy
        engine.check_integrity()


def jobs(worker: EngineWorker, *prompts: Sequence[int], tokens: int = 8) -> list[Job]:
    """Return one request for each prompt."""
    params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    return [
        worker.engine.make_job("a", prompt, params, id=f"{prompt[0]}-{place}")
        for place, prompt in enumerate(prompts)
    ]


async def collect(stream: Stream) -> list[Output]:
    """Return everything that a stream gives."""
    return [output async for batch in stream.batches() for output in batch]


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test in an event loop, for 30 s at most."""
    asyncio.run(asyncio.wait_for(work, 30))


def test_streams_give_every_token_once_and_end() -> None:
    """Requests of several streams at once each get exactly their own answer."""

    async def work() -> None:
        async with working(FakeRunner()) as worker:
            prompts = [[number, 2, 3] for number in range(1, 13)]
            streams = [worker.open(jobs(worker, prompt)) for prompt in prompts]
            answers = await asyncio.gather(*map(collect, streams))
            for prompt, outputs in zip(prompts, answers, strict=True):
                tokens = [token for output in outputs for token in output.tokens]
                assert tokens == continuation(prompt, 8, 97, eos=None)
                assert [output.finish for output in outputs][-1] is Finish.LENGTH

    run(work())


def test_a_closed_stream_is_settled_at_once() -> None:
    """Closing gives up what is under way: the rest is never computed."""

    async def work() -> None:
        runner = FakeRunner(pages=2000)
        async with working(runner) as worker:
            stream = worker.open(jobs(worker, [1, 2, 3], tokens=4000))
            async for _ in stream.batches():
                break
            stream.close()
            await asyncio.wait_for(worker.drain(), 5)
            assert await worker.ask(lambda: worker.engine.busy) is False
            assert len(runner.batches) < 4000

    run(work())


def test_a_reader_that_is_slow_gets_everything_in_fewer_pieces() -> None:
    """What nobody has read yet is given out together, and nothing of it is lost."""

    async def work() -> None:
        async with working(FakeRunner()) as worker:
            stream = worker.open(jobs(worker, [1, 2, 3], tokens=40))
            await worker.drain()
            batches = [batch async for batch in stream.batches()]
            assert len(batches) == 1
            assert sum(len(output.tokens) for output in batches[0]) == 40

    run(work())


def test_draining_refuses_what_is_new_and_ends_what_is_under_way() -> None:
    """`drain` returns when all that was open is answered; meanwhile new requests are refused."""

    async def work() -> None:
        async with working(FakeRunner()) as worker:
            stream = worker.open(jobs(worker, [1, 2, 3], tokens=50))
            drain = asyncio.create_task(worker.drain())
            await asyncio.sleep(0)
            with pytest.raises(EngineStoppedError, match="shutting down"):
                worker.open(jobs(worker, [4]))
            outputs = await collect(stream)
            await drain
            assert sum(len(output.tokens) for output in outputs) == 50

    run(work())


def test_an_engine_that_fails_again_and_again_is_broken_and_says_so() -> None:
    """After some failed steps in a row every request ends with an error, and new ones are refused."""

    def fail(_batch: StepBatch) -> None:
        raise RuntimeError("the device is gone")

    async def work() -> None:
        runner = FakeRunner()
        async with working(runner, max_batch=1) as worker:
            runner.on_launch = fail
            streams = [worker.open(jobs(worker, [number + 1, 2])) for number in range(MOST_FAILURES + 3)]
            answers = await asyncio.gather(*map(collect, streams))
            assert all(outputs[-1].finish is Finish.ERROR for outputs in answers)
            assert worker.failed is not None
            assert "the device is gone" in worker.failed
            with pytest.raises(EngineStoppedError, match="the device is gone"):
                worker.open(jobs(worker, [90]))

    run(work())


def test_an_engine_that_cannot_even_give_up_is_broken_and_leaves_nobody_waiting() -> None:
    """Whatever goes wrong in the thread, it does not die in silence: every request ends with an error."""

    def fail() -> list[Output]:
        raise ValueError("a bug")

    async def work() -> None:
        async with working(FakeRunner()) as worker:
            worker.engine.step = fail  # type: ignore[method-assign]
            outputs = await collect(worker.open(jobs(worker, [1, 2])))
            assert outputs[-1].finish is Finish.ERROR
            assert worker.failed is not None
            assert "ValueError: a bug" in worker.failed

    run(work())


def test_a_single_failed_step_costs_no_request_that_waited() -> None:
    """The engine goes on after a failed step: whoever did not run is answered."""

    async def work() -> None:
        runner = FakeRunner()
        async with working(runner, max_batch=1) as worker:
            left = [1]

            def fail_once(_batch: StepBatch) -> None:
                if left:
                    left.pop()
                    raise RuntimeError("once")

            runner.on_launch = fail_once
            streams = [worker.open(jobs(worker, [number + 1, 2])) for number in range(5)]
            answers = await asyncio.gather(*map(collect, streams))
            ends = sorted(outputs[-1].finish.value for outputs in answers if outputs[-1].finish)
            assert ends == ["error", "length", "length", "length", "length"]
            assert worker.failed is None

    run(work())


def test_a_question_is_answered_between_two_steps() -> None:
    """`ask` hands back what the engine's thread returns, or raises what it raised."""

    async def work() -> None:
        async with working(FakeRunner()) as worker:
            assert await worker.ask(lambda: worker.engine.waiting) == 0
            with pytest.raises(ZeroDivisionError):
                await worker.ask(lambda: 1 // 0)

    run(work())
