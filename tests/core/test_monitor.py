"""Claims about the live monitor: its gaps are the ledger's, its upper bound holds, its memory is bounded."""

from __future__ import annotations

from fractions import Fraction

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from fairprefix.core.bounds import Bound, Engine, dlpm_both_backlogged
from fairprefix.core.cost import CostWeights
from fairprefix.core.errors import ConfigError, HostError
from fairprefix.core.ledger import Ledger, View
from fairprefix.core.monitor import BoundMonitor, LiveGap

COST = CostWeights(extend=1, output=2)
CLIENTS = ("a", "b", "c", "d")
WEIGHTS = {"b": 2, "c": 3}


@frozen
class Event:
    """One thing that happens to a client."""

    kind: str
    client: str
    tokens: int = 0


events = st.builds(
    Event,
    st.sampled_from(["backlogged", "backlogged", "idle", "admitted", "produced", "produced"]),
    st.sampled_from(CLIENTS),
    st.integers(0, 9),
)
histories = st.lists(events, max_size=60)


def play(happened: list[Event], judge: Ledger | BoundMonitor) -> None:
    """Report events to a ledger or a monitor, one a unit of time."""
    for at, event in enumerate(happened):
        if event.kind == "backlogged":
            judge.backlogged(event.client, at)
        elif event.kind == "idle":
            judge.idle(event.client, at)
        elif event.kind == "produced":
            judge.produced(event.client, at, event.tokens)
        else:
            tokens = event.tokens
            judge.admitted(event.client, at, input_tokens=tokens + 3, extend=tokens, charged=5 * tokens)


def both(happened: list[Event], view: View, top: int = 32) -> tuple[Ledger, BoundMonitor]:
    """Report a history to both."""
    ledger, monitor = Ledger(COST, WEIGHTS), BoundMonitor(COST, weights=WEIGHTS, view=view, top=top)
    play(happened, ledger)
    play(happened, monitor)
    return ledger, monitor


def promise(value: int, relation: str = "<") -> Bound:
    """Return a bound of that value."""
    return Bound(name="b", exact=Fraction(value), formula="", source="", assumptions=(), relation=relation)


@given(histories, st.sampled_from(list(View)))
def test_the_largest_gap_is_that_of_the_ledger(happened: list[Event], view: View) -> None:
    """With every client followed, the live gap equals the ledger's, and nothing is left to bound."""
    ledger, monitor = both(happened, view)
    gap = ledger.largest_gap(view)
    assert monitor.largest_gap.exact == gap.exact_value
    assert monitor.largest_gap.value == gap.value
    assert monitor.others_at_most == 0


@given(histories, st.integers(0, 3))
def test_a_pair_that_is_not_followed_is_never_wider_than_the_upper_bound(happened: list[Event], top: int) -> None:
    """With few clients followed, the exact gap or the upper bound covers every pair."""
    ledger, monitor = both(happened, View.ACTUAL, top)
    true_gap = ledger.largest_gap().exact_value
    assert monitor.largest_gap.exact <= true_gap
    assert true_gap <= monitor.largest_gap.exact or true_gap <= monitor.others_at_most


@given(histories)
def test_the_gap_is_where_the_monitor_says(happened: list[Event]) -> None:
    """Just before the instant told, the ledger's largest gap was smaller; whoever is ahead was charged then."""
    _, monitor = both(happened, View.ACTUAL)
    gap = monitor.largest_gap
    if gap.ahead is None:
        assert gap.exact == 0
        return
    assert happened[gap.at].client == gap.ahead
    assert gap.behind != gap.ahead
    before = both(happened[: gap.at], View.ACTUAL)[1]
    assert before.largest_gap.exact < gap.exact


def test_the_present_gap_of_a_pair_can_be_asked_for() -> None:
    """The gap of two clients in their present common stay is told, per unit of weight; 0 without one."""
    monitor = BoundMonitor(COST, weights=WEIGHTS)
    for client in ("b", "a"):
        monitor.backlogged(client, 0)
    monitor.produced("b", 1, 6)
    assert monitor.gap_of("a", "b") == monitor.gap_of("b", "a") == 6
    monitor.idle("b", 2)
    assert monitor.gap_of("a", "b") == 0
    assert monitor.largest_gap.value == 6


