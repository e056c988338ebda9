"""On vLLM's own scheduler: kinds of requests beside plain generation, and what the server refuses at its start."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import vllm
from vllm.pooling_params import PoolingParams
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import RequestStatus

from fairprefix.adapters.vllm import FairScheduler
from fairprefix.adapters.vllm.client import mark
from fairprefix.adapters.vllm.support import parse_version
from fairprefix.core.errors import ConfigError
from tests.vllm import rig
from tests.vllm.observed import ObservedScheduler, World

VERSION = parse_version(vllm.__version__) or (99, 0)


def test_the_light_client_passes_the_flood() -> None:
    """Beside a flood, a light client is admitted after a few of the flood's requests, at the same hit rate."""
    orders, hits = {}, {}
    for name, make in (("stock", None), ("fair", FairScheduler)):
        config = rig.settings(seats=4, fairprefix={"quantum": 300})
        scheduler = rig.make_scheduler(make or rig.stock(config), config)
        runner = rig.Runner(scheduler)
        for number in range(48):
            client = "flood" if number < 40 else "light"
            scheduler.add_request(
                rig.make_request(f"{client} {number}", [5] * 64 + [number + 10] * 20, 10, client)
            )
        runner.run()
        orders[name] = [id.partition(" ")[0] for id in runner.admitted]
        hits[name] = sum(runner.first_cached.values())
    assert orders["stock"] == ["flood"] * 40 + ["light"] * 8
    assert orders["fair"].index("light") < 15
    assert hits["fair"] >= hits["stock"]


def steps_to_first_tokens(make: object, quantum: int = 200) -> tuple[float, int]:
    """Let a light client send a request now and then beside a flood; return its mean wait, and all steps."""
    config = rig.settings(seats=4, fairprefix={"quantum": quantum})
    scheduler = rig.make_scheduler(make or rig.stock(config), config)
    runner = rig.Runner(scheduler)
    shared = [5] * 64
    for number in range(100):
        scheduler.add_request(rig.make_request(f"flood {number}", [*shared, number + 10, 9], 48, "flood"))
    sent: dict[str, int] = {}
    waits: dict[str, int] = {}
    for step in range(10_000):
        if step % 20 == 19 and len(sent) < 8:
            id = f"light {len(sent)}"
            scheduler.add_request(rig.make_request(id, [*shared, len(sent) + 500, 9], 48, "light"))
            sent[id] = step
        runner.step()
        waits |= {id: step - sent[id] for id in sent if id not in waits and runner.delivered.get(id)}
        if not scheduler.has_unfinished_requests():
            return sum(waits.values()) / len(waits), step
    raise AssertionError("some requests were never finished")


def test_a_light_client_waits_for_fewer_steps() -> None:
    """Beside a flood: at most half of what it waits for in the order of arrival, in as many steps in all."""
    (stock, stock_steps), (fair, fair_steps) = steps_to_first_tokens(None), steps_to_first_tokens(FairScheduler)
    assert 2 * fair <= stock, (stock, fair)
    assert 0.95 * fair_steps <= stock_steps


def test_the_longest_cached_prefix_goes_first() -> None:
    """Under LPM, who shares a prefix with what was just served passes those that do not."""
    world = World(seats=1, fairprefix={"policy": "lpm"})
    shared, other = list(range(3, 131)), list(range(300, 428))
    world.add("first", shared, 2, "a")
    world.add("other", other, 2, "a")
    world.add("same", [*shared, 7], 2, "b")
    world.finish()
    assert world.runner.admitted == ["first", "same", "other"]


def test_pooling_requests_are_charged_for_their_prompts() -> None:
    """They have no output to charge, and their client's name travels in the request's id."""
    world = World()
    params = {"sampling_params": None, "pooling_params": PoolingParams()}
    for number in range(3):
        request = world.add(f"embd-{mark('reader', str(number))}", [5] * 40 + [number], 1, "reader", **params)
        request.max_tokens = 1
    plan = world.scheduler.schedule()
    ids = list(plan.num_scheduled_tokens)
    for new in plan.scheduled_new_reqs:
        world.runner.first_cached[new.req_id] = new.num_computed_tokens
    output = rig.call(
        ModelRunnerOutput,
        req_ids=ids,
        req_id_to_index={id: number for number, id in enumerate(ids)},
        sampled_token_ids=[[] for _ in ids],
        logprobs=None,
        prompt_logprobs_dict={},
        prompt_token_id_logprobs_dict={},
        pooler_output=[torch.zeros(2) for _ in ids],
    )
    world.scheduler.update_from_output(plan, output)
    world.finish()
    assert world.charged == {"reader": 41 + 9 + 9}


