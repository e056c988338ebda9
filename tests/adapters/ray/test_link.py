"""A router's conversation with the ledger: it survives silence, death and a successor that knows nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from fairprefix.adapters.ray.key import RouteKey
from fairprefix.adapters.ray.ledger import Ledger
from fairprefix.adapters.ray.link import LedgerHandle, LedgerLink
from fairprefix.adapters.ray.settings import LedgerSettings

KEY = RouteKey.of("a", range(100), max_output=20)
SETTINGS = LedgerSettings.from_mapping({"router": {"quantum": 1000}, "policy": {}}).to_mapping()


class Wire:
    """Leads to a ledger, can be cut, and can be led to another one."""

    def __init__(self) -> None:
        self.ledger: Ledger | None = Ledger(SETTINGS)
        self.slow = False
        self.late_s = 0.0
        """How long answers are under way."""
        self.open = asyncio.Event()
        self.open.set()
        """Whether answers come through."""
        self.found = self.calls = 0

    async def find(self) -> LedgerHandle:
        """Find the present ledger."""
        if self.ledger is None:
            raise LookupError("there is no ledger")
        self.found += 1
        return _Bound(self, self.ledger)


class _Bound:
    def __init__(self, wire: Wire, ledger: Ledger) -> None:
        self._wire, self._ledger = wire, ledger

    async def exchange(self, *args: Any) -> tuple[str, Any]:  # noqa: ANN401 (passed on)
        await self._check()
        self._wire.calls += 1
        answer = await self._ledger.exchange(*args)
        await asyncio.sleep(self._wire.late_s)
        await self._wire.open.wait()
        return answer

    async def hello(self, *args: Any) -> str:  # noqa: ANN401 (passed on)
        await self._check()
        return await self._ledger.hello(*args)

    async def _check(self) -> None:
        if self._wire.slow:
            await asyncio.sleep(60)
        if self._wire.ledger is not self._ledger:
            raise ConnectionError("the actor died")


def run(what: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine, and end what it has left."""

    async def both() -> None:
        await what
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(both())


def linked(wire: Wire, name: str = "r", timeout_s: float = 0.2) -> LedgerLink:
    """Return a link of a router that knows two replicas."""
    link = LedgerLink(name, wire.find, timeout_s=timeout_s, sync_s=0.05)
    link.members(["v", "w"])
    return link


async def figures(wire: Wire) -> dict[str, Any]:
    """Return what the ledger knows, once everything has been told."""
    await asyncio.sleep(0.15)
    assert wire.ledger is not None
    return await wire.ledger.figures()


def test_the_ledger_decides_and_hears_of_the_end() -> None:
    """A pick is the ledger's; the end reaches it in a batch, and the replica's report settles it."""

    async def check() -> None:
        wire = Wire()
        link = linked(wire)
        link.start()
        worker = await link.pick("1", KEY, ())
        assert worker in {"v", "w"}
        assert link.asked == 1
        link.ended("1", worker, accepted=True)
        assert not link.sent
        assert wire.ledger is not None
        await wire.ledger.replica(worker, [("1", 100, 3)], None)
        found = await figures(wire)
        assert (found["picks"], found["settled"], found["out"]) == (1, 1, 0)
        link.stop()

    run(check())


def test_without_a_ledger_the_router_decides_by_itself() -> None:
    """Requests go where this router has least out; nobody waits for long."""

    async def check() -> None:
        wire = Wire()
        wire.ledger = None
        link = linked(wire)
        where = [await link.pick(str(number), KEY, ()) for number in range(6)]
        assert sorted(where, key=str) == ["v"] * 3 + ["w"] * 3
        assert await link.pick("7", KEY, ("v",)) == "w"
        assert await link.pick("8", KEY, ("v", "w")) is None
        assert link.alone == 8

    run(check())


def test_a_ledger_that_does_not_answer_is_not_waited_for() -> None:
    """After the timeout, once, the router goes on by itself; later it asks again."""

    async def check() -> None:
        wire = Wire()
        wire.slow = True
        link = linked(wire)
        clock = asyncio.get_running_loop().time
        began = clock()
        for number in range(10):
            await link.pick(str(number), KEY, ())
        assert clock() - began < 3 * 0.2
        assert (link.asked, link.alone) == (0, 10)
        wire.slow = False
        await asyncio.sleep(0.3)
        await link.pick("again", KEY, ())
        assert link.asked == 1
        found = await figures(wire)
        assert found["out"] == 11, "it was told of everything that is out"

    run(check())


