"""The component with workers that fail when told to: what is retried, what is charged, who is suspended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from typing import Any

import attrs
import pytest

from fairprefix.adapters.dynamo.__main__ import main
from fairprefix.adapters.dynamo.component import Chunk, Component
from fairprefix.adapters.dynamo.identity import client_of
from fairprefix.adapters.dynamo.settings import Settings
from fairprefix.core.config import PolicyConfig
from fairprefix.hosting import Identity

SETTINGS = Settings(
    policy=PolicyConfig(gate="credit", slack=1000, quantum=500, reservation="none"),
    window=2,
    longest_input=200,
    longest_output=50,
    suspend_s=0.05,
)


class Workers:
    """Workers that answer with five tokens, one at a time."""

    def __init__(self) -> None:
        self.dead: dict[str, int] = {}
        """After how many tokens a worker breaks."""
        self.cached: dict[str, int] = {}
        self.served: list[str] = []

    async def overlap(self, tokens: list[int], namespace: str) -> Mapping[str, int]:
        """Return what was set."""
        del tokens, namespace
        return self.cached

    async def generate(self, request: Mapping[str, Any], worker: str) -> AsyncGenerator[Chunk, None]:
        """Yield five chunks, or break."""
        del request
        for number in range(5):
            if number >= self.dead.get(worker, 5):
                raise ConnectionError(worker)
            await asyncio.sleep(0)
            yield {"token_ids": [number]}
        self.served.append(worker)


def request(client: str = "a", tokens: int = 100, **more: Any) -> dict[str, Any]:  # noqa: ANN401 (Dynamo's fields)
    """Return a preprocessed request."""
    return {
        "token_ids": list(range(tokens)),
        "stop_conditions": {"max_tokens": 5},
        "annotations": [f"fairness_id:{client}"],
        **more,
    }


async def answer(component: Component, asked: Mapping[str, Any]) -> int:
    """Return how many tokens came."""
    return sum([len(chunk["token_ids"]) async for chunk in component.generate(asked)])


def run(what: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine."""
    asyncio.run(what)


def made(*names: str) -> tuple[Component, Workers]:
    """Return a component with workers."""
    backend = Workers()
    component = Component(backend, SETTINGS)
    component.instances(names)
    return component, backend


def test_exact_overlap_and_output_are_charged() -> None:
    """A request costs what its worker had not cached, by the index of events, and each token that came."""

    async def check() -> None:
        component, backend = made("1", "2")
        backend.cached = {"2": 4}
        assert await answer(component, request()) == 5
        assert backend.served == ["2"], "the longest match decides while there is credit"
        component.report()
        assert component.monitor.service() == {"a": 100 - 64 + 2 * 5}
        assert component.router.deficit("a", "2") == SETTINGS.quantum - 100 - 2 * 5

    run(check())


def test_a_request_without_a_token_goes_elsewhere() -> None:
    """A worker that breaks before the first token is suspended; nobody hears of it, nothing is charged twice."""

    async def check() -> None:
        component, backend = made("1", "2")
        backend.dead, backend.cached = {"1": 0}, {"1": 4}
        assert await asyncio.gather(*(answer(component, request()) for _ in range(6))) == [5] * 6
        assert set(backend.served) == {"2"}
        assert component.retried >= 1
        assert component.failed == 0
        found = component.described()
        assert found["suspended"] == ["1"]
        assert found["waiting"] == 0
        assert component.router.deficit("a", "1") == SETTINGS.quantum
        assert component.router.deficit("a", "2") == SETTINGS.quantum - 6 * (100 + 2 * 5)
        component.report()
        # What worker 1 never did is nobody's.
        assert component.monitor.service() == {"a": 6 * (100 + 2 * 5)}

    run(check())


def test_a_request_with_a_token_fails_and_is_charged_for_what_came() -> None:
    """It cannot be answered twice: the error is passed on, what was produced is settled."""

    async def check() -> None:
        component, backend = made("1")
        backend.dead = {"1": 3}
        with pytest.raises(ConnectionError):
            await answer(component, request())
        assert component.failed == 1
        assert component.router.deficit("a", "1") == SETTINGS.quantum - 100 - 2 * 3
        assert component.described()["in_flight"] == {"1": 0}

    run(check())