def test_adapters_beyond_the_limit_wait_without_holding_up_others() -> None:
    """While the only adapter slot is taken, requests of other adapters are passed over, and served later."""
    config = rig.settings(seats=4, fairprefix={"quantum": 100})
    vars(config)["lora_config"] = SimpleNamespace(max_loras=1)
    scheduler = rig.make_scheduler(ObservedScheduler, config)
    runner = rig.Runner(scheduler)
    for number in range(9):
        adapter = None if number % 3 == 2 else SimpleNamespace(
            lora_int_id=number % 3 + 1, lora_name=f"adapter {number % 3}", adapter_id=number % 3 + 1, name="x"
        )  # fmt: skip
        request = rig.make_request(f"r{number}", [number + 3] * 20, 6, f"client {number % 2}")
        request.lora_request = adapter
        scheduler.add_request(request)
    runner.run()
    host = scheduler.fairprefix
    assert host.policy.errors == host.shield.errors == host.queue.stalls == 0
    host.policy._policy.close()
    assert sorted(runner.admitted) == [f"r{number}" for number in range(9)]
    assert host.policy.figures.service() == {"client 0": 5 * (20 + 12), "client 1": 4 * (20 + 12)}


def test_a_grammar_is_waited_for_without_holding_up_others() -> None:
    """While it is compiled others of the same client pass; then the request is served, and charged once."""
    world = World(seats=1)
    names = ("WAITING_FOR_FSM", "WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR")
    request = rig.make_request("strict", [5] * 40, 3, "a")
    request.status = next(status for status in RequestStatus if status.name in names)
    grammar = request.structured_output_request = SimpleNamespace(grammar=None, is_grammar_ready=False)
    world.prompts["strict"], world.clients["strict"] = 40, "a"
    world.scheduler.add_request(request)
    for number in range(3):
        world.add(f"plain {number}", [number + 7] * 40, 3, "a")
    while len(world.runner.finished) < 2:
        world.step()
    assert "strict" not in world.runner.admitted
    vars(grammar).update(grammar=SimpleNamespace(), is_grammar_ready=True)
    world.finish()
    assert sorted(world.runner.admitted) == ["plain 0", "plain 1", "plain 2", "strict"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"policy": "priority"}, "'priority' is not valid"),
        ({"fairprefix": {"quantumm": 3}}, "did you mean 'quantum'"),
        ({"fairprefix": {"reservation": "full"}}, "this engine admits by 'none'"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, object], message: str) -> None:
    """With one line that names it."""
    config = rig.settings(**given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        rig.make_scheduler(FairScheduler, config)


def test_the_right_scheduler_is_extended() -> None:
    """The asynchronous one where asynchronous scheduling is on, which 0.11 does not allow."""
    plain = rig.make_scheduler(FairScheduler, rig.settings())
    assert type(plain).__mro__[2] is Scheduler
    config = rig.settings(asynchronous=True)
    if VERSION < (0, 15):
        with pytest.raises(ConfigError, match="async_scheduling = True is not valid"):
            rig.make_scheduler(FairScheduler, config)
    else:
        assert type(rig.make_scheduler(FairScheduler, config)).__mro__[2] is AsyncScheduler


def test_a_policy_that_fails_loses_nobody() -> None:
    """Arrival order takes over in the middle of the work."""
    from tests.vllm.broken import FailingScheduler  # noqa: PLC0415

    scheduler = rig.make_scheduler(FailingScheduler, rig.settings(seats=2))
    runner = rig.Runner(scheduler)
    for number in range(30):
        scheduler.add_request(rig.make_request(f"r{number}", [number + 3] * 20, 3, f"client {number % 5}"))
    runner.run()
    assert len(runner.finished) == 30
    assert scheduler.fairprefix.policy.errors == 1
    assert scheduler.fairprefix.shield.errors == 0
    assert not scheduler.requests


def test_a_mistake_of_ours_loses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also an error in the adapter itself only costs the order, and is counted."""
    scheduler = rig.make_scheduler(FairScheduler, rig.settings(seats=2))
    runner = rig.Runner(scheduler)
    for number in range(20):
        scheduler.add_request(rig.make_request(f"r{number}", [number + 3] * 20, 3, f"client {number % 5}"))
    for _ in range(4):
        runner.step()

    def fail(*_args: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(scheduler.fairprefix.translator, "admitted", fail)
    runner.run()
    assert len(runner.finished) == 20
    errors = [sample.value for sample in scheduler.fairprefix.samples() if "policy_errors" in sample.name]
    assert errors == [1]
