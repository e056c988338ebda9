"""The gate in front of an engine: order, window, cancellation, what it charges, what it reports."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from fairprefix.core.bounds import Engine
from fairprefix.core.config import PolicyConfig
from fairprefix.core.request import Request
from fairprefix.hosting.fleet import ClientReport, FleetMonitor, WorkerReport
from fairprefix.hosting.gate import Gate, RecentPrompts, WorkerLostError

CONFIG = PolicyConfig(quantum=100, gate="credit", slack=1000, reservation="none", weights={"four": 4})
LIMITS = Engine(
    reservation="none", resume="held", kv_tokens=1000, max_running=4, longest_input=50, longest_output=20
)


def run(what: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine."""
    asyncio.run(what)


def request(id: str, client: str = "a", blocks: tuple[int, ...] = ()) -> Request:
    """Return a request of 50 tokens that may produce 20."""
    return Request(id, client, 50, 20, blocks)


def test_no_more_than_the_window_is_in_flight() -> None:
    """The window is never exceeded, and filled as soon as somebody leaves."""

    async def check() -> None:
        gate, most = Gate(CONFIG, 3), 0

        async def one(number: int) -> None:
            nonlocal most
            async with gate.admitted(request(str(number))):
                most = max(most, gate.flying)
                await asyncio.sleep(0.001)

        await asyncio.gather(*(one(number) for number in range(20)))
        assert most == 3
        assert gate.flying == gate.waiting == 0
        gate.policy.validate()

    run(check())


def test_weights_hold() -> None:
    """While both clients wait, one of weight 4 gets four times the service of one of weight 1, within a tenth."""

    async def check() -> None:
        gate = Gate(CONFIG, 4)

        async def one(client: str, number: int) -> None:
            async with gate.admitted(request(f"{client}{number}", client)) as ticket:
                await asyncio.sleep(0)
                ticket.produced(10)

        tasks = [asyncio.create_task(one(client, n)) for client in ("one", "four") for n in range(400)]
        while gate.policy.figures.service().get("four", 0) < 380 * 70:  # noqa: ASYNC110 (it is no event)
            await asyncio.sleep(0)
        service = gate.policy.figures.service()
        assert 3.6 < service["four"] / service["one"] < 4.4
        await asyncio.gather(*tasks)

    run(check())


def test_who_is_cancelled_while_waiting_costs_nothing() -> None:
    """A request that gives up in the queue is forgotten, and the next one is admitted."""

    async def check() -> None:
        gate = Gate(CONFIG, 1)
        async with gate.admitted(request("first")):
            waiting = asyncio.create_task(_hold(gate, request("second", "b")))
            await asyncio.sleep(0)
            assert gate.waiting == 1
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert gate.waiting == 0
        assert gate.policy.live == 0
        assert gate.policy.figures.service().get("b", 0) == 0
        async with gate.admitted(request("third")):
            assert gate.flying == 1

    run(check())


async def _hold(gate: Gate, what: Request) -> None:
    async with gate.admitted(what):
        pass


def test_who_waits_can_be_sent_away() -> None:
    """Evicted requests hear why; those in flight go on; a closed gate lets nobody in."""

    async def check() -> None:
        gate = Gate(CONFIG, 1)
        async with gate.admitted(request("first")):
            waiting = asyncio.create_task(_hold(gate, request("second")))
            await asyncio.sleep(0)
            gate.evict(WorkerLostError("w"))
            with pytest.raises(WorkerLostError, match="worker w is lost"):
                await waiting
            assert (gate.flying, gate.waiting) == (1, 0)
            gate.close(WorkerLostError("w"))
        with pytest.raises(WorkerLostError):
            await _hold(gate, request("third"))
        assert gate.policy.live == 0

    run(check())


def test_who_was_sent_away_is_not_charged_when_a_place_is_free_at_that_moment() -> None:
    """Evicted or cancelled, and offered before it could leave: it never had its turn, and costs nothing."""

    async def check() -> None:
        gate = Gate(CONFIG, 2)
        async with gate.admitted(request("first")):
            async with gate.admitted(request("second")):
                waiting = [asyncio.create_task(_hold(gate, request(f"b{n}", "b"))) for n in range(2)]
                await asyncio.sleep(0)
                gate.evict(WorkerLostError("w"))
                waiting[1].cancel()
            assert gate.flying == 1
            await asyncio.gather(*waiting, return_exceptions=True)
            assert (gate.flying, gate.waiting) == (1, 0)
        assert gate.policy.live == 0
        assert gate.policy.figures.service().get("b", 0) == 0

    run(check())


