"""How the SGLang adapter orders the list of waiting requests, on a literal scheduler."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fairprefix.adapters.sglang.matches import BLOCK, TreeMatches
from fairprefix.adapters.sglang.places import Places
from fairprefix.adapters.sglang.views import Tracked
from fairprefix.core.config import PolicyConfig
from fairprefix.core.request import Request
from tests.adapters.sglang_literal import Engine, Req

CONFIG = PolicyConfig(gate="credit", reservation="none", quantum=100)


def _prompt(seed: int, length: int = 20) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(1000) for _ in range(length)]


def _answer(tokens: int, asked: list[str]) -> Callable[[str], int]:
    def ask(id: str) -> int:
        asked.append(id)
        return tokens

    return ask


def _order(engine: Engine) -> list[str]:
    engine.bridge.order(engine.view.waiting, SimpleNamespace(reqs=engine.running))
    return [req.rid for req in engine.view.waiting]


def test_only_as_many_are_planned_as_the_budget_reaches() -> None:
    """Of 500 requests of 20 tokens, a budget of 100 tokens asks the tree about a handful."""
    engine = Engine(CONFIG, budget=100)
    engine.add(*(Req(f"r{n}", _prompt(n), client="AB"[n % 2]) for n in range(500)))
    engine.view.questions = 0
    _order(engine)
    _order(engine)
    assert engine.view.questions <= 2 * 2 * 8


def test_the_plan_reaches_as_far_as_the_engine_admits() -> None:
    """However short the prompts: everybody whom the engine admits was planned, in fair order."""
    engine = Engine(PolicyConfig(gate="credit", reservation="none", quantum=5), room=40, budget=10**6)
    engine.add(*(Req(f"a{n}", _prompt(n, 5), client="A", output=1) for n in range(100)))
    engine.add(*(Req(f"b{n}", _prompt(200 + n, 5), client="B", output=1) for n in range(100)))
    names = [req.rid[0] for req in engine.batch(40).reqs]
    assert names.count("a") == names.count("b") == 20


def test_looking_commits_no_refill() -> None:
    """A thousand passes in which nothing is admitted leave everybody's deficit where it was."""
    engine = Engine(CONFIG)
    engine.add(*(Req(f"r{n}", _prompt(n), client="AB"[n % 2]) for n in range(10)))
    contract: Any = engine.contract
    before = contract.snapshot()["state"]
    for _ in range(1000):
        _order(engine)
    assert contract.snapshot()["state"] == before


def test_while_the_gate_is_shut_sglang_does_not_see_the_rest() -> None:
    """A client whose running request may still produce more than its credit admits no second one until then."""
    engine = Engine(PolicyConfig(gate="credit", reservation="none", quantum=10, slack=10))
    engine.add(Req("r", _prompt(1), client="A", output=50), Req("s", _prompt(2), client="A", output=5))
    assert [req.rid for req in engine.batch().reqs] == ["r"]
    assert [req.rid for req in engine.view.waiting] == ["s"]
    assert engine.batch() is None
    assert [req.rid for req in engine.view.waiting] == ["s"]
    for _ in range(50):
        engine.decode()
    assert [req.rid for req in engine.batch().reqs] == ["s"]


def test_with_nothing_running_somebody_is_always_admitted() -> None:
    """Whatever the slack, an engine that runs nothing is given a request."""
    engine = Engine(PolicyConfig(gate="credit", reservation="none", quantum=1, slack=0))
    for n in range(20):
        engine.add(Req(f"r{n}", _prompt(n), client="A", output=50))
    assert engine.batch() is not None


def test_if_the_policy_offers_nobody_an_idle_engine_still_sees_the_queue() -> None:
    """With nothing running, nothing is hidden: whatever a policy says, requests are served."""
    engine = Engine(CONFIG)
    engine.add(Req("r", _prompt(1), client="A"))
    engine.bridge.policy.plan = lambda _limit, **_named: []  # type: ignore[method-assign]
    assert [req.rid for req in engine.batch().reqs] == ["r"]