def test_the_next_ledger_is_told_what_is_out_and_what_was_settled() -> None:
    """Counters come from the checkpoint, requests that are out from the router; nobody is asked twice."""

    async def check() -> None:
        wire = Wire()
        link = linked(wire)
        link.start()
        worker = await link.pick("0", KEY, ())
        assert worker is not None
        assert wire.ledger is not None
        await wire.ledger.replica(worker, [("0", 100, 10)], None)
        before = await wire.ledger.deficit("a", worker)
        link.ended("0", worker, accepted=True)
        await asyncio.sleep(0.15)  # a checkpoint is fetched
        out = await link.pick("1", KEY, ())
        wire.ledger = Ledger(SETTINGS)
        await asyncio.sleep(0.5)
        found = await figures(wire)
        assert found["restored"]
        assert found["loads"][out] == found["out"] == 1
        charged = 100 if out == worker else 0
        assert await wire.ledger.deficit("a", worker) == before - charged
        link.stop()

    run(check())


def test_a_ledger_that_has_forgotten_a_router_asks_it_to_introduce_itself() -> None:
    """The router says all again, and gets its answer in the same call."""

    async def check() -> None:
        wire = Wire()
        link = linked(wire)
        await link.pick("1", KEY, ())
        assert wire.ledger is not None
        wire.ledger._known.clear()
        assert await link.pick("2", KEY, ()) is not None
        assert (link.asked, wire.found) == (2, 2)
        assert (await figures(wire))["out"] == 2

    run(check())


def test_a_request_that_is_given_up_is_taken_back() -> None:
    """Whether its caller leaves before the answer or after it, nothing stays out."""

    async def check() -> None:
        wire = Wire()
        link = linked(wire)
        link.start()
        await link.pick("0", KEY, ())
        link.given_up("0")
        wire.late_s = 0.05
        waiting = asyncio.create_task(link.pick("1", KEY, ()))
        await asyncio.sleep(0.02)
        assert wire.ledger is not None
        assert (await wire.ledger.figures())["picks"] == 2
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(2.5)
        found = await figures(wire)
        assert found["out"] == 0
        assert found["settled"] == 0
        link.stop()

    run(check())


def test_questions_that_come_meanwhile_travel_together() -> None:
    """Fifty at once are three calls; each has its own answer, and who has left before is not asked for."""

    async def check() -> None:
        wire = Wire()
        link = linked(wire, timeout_s=60)
        await link.pick("first", KEY, ())
        wire.calls = 0
        wire.open.clear()
        picks = [asyncio.create_task(link.pick(str(number), KEY, ())) for number in range(50)]
        await asyncio.sleep(0.01)
        late = asyncio.create_task(link.pick("late", KEY, ()))
        await asyncio.sleep(0.01)
        gone = asyncio.create_task(link.pick("gone", KEY, ()))
        await asyncio.sleep(0.01)
        gone.cancel()
        wire.open.set()
        where = await asyncio.gather(*picks, late)
        assert wire.calls == 2
        assert set(where) == {"v", "w"}
        assert {id: worker for id, (_, worker) in link.sent.items() if id != "first"} == {
            **{str(number): where[number] for number in range(50)},
            "late": where[50],
        }
        assert wire.ledger is not None
        assert (await wire.ledger.figures())["picks"] == 52
        assert (link.asked, link.alone) == (52, 0)

    run(check())


def test_two_routers_share_one_ledger() -> None:
    """What one has sent counts for the other: four requests through two routers are two for each replica."""

    async def check() -> None:
        wire = Wire()
        links = [linked(wire, name) for name in ("one", "other")]
        big = RouteKey.of("a", range(1200), max_output=1)
        for number in range(4):
            await links[number % 2].pick(str(number), big, ())
        found = await figures(wire)
        assert set(found["routers"]) == {"one", "other"}
        assert found["loads"] == {"v": 2, "w": 2}

    run(check())