def test_the_true_prompt_and_output_are_charged() -> None:
    """`found` corrects what was assumed to be cached, `produced` charges output as it comes."""

    async def check() -> None:
        gate = Gate(CONFIG, 1)
        async with gate.admitted(request("one")) as ticket:
            ticket.found(10)
            ticket.produced(3)
            ticket.produced(0)
            assert (ticket.extend, ticket.output) == (10, 3)
        (told,) = gate.report().clients
        assert told.service == 10 + 2 * 3

    run(check())


def test_a_place_may_be_given_up_early() -> None:
    """What is over in the engine makes room before its caller has read to the end, and is counted once."""

    async def check() -> None:
        gate = Gate(CONFIG, 1)
        async with gate.admitted(request("first")) as ticket:
            ticket.produced(2)
            ticket.over()
            ticket.over()
            async with gate.admitted(request("second", "b")):
                assert gate.flying == 1
        assert gate.policy.live == gate.flying == gate.waiting == 0
        assert gate.policy.figures.service() == {"a": 50 + 2 * 2, "b": 50}

    asyncio.run(check())


def test_the_next_one_may_be_sent_before_the_last_token() -> None:
    """Who has one token left makes room and is charged for that one too; a window of such, and no more."""

    async def check() -> None:
        gate = Gate(CONFIG, 1)
        async with gate.admitted(request("first")) as ticket:
            ticket.produced(2)
            ticket.nearly_over()
            ticket.nearly_over()
            async with gate.admitted(request("second", "b")) as other:
                other.nearly_over()
                assert gate.flying == 2
                third = asyncio.create_task(_hold(gate, request("third", "b")))
                await asyncio.sleep(0)
                assert gate.waiting == 1, "one beyond the window at a time"
                ticket.produced(1)
                ticket.over()
                assert gate.waiting == 1
                other.nearly_over()
                await asyncio.wait_for(third, 1)
        assert gate.policy.figures.service()["a"] == 50 + 2 * 3

    asyncio.run(check())


def test_an_admission_can_be_taken_back() -> None:
    """What the engine never got is not charged, and its place is free; whatever is said of it then is ignored."""

    async def check() -> None:
        gate = Gate(CONFIG, 1)
        async with gate.admitted(request("first")) as ticket:
            ticket.take_back()
            ticket.take_back()
            ticket.produced(3)
            ticket.found(3)
            async with gate.admitted(request("second", "b")):
                assert gate.flying == 1
        assert gate.policy.live == gate.flying == gate.waiting == 0
        assert {one.client: one.service for one in gate.report().clients} == {"a": 0, "b": 50}
        assert not gate.policy.failed

    run(check())


def test_recent_prompts_are_taken_to_be_cached() -> None:
    """What was sent last is cached, up to the blocks that there are; a prompt's last token never is."""
    recent = RecentPrompts(4, 16)
    recent.sent(Request("1", "a", 50, 1, (1, 2, 3)))
    assert recent(Request("2", "a", 50, 1, (1, 2, 9))) == 32
    assert recent(Request("3", "a", 32, 1, (1, 2))) == 31
    recent.sent(Request("4", "a", 64, 1, (5, 6, 7, 8)))
    assert recent(Request("5", "a", 50, 1, (1, 2, 3))) < 32


def test_a_report_has_what_changed() -> None:
    """Clients of whom nothing has changed are left out; all are told of when everything is asked for."""

    async def check() -> None:
        gate = Gate(CONFIG, 2)
        async with gate.admitted(request("1", "a")), gate.admitted(request("2", "b")):
            pass
        assert {one.client for one in gate.report().clients} == {"a", "b"}
        async with gate.admitted(request("3", "b")):
            pass
        second = gate.report()
        assert {one.client for one in second.clients} == {"b"}
        assert second.continued
        assert {one.client for one in gate.report(everything=True).clients} == {"a", "b"}

    run(check())


def test_a_client_waited_if_it_waited_throughout() -> None:
    """A queue that was empty for a moment since the last report does not count as waiting."""

    async def check() -> None:
        gate = Gate(CONFIG, 1)
        async with gate.admitted(request("1")):
            waiting = [asyncio.create_task(_hold(gate, request(f"w{n}", "b"))) for n in range(2)]
            await asyncio.sleep(0)
            gate.report()
            assert next(one for one in gate.report(everything=True).clients if one.client == "b").waited
        await asyncio.gather(*waiting)
        assert not any(one.waited for one in gate.report(everything=True).clients)

    run(check())


# The monitor.


