"""The ledger's book: each request settled exactly once, whoever speaks first, twice, or never."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fairprefix.adapters.ray.book import DispatchBook
from fairprefix.adapters.ray.key import RouteKey, key_in
from fairprefix.core.bounds import Engine
from fairprefix.core.config import PolicyConfig
from fairprefix.core.d2lpm import D2LPM
from fairprefix.core.router_config import RouterConfig
from fairprefix.hosting import Identity
from fairprefix.hosting.fleet import FleetMonitor

KEY = RouteKey.of("a", range(100), max_output=20)
QUANTUM = 1000
LIMITS = Engine(
    reservation="none", resume="held", kv_tokens=1000, max_running=4, longest_input=100, longest_output=20
)


def book(*workers: str, router: str = "r") -> DispatchBook:
    """Return a book that knows of some workers through one router."""
    config = PolicyConfig(gate="credit", reservation="none")
    made = DispatchBook(RouterConfig(quantum=QUANTUM), FleetMonitor(config, LIMITS), grace_s=2, silence_s=30)
    made.members(router, workers, 0)
    return made


def deficit(of: DispatchBook, worker: str, client: str = "a") -> int:
    """Return the dispatcher's counter."""
    assert isinstance(of.policy, D2LPM)
    return of.policy.deficit(client, worker)


def sent(
    of: DispatchBook, id: str = "1", *, router: str = "r", avoid: tuple[str, ...] = (), now: float = 0
) -> str:
    """Send a request; return where to."""
    choice = of.pick(router, id, KEY, avoid, now)
    assert choice is not None
    return choice.worker


def test_a_repeated_question_gets_the_same_answer() -> None:
    """A router that asks twice is answered alike, and its client is charged once."""
    made = book("v", "w")
    assert {sent(made) for _ in range(5)} == {sent(made)}
    assert (made.picks, made.out) == (1, 1)
    assert sum(made.workers().values()) == 1


def test_a_report_settles_with_the_true_cost() -> None:
    """The counter falls by prompt and output as the replica tells them; what follows is ignored."""
    made = book("w")
    sent(made)
    made.ended("r", "1", "w", accepted=True, now=1)
    made.reported("w", [("1", 100, 7)])
    made.reported("w", [("1", 100, 7)])
    made.ended("r", "1", "w", accepted=True, now=1)
    made.expire(100)
    assert deficit(made, "w") == QUANTUM - 100 - 2 * 7
    assert (made.settled, made.refunded, made.out) == (1, 0, 0)


def test_a_report_may_come_before_the_end() -> None:
    """The replica's word alone settles a request."""
    made = book("w")
    sent(made)
    made.reported("w", [("1", 100, 7)])
    assert (made.settled, made.out) == (1, 0)


def test_without_a_report_an_accepted_request_is_settled_as_is_usual() -> None:
    """After the grace period it counts with the output that the client's requests had."""
    made = book("w")
    sent(made, "0")
    made.reported("w", [("0", 100, 5)])
    sent(made)
    made.ended("r", "1", "w", accepted=True, now=1)
    made.expire(2.9)
    assert made.out == 1
    made.expire(3.1)
    assert (made.settled, made.unreported, made.out) == (2, 1, 0)
    assert deficit(made, "w") == QUANTUM - 2 * (100 + 2 * 5)


def test_without_a_report_a_request_that_nobody_accepted_is_refunded() -> None:
    """It is as if it had never been sent."""
    made = book("w")
    sent(made)
    made.ended("r", "1", "w", accepted=False, now=1)
    made.expire(10)
    assert (made.settled, made.refunded) == (0, 1)
    assert deficit(made, "w") == QUANTUM


def test_a_rejected_request_goes_elsewhere_and_is_charged_there_alone() -> None:
    """Whoever has rejected it is avoided, and gets its charge back."""
    made = book("v", "w")
    first = sent(made)
    made.ended("r", "1", first, accepted=False, now=0)
    second = sent(made, avoid=(first,))
    assert second != first
    assert made.workers() == {first: 0, second: 1}
    # The end at the first one is old news by now, and so is whatever it would report.
    made.ended("r", "1", first, accepted=False, now=1)
    made.reported(first, [("1", 100, 20)])
    made.expire(10)
    assert made.out == 1
    made.reported(second, [("1", 100, 1)])
    assert (deficit(made, first), deficit(made, second)) == (QUANTUM, QUANTUM - 102)


def test_there_may_be_nobody_left_to_ask() -> None:
    """When all have rejected a request there is no answer, and nothing stays charged."""
    made = book("w")
    sent(made)
    assert made.pick("r", "1", KEY, ("w",), 0) is None
    assert made.out == 0
    assert deficit(made, "w") == QUANTUM


def test_a_dead_replica_s_requests_are_refunded_once() -> None:
    """All routers may tell of the same death, and a router that has not heard brings nobody back."""
    made = book("v", "w")
    made.members("other", ["v", "w"], 0)
    where = {sent(made, str(number)) for number in range(4)}
    assert where == {"v", "w"} or len(where) == 1
    out = made.out
    made.died("v")
    made.died("v")
    made.members("other", ["v", "w"], 1)
    made.members("late", ["v", "w"], 1)
    assert list(made.workers()) == ["w"]
    assert made.out + made.refunded == out


