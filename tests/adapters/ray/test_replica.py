"""The replica's side: turns, what a call is reported to have cost, and a ledger that comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from fairprefix.adapters.ray import FairReplica, RouteKey, fair
from fairprefix.hosting.fleet import WorkerReport

KEY = RouteKey.of("a", range(100), max_output=20)
SETTINGS = {"window": 1, "report_period_s": 0.05}


class Told:
    """A ledger that writes down what it is told."""

    def __init__(self) -> None:
        self.epoch: str | None = "one"
        self.finished: list[tuple[int, int]] = []
        self.reports: list[WorkerReport] = []

    async def __call__(self, worker: str, finished: list[tuple[str, int, int]], report: Any) -> str:  # noqa: ANN401
        """Take it in."""
        assert worker == "w"
        if self.epoch is None:
            raise ConnectionError("the actor died")
        self.finished += [(extend, output) for _, extend, output in finished]
        self.reports += [report] if report is not None else []
        return self.epoch


class Replica(FairReplica):
    """Answers with as many items as it is asked for."""

    def __init__(self, told: Told, *, gated: bool = True) -> None:
        self.fair(SETTINGS, tell=told, worker="w", gated=gated)

    @fair
    async def generate(self, key: RouteKey, items: int) -> AsyncGenerator[int, None]:
        """Yield items."""
        del key
        for item in range(items):
            await asyncio.sleep(0)
            if item == 7:
                raise ValueError("an engine may fail")
            yield item


def test_each_item_is_a_token_of_its_client() -> None:
    """A generator that is made fair is charged by what it yields; the second prompt was sent before."""

    async def check() -> None:
        told = Told()
        replica = Replica(told)
        for _ in range(2):
            assert [item async for item in replica.generate(KEY, 5)] == [0, 1, 2, 3, 4]
        await asyncio.sleep(0.2)
        assert told.finished == [(100, 5), (100 - 96, 5)]
        assert {one.client: one.service for one in told.reports[0].clients} == {"a": 100 + 4 + 2 * 10}

    asyncio.run(check())


def test_a_call_that_fails_is_charged_for_what_came() -> None:
    """The error reaches the caller, the place is free, the tokens before it count."""

    async def check() -> None:
        told = Told()
        replica = Replica(told)
        with pytest.raises(ValueError, match="engine"):
            _ = [item async for item in replica.generate(KEY, 9)]
        assert replica.gate.flying == 0
        await asyncio.sleep(0.1)
        assert told.finished == [(100, 7)]

    asyncio.run(check())


def test_a_call_that_never_got_its_turn_costs_nothing() -> None:
    """Cancelled in the queue: reported with nothing computed and nothing produced."""

    async def check() -> None:
        told = Told()
        replica = Replica(told)
        async with replica.turn(KEY):

            async def wait() -> None:
                async with replica.turn(KEY):
                    pass

            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0)
            assert replica.gate.waiting == 1
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.sleep(0.1)
        assert sorted(told.finished) == [(0, 0), (100, 0)]

    asyncio.run(check())


def test_a_ledger_that_was_away_is_told_everything() -> None:
    """After a failure, or when another ledger answers, the next report has all clients."""

    async def check() -> None:
        told = Told()
        replica = Replica(told)
        async with replica.turn(KEY):
            pass
        await asyncio.sleep(0.12)
        before = len(told.reports)
        await asyncio.sleep(0.12)
        assert not any(report.clients for report in told.reports[before:]), "nothing has changed"
        told.epoch = "two"
        await asyncio.sleep(0.2)
        assert any(report.clients for report in told.reports[before:])
        assert all(report.continued for report in told.reports[1:])

    asyncio.run(check())


def test_an_engine_with_a_policy_of_its_own_is_not_held_up() -> None:
    """Without the gate everybody is let through, and what it cost is reported all the same."""

    async def check() -> None:
        told = Told()
        replica = Replica(told, gated=False)
        async with replica.turn(KEY), replica.turn(KEY):
            assert replica.gate.flying == 2
        await asyncio.sleep(0.1)
        assert len(told.finished) == 2
        assert told.reports == []

    asyncio.run(check())
