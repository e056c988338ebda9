"""All workers together: shares by weight, names without end, windows that are learnt."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.d2lpm import D2LPM
from fairprefix.core.request import Request
from fairprefix.core.router_catalog import make_router
from fairprefix.gateway.advice import quantum_advice
from fairprefix.gateway.ask import Ask, read_ask
from fairprefix.gateway.config import Settings, WorkerConfig, make_settings
from fairprefix.gateway.errors import GatewayError
from fairprefix.gateway.estimate import Estimates
from fairprefix.gateway.fleet import Fleet
from fairprefix.gateway.gateway import Gateway
from fairprefix.gateway.health import next_window, read_load
from fairprefix.gateway.prefix import TextBlocks, prompt_text
from fairprefix.gateway.tally import Tally
from fairprefix.gateway.turn import Place, Turn
from fairprefix.gateway.view import describe
from tests.gateway.rig import gateway, mock


def settings(**given: Any) -> Settings:  # noqa: ANN401
    """Return settings with two workers."""
    workers = [WorkerConfig(url=f"http://127.0.0.1:{port}", name=f"w{port}", window=2) for port in (1, 2)]
    return make_settings(given, "test", workers)


def fleet(**given: Any) -> Fleet:  # noqa: ANN401
    """Return two workers that nobody looks after."""
    made = settings(**given)
    tally = Tally(made.policy, names=made.gateway.names)
    return Fleet(made, make_router(made.router), lambda _worker, policy, view: make_policy(policy, view), tally)


def request(number: int, client: str, tokens: int = 64) -> Request:
    """Return a request."""
    return Request(id=str(number), client=client, input_tokens=tokens, max_output=50, blocks=(number,))


def test_weights_are_kept_while_both_have_requests_waiting(tmp_path: Path) -> None:
    """Of two clients that always want more, the one of weight 3 gets three times what the other one gets."""
    given = {"quantum": 100, "weights": {"three": 3}, "gateway": {"trusted": ["127.0.0.1"]}}
    with (
        mock(step_ms=2, slots=4) as worker,
        gateway(f"{worker.url},window=4", settings=given, folder=tmp_path) as front,
    ):
        asyncio.run(_both_want_more(front.url))
        three, one = front.client("three"), front.client("one")
        state = front.state()
    assert 2.4 < three["service"] / one["service"] < 3.6
    assert 0 < state["gap"] <= state["bound"]
    assert three["share"] + one["share"] == pytest.approx(1)


async def _both_want_more(url: str) -> None:
    """Keep ten requests of each under way until 240 are answered."""
    answered = 0

    async def stream(client: httpx.AsyncClient, name: str) -> None:
        nonlocal answered
        while answered < 240:
            body = {"prompt": f"{name} asks this", "max_tokens": 10}
            await client.post(f"{url}/v1/completions", json=body, headers={"x-tenant-id": name})
            answered += 1

    async with httpx.AsyncClient(timeout=60) as client:
        await asyncio.gather(*(stream(client, name) for name in ("three", "one") for _ in range(10)))


def test_the_quantum_is_near_what_a_short_request_costs_unless_a_ledger_is_shared() -> None:
    """A gateway's own default is small; one that asks Redis for each refill has that of every host."""
    redis = {"redis": {"url": "redis://127.0.0.1:1"}}
    quanta = [settings(**given).policy.quantum for given in ({}, redis, {"quantum": 9})]
    assert quanta == [256, PolicyConfig().quantum, 9]


@pytest.mark.parametrize(("quantum", "said"), [(800, False), (810, True)])
def test_a_quantum_of_many_requests_is_spoken_of(quantum: int, *, said: bool) -> None:
    """After two hundred requests of 100 units each, a quantum of more than eight of them gets a sentence."""
    config = settings(quantum=quantum).policy
    tally = Tally(config, names=10)
    for number in range(200):
        assert quantum_advice(config, tally) is None, number
        tally.done("a", input_tokens=400, cached=340, output=20)
    assert tally.usual_cost == 100
    advice = quantum_advice(config, tally)
    assert (advice is not None) == said
    if said:
        assert "quantum = 810 is what 8 usual requests cost (100 service units each)" in str(advice)
    assert quantum_advice(settings(quantum=quantum, policy="vtc").policy, tally) is None


