"""D2LPM's dispatcher, rule by rule; service costs 1 for each prompt token and 2 for each output token."""

from __future__ import annotations

from typing import Any

import pytest

from fairprefix.core.d2lpm import D2LPM
from fairprefix.core.errors import ConfigError, HostError
from fairprefix.core.request import Request
from fairprefix.core.router_catalog import make_router, restore_router
from fairprefix.core.router_config import RouterConfig


def router(*workers: str, **settings: Any) -> D2LPM:  # noqa: ANN401 (any field of the configuration)
    """Return a dispatcher for some workers, with blocks of one token."""
    made = make_router(RouterConfig(**{"block_size": 1, "quantum": 10, **settings}))
    assert isinstance(made, D2LPM)
    for worker in workers:
        made.worker_joined(worker)
    return made


def request(id: str, *path: int, prompt: int = 4, output: int = 3) -> Request:
    """Return a request of the client that its id begins with."""
    return Request(id, id[0], prompt, output, path)


def sent(to: D2LPM, id: str, *path: int, **sizes: int) -> str | None:
    """Pick a worker and return its name."""
    choice = to.pick(request(id, *path, **sizes))
    return choice.worker if choice else None


def credits_of(of: D2LPM, client: str) -> dict[str, int]:
    """Return a client's counter at each worker."""
    return {worker.name: of.deficit(client, worker.name) for worker in of.workers}


def test_the_whole_prompt_is_charged_at_dispatch_and_output_at_the_end() -> None:
    """As published: w_e * input at dispatch, whatever is cached, and w_q * output at finish."""
    made = router("u")
    sent(made, "a1", 1, 2, prompt=4)
    assert made.deficit("a", "u") == 6
    made.settle("a1", output=3)
    assert made.deficit("a", "u") == 0
    sent(made, "a2", 1, 2, prompt=4)
    assert made.deficit("a", "u") == 6, "one refill, and the whole prompt again although two tokens are cached"


def test_extend_tokens_can_be_charged_instead() -> None:
    """prompt_charge 'extend' charges what the worker is not taken to have cached, and the truth in the end."""
    made = router("u", prompt_charge="extend", quantum=100)
    sent(made, "a1", 1, 2, prompt=4)
    sent(made, "a2", 1, 2, prompt=4)
    assert made.deficit("a", "u") == 100 - 4 - 2
    made.settle("a2", output=0, extend=3)
    assert made.deficit("a", "u") == 100 - 4 - 3
    made.settle("a1", output=0)
    assert made.deficit("a", "u") == 100 - 4 - 3


def test_the_longest_output_can_be_charged_in_advance() -> None:
    """output_charge 'max' charges the longest output at dispatch and settles it at finish."""
    made = router("u", output_charge="max", quantum=100)
    sent(made, "a1", prompt=4, output=30)
    assert made.deficit("a", "u") == 100 - 4 - 60
    made.settle("a1", output=5)
    assert made.deficit("a", "u") == 100 - 4 - 10
    sent(made, "a2", prompt=4, output=30)
    assert made.deficit("a", "u") == 100 - 14 - 4 - 60, "what is usual makes no difference"


def test_the_usual_output_can_be_charged_in_advance() -> None:
    """output_charge 'average' follows the client's outputs, a new one counts a fifth, up to the limit."""
    made = router("u", output_charge="average", quantum=1000)
    sent(made, "a1", prompt=1, output=30)
    assert made.deficit("a", "u") == 1000 - 1 - 60, "nothing is known yet: the longest output"
    made.settle("a1", output=10)
    sent(made, "a2", prompt=1, output=30)
    assert made.deficit("a", "u") == 1000 - 1 - 20 - 1 - 20
    made.settle("a2", output=20)
    sent(made, "a3", prompt=1, output=30)
    assert made.deficit("a", "u") == 1000 - 21 - 41 - 1 - 24, "(4 * 10 + 20) // 5 = 12"
    sent(made, "a4", prompt=1, output=5)
    assert made.deficit("a", "u") == 1000 - 21 - 41 - 25 - 1 - 10


