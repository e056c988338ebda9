"""The rules of the policies as checks: each builds its own policy, and fails when the rule is broken.

The tests of the policies call them on the shipping classes, test_sabotage.py on broken ones.
Service costs 1 for each extend token and 2 for each output token, unless a check says otherwise.
"""

from __future__ import annotations

from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError
from fairprefix.core.policy import Refusal
from tests.support import MakeDLPM, MakeLPM, MakeVTC, admit, arrive, hot, offered, planned, run

# DLPM.


def check_gate(make: MakeDLPM) -> None:
    """A client is admitted while q > 0, not while q >= 0."""
    policy = make(hot(1), quantum=10)
    arrive(policy, "a1", "b1", prompt=10)
    assert admit(policy, extend=10) == "a1"
    assert policy.deficit("a") == 0
    arrive(policy, "a2", prompt=10, path=(1,))
    assert offered(policy) == "b1", "a has the longer prefix, but no credit left"


def check_refill_needs_all(make: MakeDLPM) -> None:
    """Nobody is refilled while one queued client still has credit."""
    policy = make(hot(1), quantum=10)
    arrive(policy, "a1", "b1", prompt=10)
    admit(policy, extend=10)
    arrive(policy, "a2", prompt=10, path=(1,))
    policy.defer("b1", Refusal.NO_ROOM)
    assert offered(policy) is None, "b has credit: it keeps its place, and a is not refilled"
    policy.begin_pass()
    assert offered(policy) == "b1"
    assert (policy.rounds, policy.deficit("a"), policy.deficit("b")) == (1, 0, 10)
    assert admit(policy, extend=10) == "b1"
    assert admit(policy, extend=1) == "a2"
    assert (policy.rounds, policy.deficit("a"), policy.deficit("b")) == (2, 9, 10)


def check_refill_reaches_idle_clients(make: MakeDLPM) -> None:
    """A refill goes to every known client that is due, also to one with nothing queued."""
    policy = make(quantum=10)
    run(policy, "a1", extend=25)
    policy.finish("a1", output=0)
    run(policy, "b1", extend=20)
    assert (policy.deficit("a"), policy.deficit("b")) == (-5, -10)
    arrive(policy, "b2")
    admit(policy)
    assert (policy.deficit("a"), policy.deficit("b")) == (5, 9)


def check_credit_is_not_topped_up(make: MakeDLPM) -> None:
    """Credit of an idle client is kept, but a refill adds nothing to it."""
    policy = make(quantum=10)
    run(policy, "a1", extend=4)
    policy.finish("a1", output=0)
    assert policy.deficit("a") == 6
    run(policy, "b1", extend=35)
    arrive(policy, "b2")
    admit(policy)
    assert policy.rounds > 1
    assert policy.deficit("a") == 6


def check_extend_is_charged(make: MakeDLPM) -> None:
    """An admission costs the tokens that are computed, not those that were cached."""
    policy = make(quantum=10)
    arrive(policy, "a1", prompt=100)
    receipt = policy.take("a1", extend=3, reserve=1)
    assert receipt.charged == 3
    assert policy.deficit("a") == 7


def check_output_is_charged_as_produced(make: MakeDLPM) -> None:
    """Each output token is charged in the step that produces it."""
    policy = make(quantum=10)
    run(policy, "a1", reserve=5)
    policy.produced({"a": 1})
    assert policy.deficit("a") == 7
    policy.produced({"a": 3})
    assert policy.deficit("a") == 1
    policy.finish("a1", output=4)
    assert policy.deficit("a") == 1


def check_debt_survives_idleness(make: MakeDLPM) -> None:
    """A client that leaves in debt comes back in debt."""
    policy = make(quantum=10, max_clients=1)
    run(policy, "a1", extend=60)
    policy.finish("a1", output=0)
    run(policy, "b1")
    policy.finish("b1", output=0)
    arrive(policy, "a2")
    assert policy.deficit("a") < 0