def test_what_is_said_of_the_quantum_is_in_the_log_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running gateway looks at it again and again, and says it once."""
    monkeypatch.setattr("fairprefix.gateway.gateway._SWEEP_S", 0.01)

    async def run() -> None:
        made = Gateway(settings(quantum=810))
        await made.start()
        for _ in range(200):
            made.fleet.tally.done("a", input_tokens=400, cached=340, output=20)
        await asyncio.sleep(0.2)
        await made.stop()

    asyncio.run(run())
    assert [text for text in caplog.messages if "usual requests" in text] == [quantum_text(810)]


def quantum_text(quantum: int) -> str:
    """Return what is said of a quantum where a request costs 100."""
    tally = Tally(settings().policy, names=10)
    for _ in range(200):
        tally.done("a", input_tokens=100, cached=0, output=0)
    return str(quantum_advice(settings(quantum=quantum).policy, tally))


def test_the_usual_cost_is_that_of_late() -> None:
    """It follows when requests become longer."""
    tally = Tally(settings().policy, names=10)
    for cost in [10] * 300 + [1000] * 2000:
        tally.done("a", input_tokens=cost, cached=0, output=0)
    assert 990 < tally.usual_cost <= 1000


def test_a_hundred_thousand_names_leave_bounded_tables_behind() -> None:
    """Accounts, figures, estimates and what is saved keep to their limits, whoever comes."""
    both = fleet(max_clients=500, router={"max_clients": 500}, gateway={"names": 100})
    estimates = Estimates(4, 256)
    ask = Ask("/v1/completions", b"", {}, 400, None, None, ())
    for number in range(100_000):
        name = f"invented {number}"
        turn = both.enter(request(number, name), 10)
        estimates.learn(ask, name, 100, 5)
        both.settle(turn, prompt=64, cached=0, output=5)
    assert len(both.tally.clients) == 101
    assert both.tally.of("whoever").requests == 0
    assert both.tally.clients["other"].output_tokens == 5 * (100_000 - 100)
    router = both.router
    assert isinstance(router, D2LPM)
    assert len(router.snapshot()["accounts"]) <= 500
    for worker in both.workers.values():
        assert len(worker.queue.policy.snapshot()["state"]["accounts"]) <= 501
        assert worker.queue.policy.live == 0
    assert len(estimates._output) <= 10_000
    router.validate()


def test_each_request_is_settled_or_given_back_once_whatever_happens() -> None:
    """Workers fall out and come back, requests move and end: router, queues and figures agree in the end."""
    both = fleet(quantum=100)
    turns = [both.enter(request(number, f"c{number % 3}"), 10) for number in range(12)]
    one, two = both.workers.values()
    both.suspend(one, "test")
    assert {turn.worker for turn in turns if turn.place is Place.WAITING} == {two.name}
    for turn in [turn for turn in turns if turn.place is Place.INSIDE and turn.worker == one.name]:
        both.send_again(turn)
    assert both.waiting + len(two.queue.inside) == 12
    both.suspend(two, "test")
    stranded = [turn for turn in turns if turn.lost is not None]
    assert len(stranded) == 10
    with pytest.raises(GatewayError, match="no worker is alive"):
        both.enter(request(99, "late"), 1)
    for turn in turns:
        both.give_up(turn)
        both.give_up(turn)
    both.resume(one)
    both.resume(two)
    assert both.waiting == 0
    assert describe(both, 0)["clients"][0]["service"] == 0
    both.router.validate()
    assert not both.router.snapshot()["dispatched"]
    for worker in both.workers.values():
        worker.queue.policy.validate()
        assert (len(worker.queue.inside), worker.queue.policy.live) == (0, 0)


def test_a_worker_that_comes_back_has_nothing_cached() -> None:
    """It may have been restarted: neither its queue nor the router takes anything to be there."""
    both = fleet()
    asked = Request(id="1", client="a", input_tokens=64, max_output=50, blocks=(1, 2, 3))
    turn = both.enter(asked, 10)
    worker = both.workers[turn.worker]
    both.settle(turn, prompt=64, cached=0, output=5)
    slot = both.router.workers.named(worker.name).slot
    assert worker.cached(asked) > 0
    assert both.router.index.blocks_of(slot) == 3
    both.suspend(worker, "test")
    both.resume(worker)
    assert worker.cached(asked) == both.router.index.blocks_of(slot) == 0


@pytest.mark.parametrize(
    ("window", "inside", "queued", "load", "expected"),
    [
        (32, 32, True, (8, 24), 9),  # it runs 8: more only wait inside
        (9, 9, True, (8, 1), 9),  # one waits to take the next place that gets free
        (16, 16, True, (16, 0), 18),  # full, others wait here, it runs all it has
        (16, 16, False, (16, 0), 16),  # nobody is waiting for more
        (16, 10, True, (10, 0), 16),  # it is not full
        (16, 16, True, (0, 5), 16),  # it has just begun: nothing can be learnt
        (60, 60, True, (60, 0), 64),  # no larger than the largest
    ],
)
def test_a_window_follows_what_the_worker_bears(
    window: int,
    inside: int,
    queued: bool,  # noqa: FBT001
    load: tuple[int, int],
    expected: int,
) -> None:
    """It shrinks to what runs when requests wait in the worker, and grows when the worker bears more."""
    assert next_window(window, inside=inside, queued=queued, load=load, most=64) == expected


def test_the_load_is_read_over_all_ranks_and_from_every_engine() -> None:
    """vLLM, SGLang and our own engine each have figures of their own; without them nothing is learnt."""
    vllm = b'# HELP x\nvllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_running{engine="1"} 2.0\n'
    assert read_load(vllm + b'vllm:num_requests_waiting{engine="0"} 1.0\n') == (5, 1)
    assert read_load(b"sglang:num_running_reqs 4.0\nsglang:num_queue_reqs 0.0\n") == (4, 0)
    assert read_load(b"fairprefix_requests_running 1.0\nfairprefix_requests_waiting 2.0\n") == (1, 2)
    assert read_load(vllm) is None
    assert read_load(b"up 1\n") is None


def test_prompts_agree_in_blocks_as_far_as_their_text_does() -> None:
    """A chat that goes on keeps the blocks of what was said; another model, salt or first word shares nothing."""
    blocks = TextBlocks(16, 4)

    def of(**body: object) -> list[int]:
        return [int(block) for block in blocks.blocks(body, prompt_text(body))]

    said = [{"role": "user", "content": "a question " * 40}]
    first = of(model="m", messages=said)
    longer = of(model="m", messages=[*said, {"role": "assistant", "content": "an answer " * 40}])
    assert len(first) == 7
    assert longer[:7] == first
    assert len(longer) > len(first)
    for other in ({"model": "n"}, {"cache_salt": "s"}, {"messages": [{"role": "user", "content": "A" * 500}]}):
        assert not set(of(**{"model": "m", "messages": said} | other)) & set(first)
    assert of(prompt=list(range(40))) == of(prompt=list(range(35)))
    assert len(of(prompt=list(range(40)))) == 2


@pytest.mark.parametrize(
    ("body", "places", "limit", "tokens"),
    [
        ({"prompt": "one", "max_tokens": 7}, 1, 7, None),
        ({"prompt": "one", "max_tokens": 7, "n": 3}, 3, 21, None),
        ({"messages": [{"role": "user", "content": "one"}], "max_tokens": 7, "n": 2}, 2, 14, None),
        ({"prompt": ["one", "two"], "max_tokens": 7, "n": 3}, 6, 42, None),
        ({"prompt": [1, 2, 3]}, 1, None, 3),
        ({"prompt": [[1, 2, 3], [4]], "max_tokens": 7}, 2, 14, 4),
        ({"input": ["one", "two", "three"]}, 3, None, None),
        ({"input": [{"role": "user", "content": "one"}]}, 1, None, None),
        ({"prompt": "one", "n": -5}, 1, None, None),
        ({"prompt": "one", "n": "many"}, 1, None, None),
        ({"prompt": "one", "n": 10**12}, 1 << 16, None, None),
    ],
)
def test_answers_are_counted_as_the_worker_will_compute_them(
    body: dict[str, Any], places: int, limit: int | None, tokens: int | None
) -> None:
    """`n` for each prompt: so many places at the worker, and so many times the longest output."""
    ask = read_ask("/v1/completions", orjson.dumps(body), json=True, prompt=TextBlocks(16, 4))
    assert (ask.places, ask.limit, ask.tokens) == (places, limit, tokens)


def test_an_output_is_learnt_for_one_answer() -> None:
    """Three answers of 20 tokens make 60 usual for three, and 20 for one."""
    estimates = Estimates(4, 256)

    def asked(places: int) -> Ask:
        return Ask("/v1/completions", b"", {}, 400, None, None, (), places)

    for _ in range(100):
        estimates.learn(asked(3), "client", 100, 60)
    assert [estimates.output(asked(places), "client") for places in (1, 3)] == [20, 60]


def test_a_worker_runs_no_more_answers_than_its_window_has_places() -> None:
    """Requests for two answers each, and lists of two prompts: four places are two of them; all is charged."""
    with (
        mock(step_ms=5, slots=64) as worker,
        gateway(f"{worker.url},window=4", options=("--trust", "127.0.0.1")) as front,
    ):

        async def run() -> list[int]:
            async with httpx.AsyncClient(timeout=60) as client:
                bodies: list[dict[str, Any]] = [{"prompt": "one two", "n": 2}, {"prompt": ["one two", "3"]}] * 8
                url = f"{front.url}/v1/completions"
                asks = [client.post(url, json=body | {"max_tokens": 5}) for body in bodies]
                return [len(answer.json()["choices"]) for answer in await asyncio.gather(*asks)]

        assert asyncio.run(run()) == [2] * 16
        assert httpx.get(f"{worker.url}/mock").json()["most_running"] == 4
        front.settled()
        client = front.client("default-flow")
        assert (client["input_tokens"], client["output_tokens"]) == (8 * 2 + 8 * 3, 16 * 10)


def test_estimates_learn_from_what_was_reported() -> None:
    """Bytes per token and a client's usual output approach what workers say."""
    estimates = Estimates(4, 256)
    ask = Ask("/v1/completions", b"", {}, 8000, None, None, ())
    assert (estimates.prompt(ask), estimates.output(ask, "a")) == (2000, 256)
    for _ in range(100):
        estimates.learn(ask, "a", 1000, 20)
    assert 990 <= estimates.prompt(ask) <= 1015
    assert estimates.output(ask, "a") == 20
    assert estimates.output(ask, "b") == 256
    tokens = Ask("/v1/completions", b"", {}, 8000, 77, 5, ())
    assert (estimates.prompt(tokens), estimates.output(tokens, "a")) == (77, 5)


def test_a_turn_wakes_whoever_waits_once() -> None:
    """Waking again, or waking nobody, is no change."""

    async def run() -> None:
        turn = Turn(request(1, "a"), 1, 0)
        turn.wake()
        turn.waiter = asyncio.get_running_loop().create_future()
        turn.wake()
        turn.wake()
        await turn.waiter

    asyncio.run(run())