def test_a_client_stays_where_its_prefix_is_until_its_credit_there_is_used_up() -> None:
    """Locality decides among workers with credit; without credit it does not."""
    made = router("u", "v")
    home = sent(made, "a1", 1, 2)
    other = {"u": "v", "v": "u"}[str(home)]
    assert [sent(made, f"a{i}", 1, 2) for i in (2, 3)] == [home, home]
    assert made.deficit("a", str(home)) == -2
    assert sent(made, "a4", 1, 2) == other


def test_all_workers_are_refilled_together_and_only_when_none_has_credit() -> None:
    """While one worker has credit nobody is refilled; then all get as many quanta as the least indebted needs."""
    made = router("u", "v")
    sent(made, "a1", prompt=35)
    sent(made, "a2", prompt=22)
    assert (made.rounds, credits_of(made, "a")) == (1, {"u": -25, "v": -12})
    assert sent(made, "a3", prompt=1) == "v"
    assert (made.rounds, credits_of(made, "a")) == (3, {"u": -5, "v": 7})


def test_a_longer_match_wins_over_load() -> None:
    """The longest match decides, not the load; of several holders the least loaded one is taken."""
    made = router("u", "v", "w", quantum=1000)
    home = sent(made, "a1", 1, 2)
    assert [sent(made, f"a{i}", 1, 2) for i in range(2, 6)] == [home] * 4
    assert sent(made, "a9", 1) == home, "a part of what is cached is a match as well"
    assert sent(made, "b1", 7) != home


def test_without_a_match_the_least_loaded_worker_is_taken_and_of_several_the_one_chosen_longest_ago() -> None:
    """Ties do not pile up on one worker."""
    made = router("u", "v", "w", quantum=1000)
    assert [sent(made, f"a{i}") for i in range(3)] == ["u", "v", "w"]
    made.settle("a1", output=1)
    assert sent(made, "a3") == "v"
    for id in ("a0", "a2", "a3"):
        made.settle(id, output=1)
    assert sent(made, "a4") == "u"


def test_clients_have_counters_of_their_own() -> None:
    """What one client uses up does not move another."""
    made = router("u", "v")
    sent(made, "a1", 1, prompt=30)
    assert sent(made, "b1", 1) == "u"
    assert made.deficit("b", "u") == 6


def test_weights_multiply_the_quantum() -> None:
    """A client of weight 3 gets three quanta, a worker of weight 2 has twice the credit."""
    made = router("u", weights={"a": 3})
    made.worker_joined("v", weight=2)
    sent(made, "a1", prompt=1)
    sent(made, "b1", prompt=1)
    assert credits_of(made, "a") == {"u": 29, "v": 60}
    assert credits_of(made, "b") == {"u": 10, "v": 19}


def test_a_new_weight_counts_from_the_next_refill() -> None:
    """Neither credit nor debt is rescaled."""
    made = router("u", "v")
    made.reweigh("b", 5)
    sent(made, "a1", prompt=14)
    made.reweigh("a", 4)
    assert credits_of(made, "a") == {"u": -4, "v": 10}
    sent(made, "a2", prompt=11)
    sent(made, "a3", prompt=1)
    assert credits_of(made, "a") == {"u": 35, "v": 39}
    sent(made, "b1", prompt=1)
    assert sum(credits_of(made, "b").values()) == 99
    restored = restore_router(made.snapshot())
    assert isinstance(restored, D2LPM)
    assert credits_of(restored, "a") == credits_of(made, "a")
    with pytest.raises(ConfigError, match="weight = 0"):
        made.reweigh("a", 0)