def check_recomputation_is_free(make: MakeDLPM) -> None:
    """With recompute = free, a request that was preempted is not charged again."""
    policy = make(quantum=100)
    run(policy, "a1", extend=8, reserve=5)
    policy.produced({"a": 2})
    before = policy.deficit("a")
    policy.preempt("a1", output=2, keep_hold=False)
    assert policy.take("a1", extend=10, reserve=3).charged == 0
    assert policy.deficit("a") == before


def check_hold_survives_preemption(make: MakeDLPM) -> None:
    """The output of a request that its host resumes by itself stays outstanding while it is preempted."""
    policy = make(quantum=100)
    run(policy, "a1", reserve=5)
    policy.produced({"a": 2})
    policy.preempt("a1", output=2, keep_hold=True)
    assert policy.outstanding("a") == 2 * 3
    policy.take("a1", extend=3, reserve=3)
    assert policy.outstanding("a") == 2 * 3


def check_abort_gives_the_hold_back(make: MakeDLPM) -> None:
    """A request that ends early leaves nothing outstanding."""
    policy = make(quantum=100)
    run(policy, "a1", reserve=5)
    policy.produced({"a": 2})
    assert policy.outstanding("a") == 6
    policy.finish("a1", output=2)
    assert policy.outstanding("a") == 0


def check_looking_commits_nothing(make: MakeDLPM) -> None:
    """Neither a look at the next request nor a plan commits a refill."""
    policy = make(quantum=10)
    arrive(policy, "a1", "b1", prompt=30)
    before = policy.canonical(), policy.snapshot()
    assert offered(policy) == "a1"
    assert policy.rounds == 0
    assert policy.deficit("a") == 0
    assert planned(policy, 2) == ["a1", "b1"]
    assert (policy.canonical(), policy.snapshot()) == before


def check_blocked_frees_others(make: MakeDLPM) -> None:
    """A blocked request leaves the queue: the credit of its client does not hold back the others."""
    policy = make(quantum=10)
    arrive(policy, "a1", "b1", prompt=10)
    admit(policy, extend=10)
    arrive(policy, "a2", prompt=10)
    policy.defer("b1", Refusal.BLOCKED)
    policy.begin_pass()
    assert offered(policy) == "a2"
    policy.unblock("b1")
    assert offered(policy) == "b1"


def check_no_room_keeps_its_place(make: MakeDLPM) -> None:
    """A request without room keeps its place and holds back the refill; the next pass offers it again."""
    policy = make(quantum=10)
    arrive(policy, "a1", "b1", prompt=10)
    admit(policy, extend=10)
    arrive(policy, "a2", "b2", prompt=10)
    policy.defer("b1", Refusal.NO_ROOM)
    assert offered(policy) == "b2", "a smaller request of the same client may fit"
    policy.defer("b2", Refusal.NO_ROOM)
    assert offered(policy) is None
    policy.begin_pass()
    assert planned(policy, 3) == ["b1", "a2", "b2"]


def check_weights_count(make: MakeDLPM) -> None:
    """A client of weight 3 gets three quanta in a refill."""
    policy = make(quantum=10, weights={"a": 3})
    arrive(policy, "a1", "b1")
    admit(policy, extend=0)
    assert (policy.deficit("a"), policy.deficit("b")) == (30, 10)


def check_reweigh_keeps_debt(make: MakeDLPM) -> None:
    """A new weight applies from the next refill; debt is neither rescaled nor forgiven."""
    policy = make(quantum=10)
    run(policy, "a1", extend=35)
    before = policy.deficit("a")
    policy.reweigh("a", 5)
    assert policy.deficit("a") == before < 0
    arrive(policy, "a2")
    admit(policy, extend=0)
    assert policy.deficit("a") == before + 50


def check_counters_are_integers(make: MakeDLPM) -> None:
    """Deficits are integers of any size: no charge is lost to rounding."""
    policy = make(quantum=10)
    run(policy, "a1", extend=2**60 + 1)
    assert type(policy.deficit("a")) is int
    assert policy.deficit("a") == 10 - (2**60 + 1)


