"""What the SGLang adapter charges, on a literal scheduler, with the policy wrapped in the host contract."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from fairprefix.adapters.sglang.hooks import SchedulerHooks
from fairprefix.core.config import PolicyConfig
from tests.adapters.sglang_literal import Engine, Req

CONFIG = PolicyConfig(gate="credit", reservation="none", quantum=100)


def _prompt(seed: int, length: int = 20) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(1000) for _ in range(length)]


def _engine(**settings: Any) -> Engine:
    return Engine(CONFIG, **settings)


def _drain(engine: Engine) -> None:
    while engine.view.waiting or engine.running:
        batch = engine.batch()
        if batch is not None:
            engine.process(batch)
        engine.decode()


def _close(engine: Engine) -> None:
    engine.contract.close()
    assert not engine.policy._fairprefix.stopped


def test_a_prompt_in_chunks_is_charged_once_and_whole() -> None:
    """A prompt of 20 tokens in chunks of 6 costs 20, at its first chunk."""
    engine = _engine(chunk=6)
    engine.add(Req("r", _prompt(1), client="A", output=3))
    engine.batch()
    assert engine.figures.service() == {"A": 20}
    engine.batch()
    engine.batch()
    engine.process(engine.batch())
    engine.decode()
    engine.decode()
    assert engine.figures.service() == {"A": 20 + 2 * 3}
    _close(engine)


def test_a_cached_prefix_is_not_charged() -> None:
    """The second of two equal prompts pays for its last token alone."""
    engine = _engine()
    engine.add(Req("r", _prompt(1), client="A", output=1))
    engine.process(engine.batch())
    engine.add(Req("s", _prompt(1), client="B", output=1))
    engine.process(engine.batch())
    assert engine.figures.service() == {"A": 20 + 2, "B": 1 + 2}
    _close(engine)


def test_decoding_requests_of_a_mixed_batch_are_no_admissions() -> None:
    """A running request that decodes beside a new prompt pays for its output token, not for a prompt token."""
    engine = _engine(mixed=True)
    engine.add(Req("r", _prompt(1), client="A", output=5))
    engine.process(engine.batch())
    engine.add(Req("s", _prompt(2), client="B", output=5))
    engine.process(engine.batch())
    assert engine.figures.service() == {"A": 20 + 2 * 2, "B": 20 + 2}


def test_all_tokens_accepted_at_once_are_charged() -> None:
    """Speculative decoding: four tokens in one step cost four, and none beyond the end of the text."""
    engine = _engine()
    request = Req("r", _prompt(1), client="A", output=8)
    engine.add(request)
    engine.process(engine.batch())
    engine.decode(tokens=4)
    assert engine.figures.service() == {"A": 20 + 2 * 5}
    request.output_ids += [7, 7, 7]
    request.finished_len = 6
    request.done = True
    engine.running.remove(request)
    SchedulerHooks.processed(None, engine, SimpleNamespace(reqs=[request]))
    assert engine.figures.service() == {"A": 20 + 2 * 6}
    _close(engine)


def test_results_that_arrive_a_step_late_are_charged_when_they_do() -> None:
    """Overlap: the next batch is formed before the results of the last one are in; nothing is lost."""
    engine = _engine()
    engine.add(Req("r", _prompt(1), client="A", output=2))
    first = engine.batch()
    engine.add(Req("s", _prompt(2), client="A", output=2))
    second = engine.batch()
    assert engine.figures.service() == {"A": 40}
    engine.process(first)
    engine.process(second)
    _drain(engine)
    assert engine.figures.service() == {"A": 40 + 2 * 4}
    _close(engine)


@pytest.mark.parametrize(("recompute", "charged"), [("free", 0), ("charged", 22)])
def test_recomputation_is_charged_as_configured_and_reported_apart(recompute: str, charged: int) -> None:
    """After a retraction prompt and output are computed again: charged or free, never counted as service."""
    engine = Engine(PolicyConfig(gate="credit", reservation="none", quantum=100, recompute=recompute))
    request = Req("r", _prompt(1), client="A", output=4)
    engine.add(request)
    engine.process(engine.batch())
    engine.decode()
    engine.view.cached.clear()
    before = _spent(engine)
    engine.retract(request)
    engine.batch()
    assert _spent(engine) - before == charged
    engine.decode()
    engine.decode()
    assert engine.figures.service() == {"A": 20 + 2 * 4}
    assert {sample.value for sample in engine.figures.samples() if "recomputed" in sample.name} == {22}
    _close(engine)


def _spent(engine: Engine) -> int:
    """Return what the policy has taken from A, apart from refills."""
    policy: Any = engine.contract
    inner = policy._policy
    spent: int = inner.rounds * 100 - inner.deficit("A")
    return spent


def test_a_prompt_that_is_aborted_between_chunks_pays_for_what_was_computed() -> None:
    """Aborted after 6 of its 20 tokens, a request has cost its client 6."""
    engine = _engine(chunk=6)
    request = Req("r", _prompt(1), client="A")
    engine.add(request, Req("s", _prompt(2), client="A"))
    engine.batch()
    assert _spent(engine) == 20
    engine.abort_running(request)
    assert _spent(engine) == 6


def test_a_request_that_is_aborted_while_it_waits_is_settled() -> None:
    """A request that disappears from the list without a word is finished before the next order is made."""
    engine = _engine()
    engine.add(*(Req(f"r{n}", _prompt(n), client="A", output=1) for n in range(5)))
    del engine.view.waiting[2], engine.view.waiting[0]
    _drain(engine)
    assert engine.figures.service() == {"A": 3 * 22}
    _close(engine)


def test_a_request_that_sglang_refuses_to_queue_again_is_settled() -> None:
    """Preempted, and turned away at a full queue: it is finished, and nothing of it is left."""
    engine = _engine()
    request = Req("r", _prompt(1), client="A", output=5)
    engine.add(request)
    engine.process(engine.batch())
    engine.running.remove(request)
    engine.bridge.queued(request)
    assert engine.bridge.policy.live == 0
    _close(engine)


def test_a_health_check_goes_first_and_costs_nobody_anything() -> None:
    """SGLang's own request is ahead of all others and shows in no figure."""
    engine = _engine()
    engine.add(*(Req(f"r{n}", _prompt(n), client="A") for n in range(3)))
    engine.add(Req("HEALTH_CHECK_1", [0], output=1))
    assert [req.rid for req in engine.batch(1).reqs] == ["HEALTH_CHECK_1"]
    assert engine.figures.service() == {"A": 0}
    assert len(engine.batch().reqs) == 3