def test_a_client_that_is_not_followed_has_no_exact_gap() -> None:
    """Asking for the gap of a client beyond the first `top` is refused, with the nearest name."""
    monitor = BoundMonitor(COST, top=1)
    monitor.backlogged("alice", 0)
    monitor.backlogged("alicia", 0)
    with pytest.raises(HostError, match=r"client 'alicia' is not followed exactly \(did you mean 'alice'\?\)"):
        monitor.gap_of("alice", "alicia")


def test_the_bound_and_the_ratio() -> None:
    """The ratio compares the largest gap with the promise, and tells when it is broken."""
    monitor = BoundMonitor(COST, bound=promise(12))
    monitor.backlogged("a", 0)
    monitor.backlogged("b", 0)
    seen = []
    for at in (1, 2):
        monitor.produced("a", at, 3)
        seen.append((monitor.bound_ratio, monitor.violated))
    assert seen == [(Fraction(1, 2), False), (Fraction(1), True)]
    assert not BoundMonitor(COST).violated
    assert BoundMonitor(COST).bound_ratio is None


def test_the_a_posteriori_bound_grows_with_what_is_seen() -> None:
    """The bound from the largest prompt and hold seen is DLPM's, for the two lightest clients seen."""
    monitor = BoundMonitor(COST, weights=WEIGHTS, quantum=10)
    assert monitor.a_posteriori is not None
    assert monitor.a_posteriori.value == 2 * (1 + 10)
    for client in ("c", "b", "c"):
        monitor.backlogged(client, 0)
    monitor.admitted("c", 1, input_tokens=9, extend=4, charged=4, hold=8)
    monitor.admitted("b", 1, input_tokens=9, extend=7, charged=7, hold=3)
    assert monitor.a_posteriori.exact == Fraction(7 + 8, 2) + Fraction(7 + 8, 3) + 20
    monitor.backlogged("a", 2)
    assert monitor.a_posteriori.exact == Fraction(15, 1) + Fraction(15, 2) + 20
    assert BoundMonitor(COST).a_posteriori is None


def test_the_a_posteriori_bound_is_never_above_the_one_for_the_engine() -> None:
    """What was seen fits into the engine, so the bound from it is no looser than the one assumed beforehand."""
    engine = Engine(reservation="full", kv_tokens=20, max_running=4, longest_input=6, longest_output=8)
    monitor = BoundMonitor(COST, quantum=10)
    monitor.backlogged("a", 0)
    monitor.backlogged("b", 0)
    monitor.admitted("a", 1, input_tokens=6, extend=6, charged=6, hold=COST.service(0, 14))
    assert monitor.a_posteriori is not None
    assert monitor.a_posteriori.exact <= dlpm_both_backlogged(engine, COST, 10).exact


def test_repeated_reports_change_nothing() -> None:
    """A client that is reported backlogged or idle twice is counted once."""
    monitor = BoundMonitor(COST)
    monitor.backlogged("b", 0)
    for at in range(2):
        monitor.backlogged("a", at)
    monitor.produced("a", 2, 4)
    for at in range(3, 5):
        monitor.idle("a", at)
    monitor.produced("a", 6, 9)
    assert monitor.largest_gap.exact == 8


def test_memory_is_bounded_by_who_is_backlogged() -> None:
    """Ten thousand clients that come and go leave nothing behind but the followed ones."""
    monitor = BoundMonitor(COST, top=2)
    monitor.backlogged("steady", 0)
    for number in range(10_000):
        monitor.backlogged(f"c{number}", number)
        monitor.produced(f"c{number}", number, 1)
        monitor.idle(f"c{number}", number)
    kept = sum(len(table) for table in vars(monitor).values() if isinstance(table, dict))
    assert kept < 10
    assert monitor.others_at_most > 0