def test_a_replica_that_is_leaving_finishes_its_requests() -> None:
    """Nothing new is sent to it; what it has is settled; then it is forgotten."""
    made = book("w")
    sent(made)
    made.members("r", ["new"], 1)
    assert sent(made, "2") == "new"
    assert set(made.workers()) == {"w", "new"}
    made.reported("w", [("1", 100, 3)])
    assert set(made.workers()) == {"new"}
    assert made.settled == 1


def test_a_router_gets_only_replicas_that_it_knows() -> None:
    """A replica that another router has seen first is not offered."""
    made = book("old")
    made.members("fast", ["old", "new"], 0)
    plain = RouteKey(client="a", input_tokens=10, max_output=1)
    for number in range(6):
        choice = made.pick("r", str(number), plain, (), 0)
        assert choice is not None
        assert choice.worker == "old"


def test_a_silent_router_s_requests_are_refunded() -> None:
    """A process that died cannot say that its requests are over."""
    made = book("w")
    sent(made)
    made.members("other", ["w"], 25)
    made.expire(31)
    assert made.routers == ["other"]
    assert (made.out, made.refunded) == (0, 1)
    assert deficit(made, "w") == QUANTUM


def test_what_a_router_has_out_is_what_counts() -> None:
    """After a gap in the conversation requests are where the router says, and no others are out."""
    made = book("v", "w")
    first = sent(made, "1")
    sent(made, "2")
    other = "w" if first == "v" else "v"
    made.adopt("r", [("1", KEY, other), ("3", KEY, other), ("4", KEY, "unknown")], 1)
    assert sorted(made.sent_to()) == [("1", other), ("3", other)]
    assert made.workers() == {first: 0, other: 2}


def test_a_book_is_rebuilt_from_a_checkpoint_and_what_routers_have_out() -> None:
    """Counters are those that were settled; what is out is charged anew; a second checkpoint changes nothing."""
    old = book("w")
    sent(old, "0")
    old.reported("w", [("0", 100, 10)])
    sent(old, "1")
    saved = old.checkpoint()
    new = book("w", "x")
    assert new.restore(saved)
    assert not any(new.workers().values()), "what was out is not, unless a router says so"
    assert deficit(new, "w") == QUANTUM - 120
    new.adopt("r", [("1", KEY, "w")], 0)
    assert not new.restore(saved)
    assert new.workers() == {"w": 1, "x": 0}
    assert deficit(new, "w") == QUANTUM - 120 - 100
    new.policy.validate()


def test_a_key_is_known_by_its_shape() -> None:
    """Routers see classes of their own: what has packed blocks is a key."""
    assert key_in(["text", KEY]) is KEY
    assert key_in(["text", {"client": "a"}]) is None


def test_openai_requests_have_keys_of_their_own() -> None:
    """Where a request is handed on as OpenAI has it, its text says what is shared, and `user` whose it is."""
    said = "You are a helpful assistant. " * 10

    def chat(end: str) -> RouteKey:
        messages = [{"role": "system", "content": said}, SimpleNamespace(role="user", content=end)]
        key = key_in([SimpleNamespace(messages=messages, user="alice", max_tokens=7)])
        assert key is not None
        return key

    one, other = chat("one").request("1"), chat("other one").request("2")
    assert (one.client, one.max_output) == ("alice", 7)
    assert list(one.blocks[:4]) == list(other.blocks[:4])
    assert abs(one.input_tokens - len(said) // 4) < 10
    plain = key_in([SimpleNamespace(prompt="", user=None, max_tokens=None)])
    assert plain is not None
    assert (plain.client, plain.input_tokens, plain.max_output) == ("default-flow", 1, 256)
    tokens = key_in([SimpleNamespace(prompt=list(range(64)))])
    assert tokens is not None
    assert (tokens.input_tokens, len(tokens.request("x").blocks)) == (64, 4)
    several = key_in([SimpleNamespace(prompt=["short", "x" * 400])])
    assert several is not None
    assert several.input_tokens == 100
    assert key_in([SimpleNamespace(prompt=[])]) is None


def test_an_openai_request_names_its_client_as_configured() -> None:
    """Headers beside the request count as the identity setting says; where that names nobody, `user` does."""
    asked = SimpleNamespace(prompt="x", user="alice", metadata={"team": "blue"})
    raw = SimpleNamespace(headers={"X-Tenant-ID": "acme"})

    def client(*sources: str) -> str:
        key = key_in([asked, raw], Identity(sources))
        assert key is not None
        return key.client

    assert client("header:x-tenant-id") == "acme"
    assert client("body:metadata.team", "header:x-tenant-id") == "blue"
    assert client("header:x-other") == "alice"


def test_a_key_says_what_the_prompt_says() -> None:
    """Two prompts with a common beginning have their first blocks in common."""
    one, other = (RouteKey.of("a", [*range(64), end], max_output=1).request("x") for end in (1, 2))
    assert one.input_tokens == 65
    assert list(one.blocks) == list(other.blocks)
    assert len(one.blocks) == 4
    packed = RouteKey.of("a", b"".join(n.to_bytes(4, "little") for n in range(65)), max_output=1)
    assert packed.request("x").input_tokens == 65
    assert list(packed.request("x").blocks) == list(one.blocks)


def test_a_key_without_a_prompt_is_refused() -> None:
    """An empty prompt is the caller's mistake, named as such."""
    with pytest.raises(ValueError, match="input_tokens"):
        RouteKey.of("a", [], max_output=1).request("x")