def test_two_requests_with_one_id_are_told_apart() -> None:
    """A client that uses an id twice gets both answers, and pays for both."""
    engine = _engine()
    engine.add(Req("same", _prompt(1), client="A", output=1), Req("same", _prompt(2), client="A", output=1))
    _drain(engine)
    assert engine.figures.service() == {"A": 44}
    _close(engine)


def test_whoever_names_nobody_shares_one_name() -> None:
    """Requests without a name are one client."""
    engine = _engine()
    engine.add(Req("r", _prompt(1)), Req("s", _prompt(2), client=" \n"))
    engine.batch()
    assert engine.figures.service() == {"default-flow": 40}


def test_random_histories_keep_the_contract_and_the_sums() -> None:
    """Arrivals, chunks, retractions at random: service is first admissions and delivered output, exactly."""
    for seed in range(30):
        rng = random.Random(seed)
        engine = Engine(CONFIG, chunk=rng.choice([7, 16, 1000]), mixed=bool(seed % 2), room=rng.choice([2, 100]))
        requests = [
            Req(f"r{n}", _prompt(n % 4, rng.randint(5, 40)), client=rng.choice("ABC"), output=rng.randint(1, 6))
            for n in range(30)
        ]
        for request in requests:
            engine.add(request)
            batch = engine.batch(rng.randrange(4))
            if batch is not None:
                engine.process(batch, tokens=rng.randint(1, 3))
            ready = [req for req in engine.running if req.output_ids and req is not engine.chunked]
            if ready and rng.random() < 0.3:
                engine.retract(rng.choice(ready))
            engine.decode(tokens=rng.randint(1, 2))
        _drain(engine)
        expected: dict[str, int] = {}
        for request in requests:
            units = engine.computed[request] + 2 * len(request.output_ids)
            expected[str(request.routing_key)] = expected.get(str(request.routing_key), 0) + units
        assert engine.figures.service() == expected, seed
        _close(engine)