def test_a_stranger_who_was_never_backlogged_is_no_pair() -> None:
    """Output of a client with nothing queued counts for no gap."""
    monitor = BoundMonitor(COST, top=0)
    monitor.backlogged("a", 0)
    monitor.produced("b", 1, 100)
    assert monitor.others_at_most == 0
    assert monitor.largest_gap.ahead is None


@pytest.mark.parametrize(
    "wrong",
    [{"top": -1}, {"quantum": 0}, {"overdraft": -1}, {"default_weight": 0}, {"weights": {"a": 0}}],
)
def test_a_wrong_parameter_is_refused(wrong: dict[str, object]) -> None:
    """Every number is checked when the monitor is made."""
    with pytest.raises(ConfigError):
        BoundMonitor(COST, **wrong)  # type: ignore[arg-type]


def test_time_and_tokens_are_checked() -> None:
    """Time never goes backwards, and nothing negative is charged."""
    monitor = BoundMonitor(COST)
    monitor.backlogged("a", 5)
    with pytest.raises(HostError, match="time went backwards: an event at 4 after one at 5"):
        monitor.produced("a", 4, 1)
    with pytest.raises(ConfigError, match="produced: tokens = -1"):
        monitor.produced("a", 5, -1)
    with pytest.raises(ConfigError, match="admitted: hold = -1"):
        monitor.admitted("a", 5, input_tokens=1, extend=1, charged=1, hold=-1)


@given(histories, st.integers(1, 5))
def test_output_told_together_shows_a_gap_that_is_never_too_large(happened: list[Event], batch: int) -> None:
    """Looking only now and then can miss the top of a gap, and no more than was produced since the last look."""
    exact, coarse = BoundMonitor(COST, weights=WEIGHTS), BoundMonitor(COST, weights=WEIGHTS)
    play(happened, exact)
    pending: dict[str, int] = {}
    largest_batch = 0
    for at, event in enumerate(happened):
        if event.kind == "produced":
            pending[event.client] = pending.get(event.client, 0) + event.tokens
        if event.kind != "produced" or at % batch == 0:
            largest_batch = max(largest_batch, sum(pending.values()))
            coarse.produced_together(pending, at)
            pending = {}
        if event.kind != "produced":
            play_one(event, at, coarse)
    coarse.produced_together(pending, len(happened))
    largest_batch = max(largest_batch, sum(pending.values()))
    assert coarse.largest_gap.exact <= exact.largest_gap.exact
    assert exact.largest_gap.exact <= coarse.largest_gap.exact + 2 * COST.service(0, largest_batch)
    assert coarse.others_at_most == exact.others_at_most == 0
    if coarse.largest_gap.ahead is not None:
        ahead, behind = coarse.largest_gap.ahead, coarse.largest_gap.behind
        assert behind is not None
        assert ahead != behind


def play_one(event: Event, at: int, monitor: BoundMonitor) -> None:
    """Report one event that is no output."""
    if event.kind == "backlogged":
        monitor.backlogged(event.client, at)
    elif event.kind == "idle":
        monitor.idle(event.client, at)
    else:
        monitor.admitted(event.client, at, input_tokens=0, extend=event.tokens, charged=0)


def test_output_told_together_names_who_is_ahead() -> None:
    """The one who was served more since both wait, whoever comes first in the table."""
    for ahead, behind in (("a", "b"), ("b", "a")):
        monitor = BoundMonitor(COST, top=2)
        for client in ("a", "b", "far away"):
            monitor.backlogged(client, 0)
        monitor.produced_together({ahead: 9, behind: 2, "far away": 1}, 1)
        assert monitor.largest_gap == LiveGap(Fraction(14), ahead, behind, 1)


