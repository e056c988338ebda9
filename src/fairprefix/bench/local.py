"""The reference engine in this process."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from attrs import define, field

from fairprefix.bench.run import Reply, SendError
from fairprefix.core.config import PolicyConfig
from fairprefix.core.request import Client
from fairprefix.gpu_ref_engine.batch import Runner
from fairprefix.gpu_ref_engine.config import EngineConfig, RequestError
from fairprefix.gpu_ref_engine.engine import Engine
from fairprefix.gpu_ref_engine.job import Output
from fairprefix.gpu_ref_engine.sampling import SamplingParams
from fairprefix.gpu_ref_engine.tokenizer import Tokenizer

_IDLE_S = 0.001
_SAMPLE = "wakuse 12: the same words go into the tokens of every prompt, lamexe or bafigo"


@define(eq=False)
class _Open:
    """A call that is being answered."""

    start: float
    done: asyncio.Future[Reply]
    prompt: int
    tokens: list[int] = field(factory=list)
    first_s: float | None = None


class LocalEngine:
    """Steps the engine in a thread of its own while calls come and go.

    Args:
        runner: the model.
        tokenizer: the model's.
        policy: who is admitted next.
        engine: the engine's parameters.
    """

    def __init__(self, runner: Runner, tokenizer: Tokenizer, policy: PolicyConfig, engine: EngineConfig) -> None:
        self.characters_per_token: float = len(_SAMPLE) / len(tokenizer.encode(_SAMPLE))
        self._tokenizer = tokenizer
        self._engine = Engine(runner, policy, engine, eos=tokenizer.eos)
        self._open: dict[str, _Open] = {}
        self._coming: list[tuple[Client, list[int], int, _Open]] = []
        self._stepping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> LocalEngine:  # noqa: PYI034  # Self: from Python 3.11 on
        """Begin to step."""
        self._stepping = asyncio.create_task(self._step_on())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop stepping."""
        if self._stepping is not None:
            self._stepping.cancel()
            await asyncio.gather(self._stepping, return_exceptions=True)

    async def send(self, client: Client, prompt: str, max_tokens: int) -> Reply:
        """Ask, and wait for the whole answer."""
        tokens = self._tokenizer.encode(prompt)
        done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._coming.append((client, tokens, max_tokens, _Open(time.perf_counter(), done, len(tokens))))
        return await done

    async def _step_on(self) -> None:
        while True:
            self._let_in()
            if not self._engine.busy:
                await asyncio.sleep(_IDLE_S)
                continue
            for output in await asyncio.to_thread(self._engine.step):
                self._take(output)

    def _let_in(self) -> None:
        """Hand over what has come meanwhile: the engine is touched between its steps only."""
        coming, self._coming = self._coming, []
        for client, tokens, max_tokens, entry in coming:
            params = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
            try:
                self._open[self._engine.add(client, tokens, params)] = entry
            except RequestError as problem:
                entry.done.set_exception(SendError(str(problem)))

    def _take(self, output: Output) -> None:
        entry = self._open[output.id]
        entry.tokens += output.tokens
        now = time.perf_counter() - entry.start
        if entry.first_s is None and output.tokens:
            entry.first_s = now
        if output.finish is None:
            return
        del self._open[output.id]
        if not entry.done.done():
            text = self._tokenizer.decode(entry.tokens)
            first = now if entry.first_s is None else entry.first_s
            entry.done.set_result(
                Reply(text, entry.prompt, output.cached_tokens, max(len(entry.tokens), 1), first, now)
            )