def test_whoever_left_the_queue_is_forgotten_at_the_next_pass() -> None:
    """A request that was aborted far behind the head is not kept until its turn would come."""
    engine = Engine(CONFIG, budget=20)
    engine.add(*(Req(f"r{n}", _prompt(n), client="A") for n in range(50)))
    del engine.view.waiting[40]
    _order(engine)
    assert engine.bridge.policy.live == 49


def test_a_follower_of_a_prefix_that_is_being_computed_goes_last_but_goes() -> None:
    """Of three requests with the same uncached beginning one goes first, the others after everybody else."""
    engine = Engine(CONFIG)
    document = _prompt(9, 30)
    engine.add(*(Req(f"d{n}", document + _prompt(n, 5), client="A") for n in range(3)))
    engine.add(Req("other", _prompt(99), client="A"))
    assert _order(engine) == ["d0", "other", "d1", "d2"]


def test_a_follower_is_not_put_back_for_ever() -> None:
    """Where the prefix never shows in the cache, a request is put behind others four times at most."""
    engine = Engine(CONFIG)
    document = _prompt(9, 30)
    engine.add(Req("d0", [*document, 1], client="A"), Req("d1", [*document, 2], client="A"))
    engine.add(*(Req(f"o{n}", _prompt(n), client="A") for n in range(3)))
    places = [_order(engine).index("d1") for _ in range(6)]
    assert places == [4, 4, 4, 4, 1, 1]


def test_between_namespaces_nothing_is_shared() -> None:
    """Two adapters cannot share cached prefixes: neither request waits for the other's."""
    engine = Engine(CONFIG)
    first, second = Req("x", _prompt(1), client="A"), Req("y", _prompt(1), client="A")
    first.extra_key, second.extra_key = "lora-1", "lora-2"
    engine.add(first, second, Req("z", _prompt(3), client="A"))
    assert _order(engine) == ["x", "y", "z"]


def test_places_are_found_whatever_is_removed() -> None:
    """After any appends and removals, requests are moved to the head without losing or doubling one."""
    for seed in range(20):
        rng = random.Random(seed)
        places, waiting, known = Places(), list[Any](), dict[Any, Tracked]()
        for n in range(200):
            req: Any = Req(f"r{n}", [1])
            waiting.append(req)
            known[req] = Tracked(req, req.rid, "A", n)
            places.appended(known[req], waiting)
            if rng.random() < 0.4:
                waiting.pop(rng.choice([0, rng.randrange(len(waiting))]))
            heads = rng.sample(waiting, min(3, len(waiting)))
            before = set(waiting)
            assert places.to_front([known[req] for req in heads], waiting, known)
            assert waiting[: len(heads)] == heads
            assert set(waiting) == before
            assert len(waiting) == len(before)


def test_a_request_that_is_gone_is_not_found() -> None:
    """For a request that left the list the answer is None, and False for moving it."""
    places, waiting, known = Places(), list[Any](), dict[Any, Tracked]()
    for n in range(3):
        req: Any = Req(f"r{n}", [1])
        waiting.append(req)
        known[req] = Tracked(req, req.rid, "A", n)
        places.appended(known[req], waiting)
    gone = known[waiting.pop(1)]
    assert places.find(gone, waiting) is None
    assert not places.to_front([gone], waiting, known)


def test_whoever_continues_a_computed_prompt_is_told_without_a_question() -> None:
    """Only the requests that share more of a computed prompt than they had cached are reported, exactly."""
    asked: list[str] = []
    view = TreeMatches(_answer(0, asked))
    blocks = {"a": (1, 2, 3), "b": (1, 2, 9), "c": (8,), "d": ()}
    for id, chain in blocks.items():
        view.watch(Request(id, "A", BLOCK * len(chain) + 1, 1, chain))
    assert asked == ["a", "b", "c", "d"]
    view.computed((1, 2, 3, 4), "")
    assert sorted(view.changes()) == [("a", 3 * BLOCK), ("b", 2 * BLOCK)]
    view.computed((1, 2, 3, 4), "")
    assert view.changes() == []
    view.computed((8,), "another namespace")
    assert view.changes() == []
    assert asked == ["a", "b", "c", "d"]