def check_overdraft(make: MakeDLPM) -> None:
    """While no client with credit finds room, others are admitted down to q > -overdraft, without a refill."""
    policy = make(quantum=10, overdraft=6)
    arrive(policy, "a1", "b1", prompt=15)
    admit(policy, extend=15)
    arrive(policy, "a2", "a3")
    assert policy.deficit("a") == -5
    assert offered(policy) == "b1"
    policy.defer("b1", Refusal.NO_ROOM)
    assert admit(policy, extend=1) == "a2"
    assert (policy.deficit("a"), policy.rounds) == (-6, 1)
    assert offered(policy) is None, "-6 is not above -6"


def check_credit_gate(make: MakeDLPM) -> None:
    """Under the credit gate a client is admitted while q exceeds what its requests may still be charged."""
    policy = make(hot(1), quantum=10, gate="credit", slack=20)
    arrive(policy, "a1", "a2", "b1")
    assert admit(policy, extend=1, reserve=4) == "a1"
    assert (policy.deficit("a"), policy.outstanding("a")) == (9, 8)
    assert admit(policy, extend=1, reserve=1) == "a2"
    arrive(policy, "a3", prompt=4, path=(1,))
    assert (policy.deficit("a"), policy.outstanding("a")) == (8, 10)
    assert offered(policy) == "b1", "a has the longer prefix, but no credit that is not committed"


# Bounded wait: LPM and DLPM alike.


def check_bounded_wait_holds(make: MakeLPM | MakeDLPM) -> None:
    """When it is the oldest request's turn and it has no room, its queue admits nothing else."""
    policy = make(hot(1), bounded_wait=2)
    arrive(policy, "a1", prompt=4)
    arrive(policy, "a2", "a3", "a4", prompt=4, path=(1,))
    assert admit(policy) == "a2"
    assert offered(policy) == "a1"
    policy.defer("a1", Refusal.NO_ROOM)
    assert offered(policy) is None
    policy.begin_pass()
    assert planned(policy, 3) == ["a1", "a3", "a4"]


# VTC.


def check_lift_to_the_lowest(make: MakeVTC) -> None:
    """A client that comes back is lifted to the smallest counter of those with a request queued."""
    policy = make()
    arrive(policy, "a1", "a2", prompt=50)
    arrive(policy, "b1", "b2", prompt=70)
    policy.take("a1", extend=50, reserve=1)
    policy.take("b1", extend=70, reserve=1)
    arrive(policy, "c1")
    assert policy.counter("a") == 50
    assert policy.counter("c") == 50
    assert offered(policy) == "a2"


def check_lift_to_the_last_that_left(make: MakeVTC) -> None:
    """When nobody is queued, a client that comes back is lifted to the counter of the one that left last."""
    policy = make()
    run(policy, "a1", extend=50)
    policy.produced({"a": 10})
    arrive(policy, "b1")
    assert policy.counter("b") == 70


def check_head_of_line(make: MakeVTC) -> None:
    """After a refusal for lack of room VTC offers nobody until the next pass."""
    policy = make()
    arrive(policy, "a1", "b1")
    policy.defer("a1", Refusal.NO_ROOM)
    assert offered(policy) is None
    policy.begin_pass()
    assert offered(policy) == "a1"


def check_vtc_charges(make: MakeVTC) -> None:
    """VTC charges the whole prompt when it is selected, and every output token."""
    policy = make()
    arrive(policy, "a1", prompt=100)
    assert policy.take("a1", extend=3, reserve=5).charged == 100
    policy.produced({"a": 2})
    assert policy.counter("a") == 104


def check_vtc_weights(make: MakeVTC) -> None:
    """A counter advances the slower the larger the client's weight."""
    policy = make(weights={"a": 3})
    run(policy, "a1", extend=30)
    arrive(policy, "a2")
    run(policy, "b1", extend=30)
    assert (policy.counter("a"), policy.counter("b")) == (10, 40)


# All of them.


def check_quantum_must_be_positive() -> None:
    """A quantum of 0, with which a refill would never end, is refused."""
    verdict = "accepted"
    try:
        PolicyConfig(quantum=0)
    except ConfigError as error:
        verdict = str(error)
    assert verdict == "quantum = 0 is not valid: expected an integer >= 1"