def test_the_next_request_is_at_the_worker_before_the_last_token() -> None:
    """A place is given on a token before its end, or it would be empty for as long as the next one travels."""

    async def check() -> None:
        events: list[str] = []

        class Noting(Workers):
            async def generate(self, request: Mapping[str, Any], worker: str) -> AsyncGenerator[Chunk, None]:
                name = request["annotations"][0][-1]
                async for chunk in super().generate(request, worker):
                    events.append(name)
                    yield chunk
                    for _ in range(5):
                        await asyncio.sleep(0)

        component = Component(Noting(), attrs.evolve(SETTINGS, window=1))
        component.instances(["1"])
        assert await asyncio.gather(*(answer(component, request(name)) for name in "abc")) == [5] * 3
        assert events[:4] == ["a"] * 4
        assert events[4] == "b", events
        assert component.described()["in_flight"] == {"1": 0}
        component.report()
        assert set(component.monitor.service().values()) == {100 + 2 * 5}
        assert component.monitor.limits.max_running == 2

    run(check())


def test_a_suspended_worker_is_tried_again() -> None:
    """After its pause it is used, and one that has recovered serves."""

    async def check() -> None:
        component, backend = made("1")
        backend.dead = {"1": 0}
        asked = asyncio.create_task(answer(component, request()))
        await asyncio.sleep(0.02)
        assert component.described()["suspended"] == ["1"]
        backend.dead = {}
        await asyncio.sleep(0.1)
        component.instances(["1"])
        assert await asked == 5

    run(check())


def test_who_waits_for_a_worker_that_leaves_is_sent_elsewhere() -> None:
    """Its queue moves to the others."""

    async def check() -> None:
        component, backend = made("1")
        holding = [component.generate(request()) for _ in range(2)]
        for one in holding:
            await anext(one)
        waiting = asyncio.create_task(answer(component, request("b")))
        await asyncio.sleep(0.01)
        assert component.waiting == 1
        component.instances(["2"])
        assert await waiting == 5
        assert backend.served == ["2"]
        for one in holding:
            await one.aclose()
        assert component.described()["in_flight"] == {"2": 0}

    run(check())


class Hanging(Workers):
    """Worker 1 hangs, but for the second request that it gets, which fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.cached = {"1": 4}
        self.fail = asyncio.Event()
        self.asked = 0

    async def generate(self, request: Mapping[str, Any], worker: str) -> AsyncGenerator[Chunk, None]:
        """Hang, fail, or answer."""
        if worker == "1":
            self.asked += 1
            await (self.fail if self.asked == 2 else asyncio.Event()).wait()
            raise ConnectionError(worker)
        async for chunk in super().generate(request, worker):
            yield chunk


def test_nobody_waits_for_a_suspended_worker() -> None:
    """Whoever waits at its gate is sent elsewhere at once, though others are still in flight there."""

    async def check() -> None:
        backend = Hanging()
        component = Component(backend, SETTINGS)
        component.instances(["1"])
        asked = [asyncio.create_task(answer(component, request())) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert (backend.asked, component.waiting) == (2, 1)
        component.instances(["1", "2"])
        backend.fail.set()
        assert await asyncio.wait_for(asyncio.gather(*asked[1:]), 5) == [5, 5]
        assert backend.asked == 2
        asked[0].cancel()

    run(check())


def test_a_caller_that_leaves_is_settled() -> None:
    """What came until then is charged, and its place is free."""

    async def check() -> None:
        component, _ = made("1")
        stream = component.generate(request())
        await anext(stream)
        await stream.aclose()
        assert component.described()["in_flight"] == {"1": 0}
        assert component.router.deficit("a", "1") == SETTINGS.quantum - 100 - 2

    run(check())


def test_heavy_clients_do_not_hold_up_light_ones() -> None:
    """With 40 requests of one client waiting, one of another is among the next ones served."""

    async def check() -> None:
        component, _ = made("1")
        order: list[str] = []

        async def one(client: str) -> None:
            await answer(component, request(client))
            order.append(client)

        heavy = [asyncio.create_task(one("heavy")) for _ in range(40)]
        await asyncio.sleep(0)
        await one("light")
        assert order.index("light") < 15
        await asyncio.gather(*heavy)

    run(check())


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        ({"annotations": ["other:x", "fairness_id:alice"]}, "alice"),
        ({"annotations": None, "routing": {"cache_salt": "tenant"}}, "tenant"),
        ({"annotations": [], "routing": None, "agent_context": {"session_id": "s"}}, "default-flow"),
    ],
)
def test_whose_request_it_is(fields: dict[str, Any], client: str) -> None:
    """Annotation, then tenant; sessions only if they are configured."""
    assert client_of(fields, Identity(PolicyConfig().identity)) == client
    if "agent_context" in fields:
        assert client_of(fields, Identity(("session",))) == "s"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--backend-model", "m"], "--backend-model 'm' is the --model-name"),
        (["--backend-model", "b", "--window", "0"], "window = 0"),
        (["--backend-model", "b", "--config", '{"quantm": 1}'], "quantm"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence on stderr, exit code 2."""
    assert main(["--model-path", "x", "--model-name", "m", *arguments]) == 2
    assert problem in capsys.readouterr().err