def test_of_a_prompt_that_another_has_computed_whole_one_token_is_left() -> None:
    """What has grown stays below the length of the prompt, as the policy is promised."""
    view = TreeMatches(_answer(0, []))
    view.watch(Request("a", "A", 2 * BLOCK, 1, (1, 2)))
    assert view.computed((1, 2, 3), "") == {"a": 2 * BLOCK - 1}
    assert view.changes() == [("a", 2 * BLOCK - 1)]


def test_a_request_is_asked_for_once_in_a_pass() -> None:
    """Offered again within a pass, it is not asked for again; in the next pass it is."""
    asked: list[str] = []
    view = TreeMatches(_answer(3, asked))
    view.watch(Request("a", "A", 10, 1))
    view.refresh()
    assert view.confirm("a") == view.confirm("a") == 3
    assert len(asked) == 2
    view.refresh()
    view.confirm("a")
    assert len(asked) == 3


def test_one_answer_in_a_pass_does_for_all_with_the_same_cached_prefix() -> None:
    """Who shares it is not asked for, who has another one is, and who has nothing cached never is."""
    asked: list[str] = []
    cached = {"a": 2 * BLOCK, "b": 2 * BLOCK, "c": BLOCK, "d": 0, "salted": 2 * BLOCK}

    def ask(id: str) -> int:
        asked.append(id)
        return cached[id]

    view = TreeMatches(ask)
    for id, chain in {"a": (1, 2, 3), "b": (1, 2, 9), "c": (7, 8), "d": (5,), "salted": (1, 2, 3)}.items():
        view.watch(Request(id, "A", BLOCK * len(chain) + 1, 1, chain, id if id == "salted" else ""))
    asked.clear()
    view.refresh()
    assert [view.confirm(id) for id in cached] == list(cached.values())
    assert asked == ["a", "c", "salted"]
    cached |= {"a": 0, "b": BLOCK}
    view.refresh()
    assert (view.confirm("a"), view.confirm("b")) == (0, BLOCK), "what was evicted shows in the next pass"


def test_after_the_policy_has_failed_the_adapter_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failed policy never let go of does no harm when a prompt that it continues is computed: one error."""
    engine = Engine(CONFIG)
    monkeypatch.setattr(engine.bridge.policy, "_on_error", lambda _problem: None)
    document = _prompt(1, 2 * BLOCK)
    first, follower = Req("first", document, client="A"), Req("follower", [*document, 1], client="A")
    engine.add(first)
    batch = engine.batch()
    engine.add(follower)
    monkeypatch.setattr(engine.contract, "plan", None)
    engine.bridge.order(engine.view.waiting, None)
    engine.view.waiting.clear()
    engine.bridge.order(engine.view.waiting, None)
    engine.process(batch)
    assert engine.bridge.policy.errors == 1
    assert not engine.policy._fairprefix.broken


def test_an_error_of_the_adapter_leaves_sglang_its_own_order(caplog: pytest.LogCaptureFixture) -> None:
    """If the adapter itself fails, SGLang's order is asked for, from the order of arrival, and it is said once."""
    from fairprefix.adapters.sglang.hooks import SchedulerHooks

    engine = Engine(PolicyConfig(policy="lpm", reservation="none"))
    requests = [Req(f"r{n}", _prompt(n), client="A") for n in range(5)]
    engine.view.cache(requests[4].origin_input_ids)
    engine.add(*requests)
    assert _order(engine)[0] == "r4"
    engine.view.room = None  # type: ignore[assignment,method-assign]
    asked: list[list[str]] = []
    for _ in range(3):
        with caplog.at_level(logging.ERROR):
            SchedulerHooks.order(
                lambda _policy, queue, *_rest: asked.append([req.rid for req in queue]),
                engine.policy,
                engine.view.waiting,
                None,
            )
    assert asked == [["r0", "r1", "r2", "r3", "r4"]] * 3
    assert len(caplog.records) == 1
    assert engine.bridge.policy.errors == 1


def test_a_scheduler_without_a_policy_of_ours_is_left_alone() -> None:
    """Where nothing is attached, SGLang's own order is asked for at once."""
    from fairprefix.adapters.sglang.hooks import SchedulerHooks

    assert SchedulerHooks.order(lambda *_args, **_named: "stock", SimpleNamespace(), [], None) == "stock"
