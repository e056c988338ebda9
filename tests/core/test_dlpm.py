"""DLPM, rule by rule; tests/property compares whole histories with Algorithm 1."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fairprefix.core.deficit import DeficitAccount, rounds_until_above
from fairprefix.core.errors import ConfigError, HostError
from fairprefix.core.lane import Lane
from fairprefix.core.policy import Refusal
from tests.core import rules
from tests.support import admit, arrive, dlpm, hot, offered, planned, request, run


def test_a_client_needs_more_than_no_credit() -> None:
    """A client is admitted while q > 0, not while q >= 0."""
    rules.check_gate(dlpm)


def test_a_refill_waits_until_all_queued_clients_are_due() -> None:
    """Nobody is refilled while one queued client still has credit."""
    rules.check_refill_needs_all(dlpm)


def test_a_refill_reaches_idle_clients_in_debt() -> None:
    """A refill goes to every known client that is due, also to one with nothing queued."""
    rules.check_refill_reaches_idle_clients(dlpm)


def test_credit_is_kept_and_never_topped_up() -> None:
    """Credit of an idle client is kept, but a refill adds nothing to it."""
    rules.check_credit_is_not_topped_up(dlpm)


def test_what_is_cached_costs_nothing() -> None:
    """An admission costs the tokens that are computed, not those that were cached."""
    rules.check_extend_is_charged(dlpm)


def test_output_is_charged_as_it_is_produced() -> None:
    """Each output token is charged in the step that produces it."""
    rules.check_output_is_charged_as_produced(dlpm)


def test_debt_survives_idleness() -> None:
    """A client that leaves in debt comes back in debt."""
    rules.check_debt_survives_idleness(dlpm)


def test_recomputation_is_free_by_default() -> None:
    """With recompute = free, a request that was preempted is not charged again."""
    rules.check_recomputation_is_free(dlpm)


def test_recomputation_is_charged_on_demand() -> None:
    """With recompute = charged, what is computed again is charged again."""
    policy = dlpm(quantum=100, recompute="charged")
    run(policy, "a1", extend=8, reserve=5)
    policy.preempt("a1", output=0, keep_hold=True)
    assert policy.take("a1", extend=10, reserve=5).charged == 10
    assert policy.deficit("a") == 100 - 18


def test_an_unpaid_admission_is_charged_even_after_a_preemption_of_another() -> None:
    """Recomputation is free for the request that was preempted only."""
    policy = dlpm(quantum=100)
    run(policy, "a1", extend=8)
    policy.preempt("a1", output=0, keep_hold=False)
    assert run(policy, "a2", extend=7).charged == 7
    policy.take("a1", extend=8, reserve=1)
    policy.preempt("a1", output=0, keep_hold=False)
    assert policy.take("a1", extend=8, reserve=1).charged == 0


def test_the_hold_survives_a_preemption_that_the_host_resumes_itself() -> None:
    """The output of a request that its host resumes by itself stays outstanding while it is preempted."""
    rules.check_hold_survives_preemption(dlpm)


def test_the_hold_is_given_back_when_a_preempted_request_is_queued_again() -> None:
    """A request that goes back to the queue reserves nothing, and asks for credit like any other."""
    policy = dlpm(quantum=10)
    run(policy, "a1", extend=4, reserve=5)
    policy.produced({"a": 3})
    policy.preempt("a1", output=3, keep_hold=False)
    assert (policy.outstanding("a"), policy.deficit("a")) == (0, 0)
    arrive(policy, "b1")
    assert planned(policy, 2) == ["a1", "b1"]
    admit(policy, reserve=2)
    assert (policy.outstanding("a"), policy.rounds) == (4, 2)


def test_output_that_comes_after_the_preemption_is_counted_in() -> None:
    """Tokens that were under way when their request was preempted leave nothing outstanding in the end."""
    policy = dlpm(quantum=100)
    run(policy, "a1", reserve=5)
    policy.preempt("a1", output=0, keep_hold=False)
    policy.produced({"a": 2})
    policy.finish("a1", output=2)
    assert policy.outstanding("a") == 0


def test_an_abort_gives_the_hold_back() -> None:
    """A request that ends early leaves nothing outstanding."""
    rules.check_abort_gives_the_hold_back(dlpm)


def test_an_abort_pays_for_what_was_admitted() -> None:
    """Who aborts before the first output token has paid for the prompt, and for nothing else."""
    policy = dlpm(quantum=10)
    run(policy, "a1", extend=8, reserve=4)
    policy.finish("a1", output=0)
    assert policy.deficit("a") == 2


@pytest.mark.parametrize("stage", ["queued", "deferred", "blocked", "running", "held", "requeued"])
def test_a_request_may_finish_in_any_stage(stage: str) -> None:
    """An abort settles a request wherever it stands, and frees the others of what it held back."""
    policy = dlpm(quantum=10)
    arrive(policy, "a1", "b1")
    if stage == "deferred":
        policy.defer("a1", Refusal.NO_ROOM)
    elif stage == "blocked":
        policy.defer("a1", Refusal.BLOCKED)
    elif stage in ("running", "held", "requeued"):
        policy.take("a1", extend=1, reserve=4)
    if stage in ("held", "requeued"):
        policy.preempt("a1", output=0, keep_hold=stage == "held")
    policy.finish("a1", output=0)
    policy.validate()
    assert policy.outstanding("a") == 0
    assert offered(policy) == "b1"
    with pytest.raises(HostError, match="'a1' is unknown"):
        policy.finish("a1", output=0)


def test_looking_commits_nothing() -> None:
    """Neither a look at the next request nor a plan commits a refill."""
    rules.check_looking_commits_nothing(dlpm)


def test_a_blocked_client_does_not_freeze_the_others() -> None:
    """A blocked request leaves the queue: the credit of its client does not hold back the others."""
    rules.check_blocked_frees_others(dlpm)


def test_a_request_without_room_holds_back_the_refill() -> None:
    """A request without room keeps its place and holds back the refill; the next pass offers it again."""
    rules.check_no_room_keeps_its_place(dlpm)


def test_a_refused_request_may_be_taken_all_the_same() -> None:
    """What was refused in this pass may be blocked, refused again, or taken in the end."""
    policy = dlpm(quantum=10)
    arrive(policy, "a1", "a2")
    for id in ("a1", "a1", "a2"):
        policy.defer(id, Refusal.NO_ROOM)
    policy.defer("a2", Refusal.BLOCKED)
    policy.take("a1", extend=1, reserve=1)
    policy.begin_pass()
    assert offered(policy) is None
    policy.unblock("a2")
    assert offered(policy) == "a2"


def test_weights_share_out_the_refill() -> None:
    """A client of weight 3 gets three quanta in a refill."""
    rules.check_weights_count(dlpm)


def test_a_new_weight_keeps_the_debt() -> None:
    """A new weight applies from the next refill; debt is neither rescaled nor forgiven."""
    rules.check_reweigh_keeps_debt(dlpm)


def test_a_weight_can_be_set_before_the_client_is_known() -> None:
    """A client that arrives later has the weight that was set for it meanwhile."""
    policy = dlpm(quantum=10)
    policy.reweigh("a", 3)
    run(policy, "a1", extend=0)
    assert policy.deficit("a") == 30
    with pytest.raises(ConfigError, match="weight = 0 is not valid"):
        policy.reweigh("a", 0)


def test_a_waiting_client_moves_with_its_weight() -> None:
    """A heavier client needs fewer rounds: its request may overtake one that needs as many quanta."""
    policy = dlpm(quantum=10)
    run(policy, "b1", extend=45)
    run(policy, "a1", extend=45)
    arrive(policy, "b2", "a2")
    assert offered(policy) == "b2"
    policy.reweigh("a", 4)
    assert offered(policy) == "a2"
    policy.validate()


def test_counters_are_integers() -> None:
    """Deficits are integers of any size: no charge is lost to rounding."""
    rules.check_counters_are_integers(dlpm)


def test_overdraft_reaches_those_without_credit() -> None:
    """While no client with credit finds room, others are admitted down to q > -overdraft, without a refill."""
    rules.check_overdraft(dlpm)


def test_overdraft_after_an_assumed_refill_commits_it() -> None:
    """A refill that only brings an account within reach of overdraft counts once its request is admitted."""
    policy = dlpm(quantum=10, overdraft=6)
    run(policy, "a1", extend=30)
    run(policy, "b1", extend=10)
    arrive(policy, "a2", "b2")
    assert (policy.deficit("a"), policy.deficit("b"), policy.rounds) == (-10, 0, 2)
    policy.defer("b2", Refusal.NO_ROOM)
    assert offered(policy) == "a2", "after one more round, a is above -6"
    assert policy.rounds == 2
    assert admit(policy, extend=0) == "a2"
    assert (policy.deficit("a"), policy.deficit("b"), policy.rounds) == (0, 10, 3)


def test_overdraft_prefers_the_longest_prefix() -> None:
    """Among the clients within reach of overdraft, the longest cached prefix is offered, whatever the debt."""
    policy = dlpm(hot(1, 2), quantum=10, overdraft=100)
    arrive(policy, "a1", "b1", "c1", prompt=50)
    for id, extend in (("a1", 50), ("b1", 11)):
        policy.take(id, extend=extend, reserve=1)
    arrive(policy, "a2", prompt=4, path=(1, 2))
    arrive(policy, "b2", prompt=4, path=(1,))
    policy.defer("c1", Refusal.NO_ROOM)
    assert [admit(policy, extend=0), admit(policy, extend=0)] == ["a2", "b2"]
    assert policy.rounds == 1


def test_the_credit_gate_counts_what_is_outstanding() -> None:
    """Under the credit gate a client is admitted while q exceeds what its requests may still be charged."""
    rules.check_credit_gate(dlpm)


def test_a_huge_output_that_is_announced_is_at_the_clients_own_expense() -> None:
    """What may still come is set aside from its own credit; others go on, and what never came is given back."""
    policy = dlpm(quantum=10, gate="credit", slack=100)
    run(policy, "a1", extend=1, reserve=1_000_000)
    arrive(policy, "a2", "b1", "b2", prompt=20)
    assert [admit(policy, extend=20), admit(policy, extend=20)] == ["b1", "b2"]
    assert offered(policy) is None
    policy.finish("a1", output=0)
    assert offered(policy) == "a2"


def test_slack_decides_who_is_due() -> None:
    """With committed credit used up, a client with q <= slack is refilled; one above holds the refill back."""
    for slack, expected in ((9, "a2"), (8, None)):
        policy = dlpm(quantum=10, gate="credit", slack=slack)
        run(policy, "a1", extend=1, reserve=5)
        arrive(policy, "a2")
        assert policy.deficit("a") == 9
        assert offered(policy) == expected
        policy.validate()


def test_a_client_above_the_slack_waits_for_its_own_output() -> None:
    """A client that is neither due nor admissible is offered again once enough output is no longer outstanding."""
    policy = dlpm(quantum=10, gate="credit", slack=0)
    run(policy, "a1", extend=1, reserve=5)
    arrive(policy, "a2", "b1", prompt=20)
    policy.take("b1", extend=20, reserve=0)
    arrive(policy, "b2")
    assert offered(policy) is None, "b is due, but a is not"
    policy.finish("a1", output=0)
    assert offered(policy) == "a2"
    policy.take("a2", extend=0, reserve=0)
    assert offered(policy) == "b2"
    assert policy.rounds == 1


def test_taking_a_request_of_a_stuck_client_commits_no_refill() -> None:
    """A host may take what was not offered; that client is charged, and nobody is refilled for it."""
    policy = dlpm(quantum=10, gate="credit", slack=0)
    run(policy, "a1", extend=1, reserve=5)
    arrive(policy, "a2")
    policy.take("a2", extend=1, reserve=1)
    assert (policy.deficit("a"), policy.rounds) == (8, 1)


@given(
    debts=st.lists(st.integers(-2000, 40), min_size=1, max_size=5),
    weights=st.lists(st.integers(1, 4), min_size=5, max_size=5),
    quantum=st.integers(1, 50),
    idle=st.integers(0, 4),
)
def test_many_rounds_at_once_equal_the_loop(debts: list[int], weights: list[int], quantum: int, idle: int) -> None:
    """The refill in closed form leaves every counter, of idle clients too, where the loop would leave it."""
    clients = "abcde"[: len(debts)]
    policy = dlpm(quantum=quantum, weights=dict(zip("abcde", weights, strict=True)))
    for client, debt in zip(clients, debts, strict=True):
        policy.arrive(request(f"{client}1"))
        receipt = policy.take(f"{client}1", extend=0, reserve=1)
        policy.amend(receipt, extend=max(0, policy.deficit(client) - debt))
    q = {client: policy.deficit(client) for client in clients}
    rounds = policy.rounds
    queued = [client for i, client in enumerate(clients) if i != idle or len(clients) == 1]
    arrive(policy, *(f"{client}2" for client in queued))
    while all(q[client] <= 0 for client in queued):
        rounds += 1
        for i, client in enumerate(clients):
            q[client] += weights[i] * quantum if q[client] <= 0 else 0
    assert q[admit(policy, extend=0)[0]] > 0
    assert {client: policy.deficit(client) for client in clients} == q
    assert policy.rounds == rounds
    policy.validate()


@given(st.integers(-(10**9), 10**9), st.integers(0, 10**6), st.integers(1, 10**6))
def test_the_number_of_rounds_is_the_least_that_suffices(value: int, threshold: int, quantum: int) -> None:
    """`rounds_until_above` returns the least n >= 0 with value + n*Q > threshold."""
    rounds = rounds_until_above(value, threshold, quantum)
    assert rounds >= 0
    assert value + rounds * quantum > threshold
    assert rounds == 0 or value + (rounds - 1) * quantum <= threshold


def test_a_refill_touches_no_account() -> None:
    """Refills are lazy: a counter is settled when somebody asks for it, not when the round passes."""
    policy = dlpm(quantum=1)
    for n in range(100):
        run(policy, f"a{n}", extend=5)
        policy.finish(f"a{n}", output=0)
    policy.arrive(request("b1"))
    policy.take("b1", extend=1000, reserve=1)
    account = policy._table["a"]
    stored = account.balance
    arrive(policy, "b2")
    admit(policy, extend=0)
    assert policy.rounds >= 1000
    assert account.balance == stored
    assert account.settled_at < policy.rounds
    assert policy.deficit("a") == 1
    assert account.settled_at == policy.rounds


def test_a_refund_restores_the_client() -> None:
    """After a refund the client has its credit back, nothing outstanding, and the request its old place."""
    policy = dlpm(quantum=10)
    arrive(policy, "a1", "a2", prompt=4)
    receipt = policy.take("a1", extend=4, reserve=3)
    assert (policy.deficit("a"), policy.outstanding("a")) == (6, 6)
    policy.refund(receipt)
    assert (policy.deficit("a"), policy.outstanding("a")) == (10, 0)
    assert planned(policy, 2) == ["a1", "a2"]


def test_an_amendment_charges_the_difference() -> None:
    """The true size replaces the estimate, and None leaves a figure as it is."""
    policy = dlpm(quantum=100)
    receipt = run(policy, "a1", extend=4, reserve=3)
    amended = policy.amend(receipt, extend=9)
    assert (amended.extend, amended.reserve, amended.charged) == (9, 3, 9)
    assert (policy.deficit("a"), policy.outstanding("a")) == (91, 6)
    final = policy.amend(amended, reserve=1)
    assert (final.extend, final.reserve, final.charged) == (9, 1, 9)
    assert (policy.deficit("a"), policy.outstanding("a")) == (91, 2)


def test_a_free_admission_stays_free_when_it_is_amended() -> None:
    """A recomputation that turns out larger than estimated still costs nothing."""
    policy = dlpm(quantum=100)
    run(policy, "a1", extend=4, reserve=3)
    policy.preempt("a1", output=0, keep_hold=True)
    receipt = policy.take("a1", extend=4, reserve=3)
    assert policy.amend(receipt, extend=50).charged == 0
    assert policy.deficit("a") == 96


def test_receipts_are_redeemed_once() -> None:
    """A receipt is void after its amendment, its refund, a preemption, a new admission and the end."""
    policy = dlpm(quantum=100)
    first = run(policy, "a1", extend=4)
    second = policy.amend(first, extend=5)
    with pytest.raises(HostError, match="receipt 0 of request 'a1' is void"):
        policy.refund(first)
    policy.refund(second)
    with pytest.raises(HostError, match="is queued; this call needs: running"):
        policy.refund(second)
    third = policy.take("a1", extend=4, reserve=1)
    with pytest.raises(HostError, match="is void"):
        policy.amend(second, extend=1)
    policy.preempt("a1", output=0, keep_hold=False)
    fourth = policy.take("a1", extend=4, reserve=1)
    with pytest.raises(HostError, match="is void"):
        policy.amend(third)
    policy.finish("a1", output=0)
    with pytest.raises(HostError, match="'a1' is unknown"):
        policy.amend(fourth)


def test_output_needs_a_request_that_could_have_produced_it() -> None:
    """Output of a client with no request is an error, and so is a negative count."""
    policy = dlpm(quantum=10)
    with pytest.raises(HostError, match="client 'a' has no request that could have produced 3 tokens"):
        policy.produced({"a": 3})
    run(policy, "a1")
    with pytest.raises(ConfigError, match=r"produced\['a'\] = -1 is not valid"):
        policy.produced({"a": -1})
    policy.finish("a1", output=0)
    with pytest.raises(HostError, match="has no request"):
        policy.produced({"a": 0})


def test_an_unknown_client_has_no_deficit() -> None:
    """Asking for a client that never came returns 0."""
    policy = dlpm()
    assert (policy.deficit("a"), policy.outstanding("a")) == (0, 0)


def test_predictions_that_fall_short_give_no_credit() -> None:
    """A client that produced more than was reserved for it is not given credit for the shortfall."""
    policy = dlpm(quantum=10, gate="credit", slack=50)
    run(policy, "a1", extend=1, reserve=1)
    policy.produced({"a": 4})
    assert (policy.deficit("a"), policy.outstanding("a")) == (1, -6)
    arrive(policy, "a2")
    assert admit(policy) == "a2"
    assert policy.deficit("a") == 0


def test_the_oldest_waits_its_turn_with_hold() -> None:
    """When it is the oldest request's turn and it has no room, its client admits nothing else."""
    rules.check_bounded_wait_holds(dlpm)