def test_output_told_together_is_refused_as_a_whole() -> None:
    """A negative count changes nothing."""
    monitor = BoundMonitor(COST)
    monitor.backlogged("a", 0)
    monitor.backlogged("b", 0)
    with pytest.raises(ConfigError, match="produced_together\\['b'\\]"):
        monitor.produced_together({"a": 5, "b": -1}, 1)
    assert monitor.gap_of("a", "b") == 0
    with pytest.raises(HostError, match="backwards"):
        monitor.produced_together({"a": 5}, -1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"top": -1}, "top = -1 is not valid: expected an integer >= 0"),
        ({"quantum": 0}, "quantum = 0 is not valid: expected an integer >= 1"),
        ({"overdraft": -1}, "overdraft = -1 is not valid: expected an integer >= 0"),
        ({"default_weight": 0}, "default_weight = 0 is not valid: expected an integer >= 1"),
        ({"weights": {"a": 0}}, "weights['a'] = 0 is not valid: expected an integer >= 1"),
    ],
)
def test_a_wrong_parameter_is_named(wrong: dict[str, object], message: str) -> None:
    """The message begins with the parameter and its value."""
    with pytest.raises(ConfigError) as refused:
        BoundMonitor(COST, **wrong)  # type: ignore[arg-type]
    assert str(refused.value) == message


@pytest.mark.parametrize("field", ["input_tokens", "extend", "charged"])
def test_a_negative_admission_is_named(field: str) -> None:
    """The message begins with the call and the field; 0 is no error."""
    figures = {"input_tokens": 0, "extend": 0, "charged": 0, field: -1}
    with pytest.raises(ConfigError, match=f"^admitted: {field} = -1 is not valid"):
        BoundMonitor(COST).admitted("a", 0, **figures)


def test_the_smallest_parameters_are_taken() -> None:
    """A quantum of 1 and a weight of 1 are figures; nothing seen yet is the least bound there is."""
    monitor = BoundMonitor(COST, quantum=1, weights={"a": 1})
    assert monitor.a_posteriori is not None
    assert monitor.a_posteriori.exact == 2 * (1 + 1)
    monitor.admitted("a", 0, input_tokens=2, extend=0, charged=0)
    assert monitor.a_posteriori.exact == 2 * (1 + 1), "no hold was told, and nothing computed"
    monitor.admitted("a", 0, input_tokens=2, extend=1, charged=0, hold=1)
    assert monitor.a_posteriori.exact == 2 * (2 + 1)


def test_the_overdraft_is_part_of_what_one_may_owe() -> None:
    """The a-posteriori bound of a policy with overdraft is wider by it on both sides."""
    plain, wider = BoundMonitor(COST, quantum=10), BoundMonitor(COST, quantum=10, overdraft=3)
    assert plain.a_posteriori is not None
    assert wider.a_posteriori is not None
    assert wider.a_posteriori.exact - plain.a_posteriori.exact == 2 * 3


def test_thirty_two_clients_are_followed_unless_said() -> None:
    """The 33rd client has no exact gap, the 32nd has."""
    monitor = BoundMonitor(COST)
    for n in range(33):
        monitor.backlogged(f"c{n}", 0)
    assert monitor.gap_of("c30", "c31") == 0
    with pytest.raises(HostError, match="client 'c32' is not followed exactly"):
        monitor.gap_of("c31", "c32")


def test_each_view_counts_what_it_says() -> None:
    """A prompt is worth its computed tokens, its charge, or its whole length; no output is counted with it."""
    for view, expected in ((View.ACTUAL, 4), (View.CHARGED, 7), (View.CLIENT, 10)):
        monitor = BoundMonitor(COST, view=view)
        monitor.backlogged("a", 0)
        monitor.backlogged("b", 0)
        monitor.admitted("a", 1, input_tokens=10, extend=4, charged=7)
        assert monitor.largest_gap.exact == expected


def test_the_heaviest_of_three_is_not_among_the_lightest() -> None:
    """Whoever comes first, the a-posteriori bound is for the two lightest clients seen."""
    for order in (("c", "b", "a"), ("a", "b", "c"), ("b", "c", "a")):
        monitor = BoundMonitor(COST, weights=WEIGHTS, quantum=10)
        for client in order:
            monitor.backlogged(client, 0)
        monitor.admitted("a", 1, input_tokens=9, extend=4, charged=4)
        assert monitor.a_posteriori is not None
        assert monitor.a_posteriori.exact == Fraction(4, 1) + Fraction(4, 2) + 20


