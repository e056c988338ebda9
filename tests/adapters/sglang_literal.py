"""A literal SGLang scheduler, a few lines long: chunked and mixed batches, retraction, overlap, aborts.

It keeps its list of waiting requests and forms its batches as SGLang does, and calls the adapter where it does.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fairprefix.adapters.sglang.bridge import Bridge
from fairprefix.adapters.sglang.hooks import ATTACHED, Attached, SchedulerHooks
from fairprefix.adapters.sglang.sharing import Sharing
from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.contract import HostContract
from fairprefix.core.prefixes import Prefixes
from fairprefix.hosting import HostedPolicy, Identity


class Req:
    """A request of SGLang's."""

    def __init__(self, rid: str, prompt: list[int], *, client: str | None = None, output: int = 8) -> None:
        self.rid, self.origin_input_ids, self.routing_key = rid, prompt, client
        self.output_ids: list[int] = []
        self.sampling_params = SimpleNamespace(max_new_tokens=output)
        self.extra_key: str | None = None
        self.finished_len: int | None = None
        self.done = False

    def finished(self) -> bool:
        """Return whether it is done."""
        return self.done

    def __repr__(self) -> str:
        return self.rid


class View:
    """What the adapter sees of the scheduler; the cache is a set of prefixes."""

    def __init__(self, *, room: int = 100, budget: int = 10**6) -> None:
        self.waiting: list[Any] = []
        self.cached: set[tuple[int, ...]] = set()
        self.sharing: Sharing | None = Sharing(check=4, deprioritize=4)
        self.output_estimate = 4096
        self.skips = False
        self.budget = budget
        self.rooms = room
        self.questions = 0

    def matched(self, req: Req) -> int:
        """Return the longest cached prefix."""
        self.questions += 1
        ids = (*req.origin_input_ids, *req.output_ids)
        return next((n for n in range(len(ids), 0, -1) if ids[:n] in self.cached), 0)

    def room(self, _running: object) -> int:
        """Return the room."""
        return self.rooms

    def cache(self, ids: list[int]) -> None:
        """Put a prompt into the cache."""
        self.cached.update(tuple(ids[:n]) for n in range(1, len(ids) + 1))


class Engine:
    """The scheduler: `step` forms a batch and, with overlap, processes the results of the one before."""

    def __init__(self, config: PolicyConfig, *, chunk: int = 10**6, mixed: bool = False, **view: int) -> None:
        self.view = View(**view)

        def make(config: PolicyConfig, prefixes: Prefixes | None) -> HostContract:
            self.contract = HostContract(make_policy(config, prefixes))
            return self.contract

        def host(prefixes: Prefixes) -> HostedPolicy:
            return HostedPolicy(config, prefixes, on_error=self._raise, make=make)

        seam: Any = self.view
        self.bridge = Bridge(seam, host, Identity(config.identity))
        self.policy = SimpleNamespace(**{ATTACHED: Attached(self.bridge)})
        setattr(self, ATTACHED, getattr(self.policy, ATTACHED))
        self.chunk, self.mixed = chunk, mixed
        self.running: list[Req] = []
        self.chunked: Req | None = None
        self._prefilled: dict[Req, int] = {}
        self.computed: dict[Req, int] = {}
        """Prompt tokens given to the model by first admissions."""
        self._retracted: set[Req] = set()

    @property
    def figures(self) -> Any:
        """Return the figures."""
        return self.bridge.policy.figures

    @property
    def waiting_queue(self) -> list[Any]:
        """Return the waiting requests."""
        return self.view.waiting

    def add(self, *reqs: Req) -> None:
        """Queue requests."""
        for req in reqs:
            self.view.waiting.append(req)
            SchedulerHooks.queued(None, self, req)

    def batch(self, count: int = 100) -> Any:
        """Admit up to `count` requests from the head of the list within one chunk; return the batch."""
        return SchedulerHooks.new_batch(lambda _engine: self._form(count), self)

    def process(self, batch: Any, tokens: int = 1) -> None:
        """Give each request of a batch, its prompt being done, some tokens; finish those that have all."""
        for req in batch.reqs:
            if req is self.chunked or req in self.view.waiting:
                continue
            self.view.cache(req.origin_input_ids)
            req.output_ids += [7] * min(tokens, req.sampling_params.max_new_tokens - len(req.output_ids))
            if len(req.output_ids) == req.sampling_params.max_new_tokens:
                req.done = True
                self.running.remove(req)
        SchedulerHooks.processed(None, self, batch)

    def decode(self, tokens: int = 1) -> None:
        """Run a decode step."""
        self.process(SimpleNamespace(reqs=list(self.running)), tokens)

    def retract(self, req: Req) -> None:
        """Take a running request's memory away."""
        self.running.remove(req)
        self._prefilled[req] = 0
        self._retracted.add(req)
        self.add(req)

    def abort_running(self, req: Req) -> None:
        """End a running request."""
        self.running.remove(req)
        self.chunked = None if self.chunked is req else self.chunked
        req.done = True
        SchedulerHooks.processed(None, self, SimpleNamespace(reqs=[req]))

    def _form(self, count: int) -> Any:
        reqs: list[Req] = []
        prefix: list[int] = []
        extend: list[int] = []
        left = self.chunk
        if self.chunked is not None:
            left -= self._extend(self.chunked, left, reqs, prefix, extend)
        if self.view.waiting:
            SchedulerHooks.order(
                _must_not_be_called, self.policy, self.view.waiting, SimpleNamespace(reqs=self.running)
            )
        for req in list(self.view.waiting):
            if len(reqs) == count or left <= 0:
                break
            self._prefilled[req] = min(self.view.matched(req), len(req.origin_input_ids) + len(req.output_ids) - 1)
            left -= self._extend(req, left, reqs, prefix, extend)
            self.running.append(req)
        self.view.waiting = [req for req in self.view.waiting if req not in set(reqs)]
        decoding = [req for req in self.running if req not in reqs] if self.mixed else []
        if not reqs:
            return None
        return SimpleNamespace(
            reqs=reqs + decoding,
            prefix_lens=prefix + [len(req.origin_input_ids) for req in decoding],
            extend_lens=extend + [1] * len(decoding),
            decoding_reqs=decoding,
        )

    def _extend(self, req: Req, left: int, reqs: list[Req], prefix: list[int], extend: list[int]) -> int:
        done, whole = self._prefilled[req], len(req.origin_input_ids) + len(req.output_ids)
        tokens = min(whole - done, left)
        reqs.append(req)
        prefix.append(done)
        extend.append(tokens)
        self._prefilled[req] = done + tokens
        self.chunked = req if done + tokens < whole else None
        if req not in self._retracted:
            self.computed[req] = self.computed.get(req, 0) + tokens
        return tokens

    @staticmethod
    def _raise(problem: Exception) -> None:
        raise problem


def _must_not_be_called(*_args: object) -> None:
    raise AssertionError("SGLang's own order was asked for")
