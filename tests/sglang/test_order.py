"""The order, on SGLang's real scheduling policy and its real trees."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from fairprefix.core.config import PolicyConfig
from tests.sglang import real

SYSTEM = real.prompt(0, 256)


def _trees() -> list[str]:
    try:
        import sglang.srt.mem_cache.unified_cache.components  # noqa: F401
        from sglang.srt.environ import envs

        envs.SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND  # noqa: B018
    except (ImportError, AttributeError):
        return ["legacy"]
    return ["legacy", "unified-rust", "unified-python"]


@pytest.fixture(params=_trees())
def tree(request: pytest.FixtureRequest) -> Any:
    """Return one of this version's trees."""
    kind = str(request.param)
    return real.legacy_tree() if kind == "legacy" else real.unified_tree(kind.removeprefix("unified-"))


def _requests(count: int, tree: Any, seed: int = 1) -> list[Any]:
    """Return requests of which different lengths are cached."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        own = real.prompt(1000 + number, rng.randint(64, 512))
        cached = rng.randint(0, len(own) - 1) if number % 3 else 0
        if cached:
            real.insert(tree, [*SYSTEM, *own[:cached]])
        made.append(real.request(f"r{number}", [*SYSTEM, *own], client=f"c{number % 5}"))
    return made


def _lpm(tree: Any, requests: list[Any], room: int) -> real.Scheduler:
    scheduler = real.Scheduler(tree, room=room, budget=10**9)
    scheduler.attach(PolicyConfig(policy="lpm", reservation="none"))
    scheduler.add(*requests)
    return scheduler


def test_as_lpm_the_order_is_that_of_sglang_s_own_lpm(tree: Any) -> None:
    """As LPM the hook leaves the list in the very order of SGLang's LPM."""
    requests = _requests(100, tree)
    expected = real.stock_order(tree, requests)
    assert _lpm(tree, requests, room=100).order() == expected


def test_beyond_128_waiting_requests_lpm_order_is_kept(tree: Any) -> None:
    """With 500 waiting, where SGLang falls back to arrival order, the head of the list is still in LPM order."""
    requests = _requests(500, tree)
    expected = real.stock_order(tree, requests)
    queue = list(requests)
    real.schedule(tree).calc_priority(queue, None)
    assert [req.rid for req in queue] == [req.rid for req in requests], "SGLang no longer falls back"
    assert _lpm(tree, requests, room=64).order()[:64] == expected[:64]


def test_of_those_that_would_compute_the_same_prefix_one_goes_first(tree: Any) -> None:
    """Who goes behind the others for in-batch prefix sharing is whom SGLang deprioritises."""
    documents = [real.prompt(50 + number, 400) for number in range(3)]
    requests = [
        real.request(f"r{number}", [*documents[number % 3], *real.prompt(900 + number, 50)]) for number in range(9)
    ]
    policy = real.schedule(tree)
    deprioritised = policy._compute_prefix_matches(list(requests), policy.policy)
    assert len(deprioritised) == 6
    order = _lpm(tree, requests, room=9).order()
    assert set(order[3:]) == deprioritised
    assert order == real.stock_order(tree, requests)


def test_a_computed_prefix_moves_those_forward_that_continue_it(tree: Any) -> None:
    """Among 300 waiting requests, those that continue a prompt come first once it is computed."""
    document = real.prompt(7, 512)
    others = [real.request(f"o{number}", real.prompt(100 + number, 300)) for number in range(300)]
    sharing = [real.request(f"s{number}", [*document, *real.prompt(600 + number, 64)]) for number in range(3)]
    first = real.request("first", document + real.prompt(5, 64))
    scheduler = real.Scheduler(tree, room=8, budget=10**9)
    attached = scheduler.attach(PolicyConfig(policy="lpm", reservation="none"))
    scheduler.add(first, *others[:150], *sharing, *others[150:])
    assert scheduler.admit(1) == ["first"]
    real.insert(tree, list(first.origin_input_ids))
    first.output_ids.append(5)
    attached.bridge.processed(SimpleNamespace(reqs=[first]))
    assert scheduler.order()[:3] == ["s0", "s1", "s2"]


def test_a_light_client_goes_ahead_of_one_that_floods(tree: Any) -> None:
    """Under DLPM the request of a client that got nothing so far comes before those of one in debt."""
    scheduler = real.Scheduler(tree, room=4, budget=10**9)
    scheduler.attach(PolicyConfig(quantum=64, gate="credit", reservation="none"))
    scheduler.add(*(real.request(f"a{n}", real.prompt(n, 300), client="A") for n in range(200)))
    assert all(rid.startswith("a") for rid in scheduler.admit(4))
    scheduler.add(real.request("b0", real.prompt(999, 300), client="B"))
    assert scheduler.order()[0] == "b0"


def test_when_the_policy_fails_sglang_s_own_order_takes_over(tree: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A policy that raises costs nothing but its order: SGLang's LPM takes over, and it is said once."""

    class Broken:
        def __getattr__(self, name: str) -> Any:
            if name == "plan":
                raise RuntimeError("out of order")
            return lambda *_args, **_kwargs: None

    requests = _requests(60, tree)
    expected = real.stock_order(tree, requests)
    scheduler = real.Scheduler(tree)
    attached = scheduler.attach(PolicyConfig(reservation="none"), make=lambda _config, _prefixes: Broken())
    scheduler.add(*requests)
    assert scheduler.order() == expected
    assert scheduler.order() == expected
    assert attached.bridge.policy.errors == 1
    assert [record.message.count("own order takes over") for record in caplog.records].count(1) == 1


def test_the_list_keeps_exactly_its_requests_whatever_happens_to_it(tree: Any) -> None:
    """Through arrivals, admissions, silent aborts and retractions nobody is lost from the list, or doubled."""
    rng = random.Random(3)
    scheduler = real.Scheduler(tree, room=8, budget=4_000)
    attached = scheduler.attach(PolicyConfig(quantum=500, gate="credit", reservation="none", bounded_wait=4))
    requests = _requests(300, tree)
    inside: set[str] = set()
    running: list[Any] = []
    for step in range(150):
        for _ in range(rng.randrange(4)):
            if requests:
                scheduler.add(requests[-1])
                inside.add(requests.pop().rid)
        if scheduler.waiting_queue and rng.random() < 0.2:
            inside.discard(scheduler.waiting_queue.pop(rng.randrange(len(scheduler.waiting_queue))).rid)
        by_id = {req.rid: req for req in scheduler.waiting_queue}
        chosen = scheduler.admit(rng.randrange(4)) if scheduler.waiting_queue else []
        inside -= set(chosen)
        running += [by_id[rid] for rid in chosen]
        for req in running:
            req.output_ids.append(step)
        attached.bridge.processed(SimpleNamespace(reqs=list(running)))
        if running and rng.random() < 0.3:
            retracted = running.pop(0)
            scheduler.add(retracted)
            inside.add(retracted.rid)
        assert sorted(req.rid for req in scheduler.waiting_queue) == sorted(inside), step
        assert not attached.stopped, step
    attached.bridge.policy.validate()