def test_picks_are_idempotent() -> None:
    """Whoever asks again for a request that is out gets the same answer, and nothing is charged twice."""
    made = router("u", "v")
    first = made.pick(request("a1", 1, 2))
    again = made.pick(request("a1", 1, 2))
    assert first is not None
    assert again is not None
    assert (first.worker, first.again, again.worker, again.again) == (again.worker, False, first.worker, True)
    assert sum(credits_of(made, "a").values()) == 16
    assert made.worker_of("a1") == first.worker


def test_asking_again_while_the_worker_is_to_be_avoided_moves_the_request() -> None:
    """The first dispatch is refunded, and the request goes elsewhere."""
    made = router("u", "v")
    assert sent(made, "a1", 1) == "u"
    moved = made.pick(request("a1", 1), avoid=("u", "nobody"))
    assert moved is not None
    assert (moved.worker, moved.again, credits_of(made, "a")) == ("v", False, {"u": 10, "v": 6})


def test_a_refund_leaves_no_trace_in_the_counters() -> None:
    """Failed dispatches cost nothing, whatever was charged in advance, and the load falls."""
    made = router("u", "v", output_charge="max")
    sent(made, "a1", output=50)
    made.refund("a1")
    assert credits_of(made, "a") == {"u": 10, "v": 10}
    assert made.workers.named("u").load == 0
    assert made.worker_of("a1") is None


@pytest.mark.parametrize("call", ["settle", "refund"])
def test_only_requests_that_are_out_can_be_settled(call: str) -> None:
    """An unknown request, or one that was settled already, is the host's error."""
    made = router("u")
    sent(made, "a1")
    made.settle("a1", output=1)
    with pytest.raises(HostError, match="request 'a1' is not out"):
        getattr(made, call)("a1", **({"output": 1} if call == "settle" else {}))


@pytest.mark.parametrize(("wrong", "named"), [({"output": -1}, "output"), ({"output": 1, "extend": -1}, "extend")])
def test_negative_figures_are_refused(wrong: dict[str, int], named: str) -> None:
    """A negative figure would hand out credit; it is named, and nothing changes."""
    made = router("u")
    sent(made, "a1")
    with pytest.raises(ConfigError, match=f"^{named} = -1 .* integer >= 0"):
        made.settle("a1", **wrong)
    assert made.worker_of("a1") == "u"


# Workers that come and go.


def test_without_usable_workers_nobody_is_chosen() -> None:
    """The answer is None while there is no worker, and nothing is charged."""
    made = router()
    assert sent(made, "a1") is None
    made.worker_joined("u")
    made.worker_suspended("u")
    assert sent(made, "a1") is None
    made.worker_resumed("u")
    assert sent(made, "a1") == "u"


def test_a_suspended_worker_gets_nothing_and_keeps_its_credit() -> None:
    """Its credit does not hold back a refill, is not topped up meanwhile, and is there again afterwards."""
    made = router("u", "v")
    sent(made, "a1", prompt=4)
    made.worker_suspended("u")
    assert [sent(made, f"a{i}", prompt=11) for i in range(2, 5)] == ["v"] * 3
    assert credits_of(made, "a") == {"u": 6, "v": -3}
    made.worker_resumed("u")
    assert sent(made, "a9") == "u"


def test_a_suspended_worker_in_debt_is_refilled_no_further_than_into_credit() -> None:
    """It takes part in refills only as long as it is due."""
    made = router("u", "v")
    sent(made, "a1", prompt=14)
    made.worker_suspended("u")
    for number in range(2, 6):
        sent(made, f"a{number}", prompt=40)
    assert made.rounds > 2
    assert made.deficit("a", "u") == 6


def test_one_unit_of_credit_is_credit() -> None:
    """A worker that took no part in the decision keeps it, and is given nothing more."""
    made = router("u", "v")
    assert sent(made, "a1", prompt=9) == "u"
    made.worker_suspended("u")
    sent(made, "a2", prompt=35)
    sent(made, "a3", prompt=1)
    assert (made.rounds, credits_of(made, "a")) == (4, {"u": 1, "v": 4})