def test_more_than_a_quantum_of_credit_is_no_reason_for_refills_to_be_taken_back() -> None:
    """A counter that a refund has raised above the quantum needs no round, and loses nothing as rounds pass."""
    account = DeficitAccount("a", 1, Lane(None), 301, quantum=150, settled_at=0)
    assert account.rounds_due(2, None) == 0
    account.settle(2, 2, None)
    assert account.balance == 301


@pytest.mark.parametrize(
    ("quantum", "debts", "taken"), [(10, {"a": 20, "b": 3}, "a2"), (3, {"a": 4, "b": 1}, "a2")]
)
def test_an_admission_that_no_refill_was_assumed_for_commits_none(
    quantum: int, debts: dict[str, int], taken: str
) -> None:
    """With overdraft, a request taken unasked leaves the refill uncommitted that somebody else is waiting for."""
    policy = dlpm(quantum=quantum, overdraft=5)
    for client, debt in debts.items():
        arrive(policy, f"{client}1", f"{client}2", prompt=quantum + debt)
    for client, debt in debts.items():
        policy.take(f"{client}1", extend=quantum + debt, reserve=0)
    before = {client: policy.deficit(client) for client in debts}
    policy.take(taken, extend=0, reserve=0)
    assert {client: policy.deficit(client) for client in debts} == before
