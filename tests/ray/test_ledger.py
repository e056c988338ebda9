"""What the ledger counts: each request once, whatever happens to replicas, callers and the ledger itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import Any

import pytest
import ray
from ray import serve

from fairprefix.adapters.ray import RouteKey, fair_options
from fairprefix.adapters.ray.lookup import ledger_actor
from tests.closed_loop import Stream
from tests.ray.fleet import deployed, figures, load, settled

pytestmark = pytest.mark.usefixtures("cluster")

SETTINGS = {
    "policy": {"quantum": 1000, "slack": 4096, "weights": {"four": 4}},
    # Small enough that both clients always wait at every replica: each gate can keep the weights only then.
    "router": {"quantum": 200},
    "window": 8,
    "longest_input": 2000,
    "longest_output": 200,
}


def one_request(handle: Any, client: str = "a", output: int = 8) -> Any:  # noqa: ANN401 (Ray's handles)
    """Send a request of 100 tokens."""
    return handle.generate.remote(RouteKey.of(client, range(100), max_output=output), output)


def test_what_replicas_report_is_what_is_settled() -> None:
    """The dispatcher's counter falls by prompt and true output, not by the output that was allowed."""

    async def ask(handle: Any) -> None:  # noqa: ANN401 (Ray's handles)
        await handle.generate.remote(RouteKey.of("a", range(100), max_output=200), 8)

    with deployed(SETTINGS, app="reports", num_replicas=1) as handle:
        asyncio.run(ask(handle))
        seen = settled("reports", 1)
        (worker,) = seen["loads"]
        actor = ledger_actor("reports", "LLM", "fairprefix")
        deficit = ray.get(actor.deficit.remote("a", worker))
    assert seen["settled"] == 1
    assert seen["unreported"] == seen["refunded"] == 0
    assert deficit == SETTINGS["router"]["quantum"] - 100 - 2 * 8  # type: ignore[index]


def test_a_request_that_is_rejected_is_charged_once() -> None:
    """Full replicas reject, routers ask again; in the end there is one settlement for each request."""

    async def ask(handle: Any) -> None:  # noqa: ANN401 (Ray's handles)
        await asyncio.gather(*(one_request(handle, output=16) for _ in range(24)))

    with deployed(SETTINGS, app="full", max_ongoing_requests=2) as handle:
        asyncio.run(ask(handle))
        seen = settled("full", 24)
    assert seen["settled"] == 24
    assert seen["picks"] == 24 + seen["refunded"]
    assert seen["refunded"] > 0
    assert seen["service"] == {"a": sum(seen["service"].values())}


def test_a_cancelled_request_leaves_nothing_behind() -> None:
    """Requests whose callers go away are settled with what they had cost by then; none stays out."""

    async def ask(handle: Any) -> None:  # noqa: ANN401 (Ray's handles)
        responses = [one_request(handle, output=150) for _ in range(30)]
        await asyncio.sleep(1)
        for response in responses:
            response.cancel()
        await asyncio.gather(*responses, return_exceptions=True)

    with deployed(SETTINGS, app="cancelled") as handle:
        asyncio.run(ask(handle))
        seen = settled("cancelled", 30)
    assert seen["settled"] + seen["refunded"] == seen["picks"]
    assert not any(seen["loads"].values())
    assert seen["service"].get("a", 0) < 30 * (100 + 2 * 150)


def test_a_killed_replica_is_replaced_and_nothing_is_counted_twice() -> None:
    """After a SIGKILL its requests are refunded, and the replacement is routed to."""
    streams = (Stream("a", 12, 3, 200, 20, 24), Stream("b", 6, 3, 200, 20, 24))

    async def ask(handle: Any) -> tuple[list[Any], int, float, set[str]]:  # noqa: ANN401 (Ray's handles)
        loading = asyncio.create_task(load(handle, streams, 20))
        await asyncio.sleep(3)
        before = set((await ledger_actor("killed", "LLM", "fairprefix").figures.remote())["loads"])
        victim = await handle.ask_pid.remote()
        killed_s = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        return await loading, victim, killed_s, before

    with deployed(SETTINGS, app="killed") as handle:
        answers, victim, killed_s, before = asyncio.run(ask(handle))
        seen = settled("killed", len(answers), within_s=30)
    lost = [one for one in answers if one.problem]
    late = {one.where for one in answers[-60:] if not one.problem}
    early = {one.where for one in answers if one.began_s < answers[0].began_s + 3}
    assert victim not in late
    assert late - early, "nobody was sent to the replacement"
    assert seen["settled"] + seen["refunded"] == seen["picks"]
    # Only requests that the dead replica had accepted are lost, and each of them is refunded; so is what it had
    # answered a moment before, if its report died with it.
    moment = [one for one in answers if one.where == victim and one.ended_s > killed_s - 0.5]
    answered = len(answers) - len(lost)
    assert answered - len(moment) <= seen["settled"] <= answered
    assert len(lost) <= seen["refunded"] <= len(lost) + len(moment) + 5
    assert len(set(seen["loads"]) - before) == 1
    assert not any(seen["loads"].values())


