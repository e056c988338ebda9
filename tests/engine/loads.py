"""Loads for the engine: random requests over a few shared documents, with aborts, driven to the end."""

from __future__ import annotations

import random

from attrs import define, field

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.contract import HostContract
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.gpu_ref_engine.config import EngineConfig, Observer
from fairprefix.gpu_ref_engine.engine import Engine
from fairprefix.gpu_ref_engine.job import Finish
from fairprefix.gpu_ref_engine.sampling import SamplingParams
from tests.engine.fake import EOS, FakeRunner, continuation

MOST_STEPS = 5000
"""More than any of these loads takes."""


@define(eq=False)
class Lab:
    """An engine over the exact fake model, with its policy wrapped in the contract checker."""

    policy: str = "dlpm"
    reservation: str = "none"
    overlap: bool = False
    prefix_cache: bool = True
    pages: int = 64
    chunk: int = 32
    max_batch: int = 8
    observer: Observer | None = None
    runner: FakeRunner = field(init=False)
    engine: Engine = field(init=False)
    contract: HostContract = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Build it."""
        self.runner = FakeRunner(pages=self.pages)
        self.engine = Engine(
            self.runner,
            PolicyConfig(policy=self.policy, reservation=self.reservation, quantum=64),
            EngineConfig(
                reservation=self.reservation,
                overlap=self.overlap,
                prefix_cache=self.prefix_cache,
                chunk=self.chunk,
                max_batch=self.max_batch,
            ),
            eos=(EOS,),
            make=self._make,
            observer=self.observer,
        )

    def _make(self, config: PolicyConfig, index: PrefixIndex) -> HostContract:
        self.contract = HostContract(make_policy(config, index))
        return self.contract

    def close(self) -> None:
        """Check that nothing is left over: no request, no page, no row."""
        assert not self.engine.busy
        self.contract.close()
        self.engine.check_integrity()
        assert self.engine.cache.available == self.pages


@define(eq=False)
class Load:
    """What was asked, what came, and what should have come."""

    wanted: dict[str, list[int]] = field(factory=dict)
    got: dict[str, list[int]] = field(factory=dict)
    ends: dict[str, Finish] = field(factory=dict)
    aborted: set[str] = field(factory=set)
    steps: int = 0


def drive(lab: Lab, *, seed: int, requests: int = 60, aborts: float = 0.0) -> Load:
    """Run random requests of three clients to the end; check memory and policy after every step."""
    random_ = random.Random(seed)  # noqa: S311 (a load, no secret)
    documents = [[random_.randrange(1, 97) for _ in range(30)] for _ in range(4)]
    load = Load()
    for number in range(requests):
        document = random_.choice(documents)[: random_.randrange(1, 31)]
        prompt = document + [random_.randrange(1, 97) for _ in range(random_.randrange(9))]
        tokens = random_.randrange(1, 40)
        id = lab.engine.add(f"c{number % 3}", prompt, SamplingParams(max_tokens=tokens, temperature=0))
        load.wanted[id], load.got[id] = continuation(prompt, tokens, lab.runner.vocabulary), []
        while random_.random() < 0.5:
            _step(lab, load)
        if random_.random() < aborts:
            victim = random_.choice(list(load.got))
            if lab.engine.abort(victim):
                load.aborted.add(victim)
    while lab.engine.busy:
        _step(lab, load)
    return load


def _step(lab: Lab, load: Load) -> None:
    load.steps += 1
    assert load.steps < MOST_STEPS, "the engine stands still"
    for output in lab.engine.step():
        assert output.id not in load.ends, "nothing comes after the last output"
        load.got[output.id] += output.tokens
        if output.finish is not None:
            load.ends[output.id] = output.finish
    lab.engine.check_integrity()
    lab.contract.validate()