def test_who_is_ahead_and_behind_is_told_with_the_gap() -> None:
    """Weighted service decides who is ahead, and both are named."""
    monitor = BoundMonitor(COST, weights=WEIGHTS)
    monitor.backlogged("a", 0)
    monitor.backlogged("c", 0)
    monitor.produced("a", 1, 3)
    assert monitor.largest_gap == LiveGap(Fraction(6), "a", "c", 1)
    monitor.produced("c", 2, 60)
    assert monitor.largest_gap == LiveGap(Fraction(40), "c", "a", 2)


@given(histories, st.integers(0, 4))
def test_gaps_of_pairs_are_those_of_the_ledger(happened: list[Event], top: int) -> None:
    """The largest gap is the largest that any pair of followed clients ever had, as the ledger finds it."""
    _, monitor = both(happened, View.ACTUAL, top)
    followed = list(monitor._served)
    kept = [event for event in happened if event.client in followed]
    ledger = Ledger(COST, WEIGHTS)
    play(kept, ledger)
    assert monitor.largest_gap.exact == ledger.largest_gap().exact_value


@pytest.mark.parametrize("client", ["a", "b"])
def test_output_told_together_counts_for_every_pair_of_who_produced(client: str) -> None:
    """One of a pair is enough, whichever it is; a pair of which neither produced stays as it was."""
    monitor = BoundMonitor(COST)
    for other in ("a", "b", "c"):
        monitor.backlogged(other, 0)
    monitor.produced_together({client: 3}, 1)
    assert monitor.largest_gap.exact == 6
    assert monitor.largest_gap.ahead == client
    assert monitor.gap_of("a", "b") == 6
    assert monitor.gap_of("a", "c") == (6 if client == "a" else 0)


def test_output_told_together_makes_a_client_known() -> None:
    """Whoever produces is heard of, and takes one of the places of those that are followed."""
    monitor = BoundMonitor(COST, top=1)
    monitor.produced_together({"first": 1}, 0)
    monitor.backlogged("second", 1)
    with pytest.raises(HostError, match="client 'second' is not followed exactly"):
        monitor.gap_of("first", "second")


def test_pairs_beyond_those_followed_are_remembered() -> None:
    """Once a pair was not followed exactly, the bound on the others stays, whoever comes and goes."""
    monitor = BoundMonitor(COST, top=1)
    for client in ("a", "b"):
        monitor.backlogged(client, 0)
    monitor.produced("b", 1, 3)
    before = monitor.others_at_most
    for client in ("a", "b"):
        monitor.idle(client, 2)
    monitor.backlogged("a", 3)
    assert monitor.others_at_most == before > 0


def test_a_gap_is_told_when_it_became_that_large() -> None:
    """An event that leaves the largest gap as it is does not move its instant."""
    monitor = BoundMonitor(COST)
    for client in ("a", "b"):
        monitor.backlogged(client, 0)
    monitor.produced("a", 1, 3)
    monitor.produced("b", 2, 0)
    assert monitor.largest_gap == LiveGap(Fraction(6), "a", "b", 1)


def test_the_lightest_are_so_by_weight_not_by_name() -> None:
    """The a-posteriori bound leaves out the heaviest client, whatever it is called."""
    monitor = BoundMonitor(COST, weights={"a": 5, "b": 2}, quantum=10)
    for client in ("b", "a", "c"):
        monitor.backlogged(client, 0)
    monitor.admitted("b", 1, input_tokens=4, extend=4, charged=4)
    assert monitor.a_posteriori is not None
    assert monitor.a_posteriori.exact == Fraction(4, 1) + Fraction(4, 2) + 20


def test_nothing_seen_costs_nothing() -> None:
    """Before any admission no prompt counts, however dear prompts are."""
    monitor = BoundMonitor(CostWeights(extend=3, output=2), quantum=1)
    assert monitor.a_posteriori is not None
    assert monitor.a_posteriori.exact == 2 * (1 + 1)


def test_a_small_spread_is_not_rounded_up_beforehand() -> None:
    """Where nobody was ahead of anybody, the bound on others is that of what little there was."""
    monitor = BoundMonitor(COST, top=1)
    for client in ("a", "b"):
        monitor.backlogged(client, 0)
    assert monitor.others_at_most == 0