def test_a_ledger_that_dies_is_rebuilt() -> None:
    """Requests go on while there is no ledger; the next one knows the counters and what is out."""
    streams = (Stream("a", 8, 3, 200, 20, 24),)

    async def ask(handle: Any) -> tuple[list[Any], dict[str, int]]:  # noqa: ANN401 (Ray's handles)
        loading = asyncio.create_task(load(handle, streams, 20))
        await asyncio.sleep(5)
        actor = ledger_actor("rebuilt", "LLM", "fairprefix")
        counters = {
            worker: await actor.deficit.remote("a", worker) for worker in (await actor.figures.remote())["loads"]
        }
        ray.kill(actor)
        return await loading, counters

    with deployed(SETTINGS, app="rebuilt") as handle:
        epoch = figures("rebuilt")["epoch"]
        answers, before = asyncio.run(ask(handle))
        seen = settled("rebuilt", 1, within_s=40)
    assert not [one.problem for one in answers if one.problem]
    assert seen["epoch"] != epoch
    assert set(seen["loads"]) == set(before)
    assert seen["restored"]
    assert 0 < seen["picks"] < len(answers)
    assert seen["settled"] + seen["refunded"] == seen["picks"]


def test_a_deployment_is_told_whose_openai_requests_are() -> None:
    """The router's arguments are JSON, and say where clients are named and how large a block is."""
    told = fair_options({"policy": {"identity": ["body:user"]}, "router": {"block_size": 32}})
    arguments = told["request_router_config"].request_router_kwargs
    assert json.loads(json.dumps(arguments)) == arguments
    assert (arguments["identity"], arguments["block_size"]) == (["body:user"], 32)


@ray.remote
class Caller:
    """A process of its own, with a handle and a router of its own."""

    async def ask(self, app: str, streams: list[Stream], seconds: float) -> list[Any]:
        """Load a deployment."""
        return list(await load(serve.get_app_handle(app), streams, seconds))


def test_two_handles_share_one_ledger() -> None:
    """Weights 4:1 hold within 10 %, though one router sees nearly all requests of one client."""
    # Many families, so that both clients wait everywhere; a quantum of about one request, so that the two rounds
    # by which a gate may be ahead of the weights are little beside what is served in the time.
    skewed = (
        [Stream("four", 50, 32, 200, 20, 24), Stream("one", 8, 32, 200, 20, 24)],
        [Stream("four", 10, 32, 200, 20, 24), Stream("one", 72, 32, 200, 20, 24)],
    )
    settings = {**SETTINGS, "policy": {"quantum": 100, "slack": 4096, "weights": {"four": 4}}}
    with deployed(settings, app="shared"):
        callers = [Caller.remote() for _ in skewed]  # type: ignore[attr-defined]
        running = [
            caller.ask.remote("shared", streams, 24) for caller, streams in zip(callers, skewed, strict=True)
        ]
        time.sleep(8)
        began = figures("shared")
        time.sleep(14)
        ended = figures("shared")
        answers = [one for part in ray.get(running) for one in part]
        seen = settled("shared", len(answers))
    got = {client: ended["service"][client] - began["service"][client] for client in ("four", "one")}
    print("service", got, {**seen, "assumptions": ...})
    assert len(began["routers"]) == 2
    assert seen["picks"] == seen["settled"] == len(answers)
    assert 3.6 <= got["four"] / got["one"] <= 4.4
    assert seen["largest_gap"] < seen["bound"]
