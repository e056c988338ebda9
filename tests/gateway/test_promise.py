"""The bound that /admin/state shows holds for what a gateway really does: missed refills, estimates, restarts."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fairprefix.core.catalog import make_policy
from fairprefix.core.request import Request
from fairprefix.core.router_catalog import make_router
from fairprefix.gateway.config import Settings, WorkerConfig, make_settings
from fairprefix.gateway.fleet import Fleet
from fairprefix.gateway.gateway import restored_policy, saved_queue
from fairprefix.gateway.promise import Bound
from fairprefix.gateway.tally import Tally
from fairprefix.gateway.turn import Place, Turn
from fairprefix.gateway.view import describe

STRICT = {"quantum": 20, "slack": 0}
"""Settings under which little is promised for the queues, so that the rest shows."""


def settings(*, workers: int = 2, window: int = 1, **given: Any) -> Settings:  # noqa: ANN401
    """Return settings with some workers."""
    configs = [WorkerConfig(url=f"http://127.0.0.1:{k}", name=f"w{k}", window=window) for k in range(workers)]
    return make_settings({**STRICT, **given}, "test", configs)


def fleet(made: Settings) -> Fleet:
    """Return workers that nobody looks after."""
    tally = Tally(made.policy, names=made.gateway.names)
    return Fleet(made, make_router(made.router), lambda _worker, policy, view: make_policy(policy, view), tally)


class Crowd:
    """Clients that keep requests under way in front of a fleet.

    Args:
        fleet: the workers.
        where: per client, the workers that its requests go to in turn; by default what the router says.
    """

    def __init__(self, fleet: Fleet, **where: list[str]) -> None:
        self.fleet = fleet
        self.turns: list[Turn] = []
        self._where = where
        self._number = 0
        pick = fleet.router.pick

        def sent(request: Request, *, now: int = 0, avoid: Any = ()) -> Any:  # noqa: ANN401
            places = self._where.get(request.client)
            if places:
                here = places[self._number % len(places)]
                avoid = [name for name in fleet.workers if name != here]
            return pick(request, now=now, avoid=avoid)

        fleet.router.pick = sent  # type: ignore[method-assign]

    def ask(self, client: str, *, prompt: int, reserve: int) -> Turn:
        """Send a request, with what it is taken to be."""
        self._number += 1
        turn = self.fleet.enter(Request(str(self._number), client, prompt, 10_000), reserve)
        self.turns.append(turn)
        return turn

    def inside(self) -> list[Turn]:
        """Return those at workers, in the order in which they came."""
        return [turn for turn in self.turns if turn.place is Place.INSIDE]

    def answer(self, turn: Turn, *, prompt: int, output: int) -> None:
        """Let a request out, with what it really was."""
        self.fleet.settle(turn, prompt=prompt, cached=0, output=output)


def shown(fleet: Fleet) -> tuple[Fraction, Bound]:
    """Return the gap and the bound."""
    found = fleet.promise.bound()
    assert found is not None
    return fleet.tally.gap, found


def test_missed_refills_are_part_of_the_bound() -> None:
    """Who waits at one worker, with credit at another one, misses refills there: the gap exceeds the rest."""
    crowd = Crowd(fleet(settings()), f=["w0"], g=["w0", "w1"])
    one = crowd.fleet.workers["w1"]
    for _ in range(6):
        crowd.ask("f", prompt=5, reserve=1)
    for _ in range(30):
        crowd.ask("g", prompt=5, reserve=1)
    for _ in range(300):
        turn = crowd.inside()[-1]
        crowd.answer(turn, prompt=5, output=1)
        reply = crowd.ask(turn.request.client, prompt=5, reserve=1)
        assert reply.worker in crowd.fleet.workers
    gap, bound = shown(crowd.fleet)
    assert one.queue.policy.rounds
    assert bound.queues < gap <= bound.queues + bound.missed_refills
    assert crowd.fleet.promise.missed_refills > 10
    state = describe(crowd.fleet, 0)
    assert state["bound"] == sum(state["bound_parts"].values())
    assert state["missed_refills"] == crowd.fleet.promise.missed_refills


def test_who_is_queued_everywhere_misses_nothing() -> None:
    """One worker, two clients that always wait: no refill is missed, and the bound is that of the queue."""
    crowd = Crowd(fleet(settings(workers=1)))
    for client in "fg" * 4:
        crowd.ask(client, prompt=5, reserve=1)
    for _ in range(100):
        turn = crowd.inside()[0]
        crowd.answer(turn, prompt=5, output=1)
        crowd.ask(turn.request.client, prompt=5, reserve=1)
    gap, bound = shown(crowd.fleet)
    assert bound.missed_refills == bound.estimates == 0
    assert gap <= bound.queues


def test_estimates_that_were_too_small_are_part_of_the_bound() -> None:
    """Eight requests let in for next to nothing that cost a thousand each: the gap exceeds the rest."""
    crowd = Crowd(fleet(settings(workers=1, window=8, quantum=40)))
    for _ in range(16):
        crowd.ask("f", prompt=1, reserve=1)
    for _ in range(16):
        crowd.ask("g", prompt=500, reserve=250)
    for turn in crowd.inside():
        if turn.request.client == "f":
            crowd.answer(turn, prompt=500, output=250)
    gap, bound = shown(crowd.fleet)
    assert bound.queues < gap <= bound.queues + bound.estimates


def test_what_a_stream_produces_beyond_its_estimate_counts_before_it_ends() -> None:
    """The bound is that of the history so far, while requests are still under way."""
    crowd = Crowd(fleet(settings(workers=1, window=8)))
    for _ in range(16):
        crowd.ask("f", prompt=1, reserve=1)
        crowd.ask("g", prompt=1, reserve=1)
    ahead = [turn for turn in crowd.inside() if turn.request.client == "f"]
    assert len(ahead) > 1
    for turn in ahead:
        crowd.fleet.delivered(turn, 400)
    gap, bound = shown(crowd.fleet)
    assert bound.queues < gap <= bound.total
    assert crowd.fleet.promise.late == 2 * 399


def test_what_is_given_back_is_part_of_the_bound() -> None:
    """Prompts that were taken to be long, and were not: what their client got for it is counted."""
    crowd = Crowd(fleet(settings(workers=1, window=4)))
    for _ in range(8):
        crowd.ask("f", prompt=300, reserve=1)
        crowd.ask("g", prompt=300, reserve=1)
    for turn in crowd.inside():
        crowd.answer(turn, prompt=10, output=1)
    assert crowd.fleet.promise.given_back == 290
    crowd.fleet.give_up(crowd.inside()[0])
    assert crowd.fleet.promise.given_back == 300
    gap, bound = shown(crowd.fleet)
    assert bound.estimates >= 2 * 300
    assert gap <= bound.total


def test_output_that_nothing_can_make_up_for_is_part_of_the_bound() -> None:
    """Of a stream in more pieces than tokens and a prompt that was cached, the rest stays charged, and counted."""
    crowd = Crowd(fleet(settings(workers=1, window=1)))
    for _ in range(3):
        turn = crowd.ask("f", prompt=10, reserve=50)
        crowd.fleet.delivered(turn, 20)
        crowd.answer(turn, prompt=4, output=1)
    _, bound = shown(crowd.fleet)
    kept = 3 * (2 * 19 - 4)
    late, given_back = 0, 10
    assert (crowd.fleet.promise.late, crowd.fleet.promise.given_back) == (late, given_back)
    assert bound.estimates == 2 * kept + 2 * given_back


def test_where_arrival_order_has_decided_nothing_is_promised() -> None:
    """After a policy has failed, or has offered nobody, there is no bound."""
    for change in ("errors", "stalls"):
        crowd = Crowd(fleet(settings(workers=1)))
        crowd.ask("f", prompt=5, reserve=1)
        assert crowd.fleet.promise.bound() is not None
        queue = crowd.fleet.workers["w0"].queue
        if change == "stalls":
            queue.stalls = 1
        else:
            queue.policy._give_up(RuntimeError("a test"))
        assert crowd.fleet.promise.bound() is None


def test_what_debts_may_have_come_from_survives_a_restart() -> None:
    """A client that owes for long prompts still owes after a restart: the bound has not forgotten them."""
    made = settings(workers=1, window=4)
    before = Crowd(fleet(made))
    for _ in range(4):
        before.ask("f", prompt=10, reserve=1)
    for turn in before.inside():
        before.answer(turn, prompt=800, output=90)
    saved = saved_queue(before.fleet.workers["w0"].queue.policy.snapshot())
    owed = before.fleet.workers["w0"].queue.policy.deficit("f")
    assert owed is not None
    assert owed < -800
    tally = Tally(made.policy, names=9)
    after = Crowd(
        Fleet(made, make_router(made.router), lambda _w, policy, view: restored_policy(saved, policy, view), tally)
    )
    after.fleet.promise.load(before.fleet.promise.dump())
    for client in 400 * "g" + 400 * "f":  # who is alone pays no debts
        after.ask(client, prompt=10, reserve=1)
    for _ in range(400):
        after.answer(after.inside()[0], prompt=10, output=1)
    gap, bound = shown(after.fleet)
    assert gap > 800
    assert gap <= bound.total
    assert after.fleet.promise.dump() == before.fleet.promise.dump()


_ASKS = st.tuples(st.sampled_from("fgh"), st.integers(1, 60), st.integers(1, 30))
_ENDS = st.tuples(st.integers(0, 99), st.integers(1, 60), st.integers(0, 40), st.integers(0, 30))


@given(
    st.lists(st.one_of(_ASKS, _ENDS), max_size=120),
    st.sampled_from([{}, {"slack": 100}, {"gate": "deficit"}, {"weights": {"f": 3}}]),
    st.integers(1, 3),
    st.sampled_from([{}, {"f": ["w0"], "g": ["w1", "w0"]}]),
)
def test_no_history_leaves_the_bound(
    history: list[Any], given: dict[str, Any], window: int, where: dict[str, list[str]]
) -> None:
    """Whatever is asked, estimated, delivered and given up: at every moment the gap is within the bound."""
    crowd = Crowd(fleet(settings(window=window, **given)), **where)
    for event in history:
        if isinstance(event[0], str):
            crowd.ask(event[0], prompt=event[1], reserve=event[2])
        elif inside := crowd.inside():
            turn = inside[event[0] % len(inside)]
            if event[3]:
                crowd.fleet.delivered(turn, event[3])
            if event[2] > 35:
                crowd.fleet.give_up(turn)
            elif event[2] > 5:
                crowd.answer(turn, prompt=event[1], output=event[2])
        bound = crowd.fleet.promise.bound()
        assert bound is None or crowd.fleet.tally.gap <= bound.total