def told(rounds: int, continued: bool = False, **clients: tuple[int, int, bool]) -> WorkerReport:  # noqa: FBT001, FBT002
    """Return a report: refills received, service, and whether it waited, by client."""
    return WorkerReport(rounds, tuple(ClientReport(c, *what) for c, what in clients.items()), continued=continued)


def test_misses_of_busy_clients_are_counted_and_enter_the_bound() -> None:
    """A refill that a busy client did not get at one worker counts once, one of an idle client never."""
    monitor = FleetMonitor(CONFIG, LIMITS)
    for worker in ("v", "w"):
        monitor.joined(worker)
    monitor.dispatched("a")
    monitor.reported("v", told(5, a=(5, 500, True), b=(5, 500, True)))
    monitor.reported("w", told(3, b=(3, 300, True)))
    assert monitor.misses == 3
    before = monitor.guarantee()
    monitor.done("a")
    monitor.reported("w", told(4, b=(4, 400, True)))
    assert monitor.misses == 4, "it was busy for a part of the time"
    monitor.reported("w", told(9, b=(9, 900, True)))
    assert monitor.misses == 4
    after = monitor.guarantee()
    assert before is not None
    assert after is not None
    assert after.bound.exact - before.bound.exact == CONFIG.quantum


def test_what_is_known_late_is_added_to_the_bound() -> None:
    """The bound on the gap that is seen exceeds the theorem's by what one round of reports brought, four times."""
    monitor = FleetMonitor(CONFIG, LIMITS)
    monitor.reported("v", told(1, a=(1, 70, True)))
    monitor.reported("w", told(1, a=(1, 50, True)))
    assert monitor.unsettled == 120
    promised = monitor.guarantee()
    assert promised is not None
    assert monitor.bound == promised.bound.value + 4 * 120
    assert monitor.described()["bound_without_staleness"] == promised.bound.value


def test_the_gap_is_seen_while_both_wait() -> None:
    """Service counts from the moment that both clients wait, and no longer than that."""
    monitor = FleetMonitor(CONFIG, LIMITS)
    monitor.reported("v", told(0, a=(0, 0, True), b=(0, 0, True)))
    monitor.reported("v", told(0, a=(0, 300, True), b=(0, 100, True)))
    assert monitor.largest_gap == 200
    monitor.reported("v", told(0, b=(0, 100, False)))
    monitor.reported("v", told(0, a=(0, 5000, True)))
    assert monitor.largest_gap == 200


def test_a_monitor_that_takes_over_starts_from_what_it_is_told() -> None:
    """What a worker did before is neither a miss, nor late, nor a gap."""
    monitor = FleetMonitor(CONFIG, LIMITS)
    monitor.dispatched("a")
    monitor.reported("v", told(50, continued=True, a=(3, 9000, True), b=(50, 100, True)))
    assert (monitor.misses, monitor.unsettled, monitor.largest_gap) == (0, 0, 0)
    monitor.reported("v", told(52, continued=True, a=(4, 9100, True)))
    assert (monitor.misses, monitor.unsettled) == (1, 100)


def test_a_failed_policy_is_named() -> None:
    """A worker at which arrival order has taken over is told of, since nothing is promised for it."""
    monitor = FleetMonitor(CONFIG, LIMITS)
    monitor.reported("v", WorkerReport(0, (), holds=False))
    assert monitor.described()["failed"] == ["v"]
    assert monitor.bound is None
    assert {sample.name: sample.value for sample in monitor.samples()}["fairprefix_fleet_failed_workers"] == 1
    monitor.left("v")
    assert monitor.described()["failed"] == []


def test_nothing_is_promised_about_a_worker_that_says_nothing() -> None:
    """There is no bound until every worker has reported; clients are forgotten all the same."""
    monitor = FleetMonitor(PolicyConfig(max_clients=3), LIMITS)
    monitor.reported("v", told(0, a=(0, 0, True)))
    assert monitor.bound is not None
    monitor.joined("w")
    assert monitor.silent == ["w"]
    assert "fairprefix_bound_tokens" not in {sample.name for sample in monitor.samples()}
    for number in range(10):
        monitor.dispatched(f"c{number}")
        monitor.done(f"c{number}")
    assert len(monitor._busy) == 3
    monitor.reported("w", told(0))
    assert monitor.bound is not None


def test_without_dlpm_there_is_no_bound() -> None:
    """Arrival order promises nothing."""
    monitor = FleetMonitor(PolicyConfig(policy="fcfs"), LIMITS)
    monitor.joined("v")
    assert monitor.bound is None
    assert "fairprefix_bound_tokens" not in {sample.name for sample in monitor.samples()}