def test_a_request_of_a_suspended_worker_moves_when_asked_again() -> None:
    """A retry does not go where nothing is sent any more."""
    made = router("u", "v")
    assert sent(made, "a1") == "u"
    made.worker_suspended("u")
    assert sent(made, "a1") == "v"
    assert credits_of(made, "a") == {"u": 10, "v": 6}


def test_a_worker_that_leaves_takes_its_requests_along_refunded() -> None:
    """Its requests are returned, its counters and its cache forgotten, and its slot used again."""
    made = router("u", "v", quantum=100)
    assert [sent(made, id, 1) for id in ("a1", "a2")] == ["u", "u"]
    assert sent(made, "b1") == "v"
    assert made.worker_left("u") == ("a1", "a2")
    with pytest.raises(HostError, match="worker 'u' is unknown"):
        made.deficit("a", "u")
    assert sent(made, "a1", 1) == "v"
    made.worker_joined("x")
    assert made.workers.named("x").slot == 0
    assert made.deficit("a", "x") == 100
    made.validate()


def test_a_worker_that_died_begins_anew() -> None:
    """Neither its debt nor its cache survives a restart."""
    made = router("u", "v")
    sent(made, "a1", 1, prompt=99)
    made.worker_left("u")
    made.worker_joined("u")
    assert credits_of(made, "a") == {"u": 10, "v": 10}
    again = made.pick(request("a2", 1))
    assert again is not None
    assert again.cached_tokens == 0


def test_a_worker_that_joins_has_one_quantum_of_those_already_served() -> None:
    """It is entered as after a refill, however many refills there were; nobody has more than a quantum."""
    made = router("u")
    for number in range(9):
        sent(made, f"a{number}", prompt=7)
    made.worker_joined("v")
    assert made.deficit("a", "v") == 10
    assert made.deficit("b", "v") == 0


def test_workers_that_join_and_leave_between_two_requests_are_nobody() -> None:
    """A client hears only of those who are there when it comes."""
    made = router("u")
    sent(made, "a1")
    made.worker_joined("v")
    made.worker_left("v")
    assert sent(made, "a2") == "u"
    made.validate()


def test_any_number_of_joins_is_followed() -> None:
    """A worker may restart thousands of times while a client is away."""
    made = router("u", "v")
    sent(made, "a1", prompt=15)
    sent(made, "a2", prompt=15)
    for _ in range(1500):
        made.worker_left("v")
        made.worker_joined("v")
    assert credits_of(made, "a") == {"u": -5, "v": 10}
    made.validate()


def test_a_worker_that_restarts_has_a_full_quantum_every_time() -> None:
    """However often it does, whatever each client owed it before."""
    made = router("u")
    for number in range(1100):
        sent(made, f"a{number}", prompt=15)
        made.settle(f"a{number}", output=0)
        assert made.deficit("a", "u") == -5
        made.worker_left("u")
        made.worker_joined("u")
    assert made.deficit("a", "u") == 10


def test_wrong_calls_about_workers_are_refused() -> None:
    """A worker joins once, is suspended once, and must be known."""
    made = router("u")
    with pytest.raises(HostError, match="'u' has joined already"):
        made.worker_joined("u")
    with pytest.raises(HostError, match="'u' is not suspended"):
        made.worker_resumed("u")
    made.worker_suspended("u")
    with pytest.raises(HostError, match="'u' is suspended already"):
        made.worker_suspended("u")
    for call in (made.worker_left, made.worker_suspended, made.worker_resumed):
        with pytest.raises(HostError, match="'x' is unknown"):
            call("x")
    for name in ("weight", "blocks"):
        with pytest.raises(ConfigError, match=f"^worker 'x': {name} = 0 .* integer >= 1"):
            made.worker_joined("x", **{name: 0})
    with pytest.raises(ConfigError, match="a non-empty name"):
        made.worker_joined("")
