"""Claims about the ledger: what it reports is what happened, and its gaps are the true ones."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from fairprefix.core.cost import CostWeights
from fairprefix.core.errors import ConfigError, HostError
from fairprefix.core.ledger import Ledger, Service, View, jain_index

COST = CostWeights(extend=1, output=2)
VIEWS = list(View)


@frozen
class Event:
    """One thing that happens to a client, `wait` units of time after the event before it."""

    kind: str
    client: str
    wait: int
    tokens: int

    def units(self, view: View) -> int:
        """Service units of this event: prompts are 3 tokens longer than what is computed of them."""
        if self.kind == "produced":
            return COST.output * self.tokens
        if self.kind != "admitted":
            return 0
        charged = {View.ACTUAL: self.tokens, View.CHARGED: 5 * self.tokens, View.CLIENT: self.tokens + 3}
        return charged[view]


def play(events: list[Event], weights: dict[str, int]) -> Ledger:
    """Report the events to a new ledger."""
    ledger = Ledger(COST, weights)
    at = 0
    for event in events:
        at += event.wait
        if event.kind == "backlogged":
            ledger.backlogged(event.client, at)
        elif event.kind == "idle":
            ledger.idle(event.client, at)
        elif event.kind == "produced":
            ledger.produced(event.client, at, event.tokens)
        else:
            tokens = event.tokens
            ledger.admitted(event.client, at, input_tokens=tokens + 3, extend=tokens, charged=5 * tokens)
    return ledger


def true_gap(events: list[Event], weights: dict[str, int], view: View, pair: tuple[str, str]) -> Fraction:
    """Try every interval of the history in which both clients stay backlogged."""
    first, second = pair
    largest = Fraction(0)
    for start in range(len(events) + 1):
        present = backlogged_after(events[:start])
        gap = Fraction(0)
        for event in events[start:]:
            if not {first, second} <= present or (event.kind == "idle" and event.client in pair):
                break
            if event.client == first:
                gap += Fraction(event.units(view), weights[first])
            elif event.client == second:
                gap -= Fraction(event.units(view), weights[second])
            largest = max(largest, abs(gap))
    return largest


def backlogged_after(events: list[Event]) -> set[str]:
    """Return who is backlogged once these events have happened."""
    present: set[str] = set()
    for event in events:
        if event.kind == "backlogged":
            present.add(event.client)
        elif event.kind == "idle":
            present.discard(event.client)
    return present


def histories(clients: int) -> st.SearchStrategy[list[Event]]:
    """Histories in which clients come and go, and are mostly served."""
    kinds = ["backlogged", "backlogged", "idle", "admitted", "produced", "produced", "produced"]
    event = st.builds(
        Event,
        kind=st.sampled_from(kinds),
        client=st.sampled_from([f"c{number}" for number in range(clients)]),
        wait=st.integers(0, 2),
        tokens=st.integers(0, 9),
    )
    everybody = [Event("backlogged", f"c{number}", 0, 0) for number in range(clients)]
    return st.builds(list.__add__, st.sampled_from([[], everybody]), st.lists(event, max_size=40))


@st.composite
def weighted_histories(draw: st.DrawFn) -> tuple[list[Event], dict[str, int]]:
    """A history of two to five clients, and a weight for each."""
    clients = draw(st.integers(2, 5))
    weights = {f"c{number}": draw(st.integers(1, 4)) for number in range(clients)}
    return draw(histories(clients)), weights


@given(weighted_histories(), st.sampled_from(VIEWS))
def test_the_largest_gap_is_the_largest_over_all_intervals_and_pairs(
    history: tuple[list[Event], dict[str, int]], view: View
) -> None:
    """The gap found in linear time is what trying every interval of every pair finds."""
    events, weights = history
    gap = play(events, weights).largest_gap(view)
    brute = max([true_gap(events, weights, view, pair) for pair in combinations(weights, 2)])
    assert gap.exact_value == brute
    assert gap.value == -(-brute.numerator // brute.denominator)
    assert gap.others_at_most == 0
    if gap.first is not None and gap.second is not None:
        assert true_gap(events, weights, view, (gap.first, gap.second)) == brute
    else:
        assert brute == 0


@given(weighted_histories(), st.sampled_from(VIEWS), st.integers(0, 4))
def test_a_pair_that_was_not_examined_is_never_wider_than_the_bound_on_the_others(
    history: tuple[list[Event], dict[str, int]], view: View, top: int
) -> None:
    """With few clients examined, the exact value or the bound on the others covers every pair."""
    events, weights = history
    ledger = play(events, weights)
    gap = ledger.largest_gap(view, top)
    exact = ledger.largest_gap(view)
    assert gap.exact_value <= exact.exact_value <= max(gap.exact_value, Fraction(gap.others_at_most))
    if top < 2:
        assert gap.first is None
        assert gap.exact_value == 0


@given(weighted_histories(), st.sampled_from(VIEWS))
def test_the_gap_lies_where_it_is_said_to(history: tuple[list[Event], dict[str, int]], view: View) -> None:
    """Whoever is called first is ahead, over an interval that lies in a backlogged interval of both."""
    events, weights = history
    gap = play(events, weights).largest_gap(view)
    if gap.first is None or gap.second is None:
        return
    received = {gap.first: Fraction(0), gap.second: Fraction(0)}
    at = 0
    for event in events:
        at += event.wait
        if event.client in received and gap.start <= at <= gap.end:
            received[event.client] += Fraction(event.units(view), weights[event.client])
    assert gap.start <= gap.end
    # Charges at the very first and last instant may lie outside; the leader's own all count.
    assert received[gap.first] >= gap.exact_value


def test_an_interval_may_begin_and_end_between_two_admissions_of_one_pass() -> None:
    """Admissions at the same instant are separate steps, in the order in which they are reported."""
    ledger = Ledger()
    for client in ("ann", "bob"):
        ledger.backlogged(client, 7)
    for client, extend in (("ann", 5), ("bob", 9), ("ann", 4)):
        ledger.admitted(client, 7, input_tokens=extend, extend=extend, charged=extend)
    gap = ledger.largest_gap()
    assert (gap.value, gap.first, gap.second, gap.start, gap.end) == (9, "bob", "ann", 7, 7)


def test_only_time_in_which_both_are_backlogged_makes_a_gap() -> None:
    """Output of a client with nothing queued is service, but opens no gap."""
    ledger = Ledger()
    ledger.backlogged("ann", 0)
    ledger.produced("ann", 1, 100)
    ledger.backlogged("bob", 2)
    ledger.produced("ann", 3, 10)
    ledger.idle("bob", 4)
    ledger.produced("bob", 5, 50)
    ledger.produced("ann", 6, 100)
    gap = ledger.largest_gap()
    assert (gap.value, gap.first, gap.second, gap.start, gap.end) == (20, "ann", "bob", 2, 3)
    assert ledger.service("bob").output == 50


def test_clients_that_take_turns_have_no_gap() -> None:
    """Backlogged intervals that do not overlap compare nothing; only carl, who stays, can be compared."""
    ledger = Ledger()
    for client, at in (("ann", 0), ("bob", 3), ("ann", 6)):
        ledger.backlogged(client, at)
        ledger.backlogged("carl", at)
        ledger.produced(client, at + 1, 50)
        ledger.produced("carl", at + 2, 50)
        ledger.idle(client, at + 2)
    gap = ledger.largest_gap()
    assert gap.exact_value == 100
    assert "carl" in {gap.first, gap.second}


def test_a_gap_in_a_later_stay_is_found() -> None:
    """A client that leaves and returns is compared in each of its backlogged intervals, never across them."""
    ledger = Ledger()
    ledger.backlogged("ann", 0)
    for at, tokens in ((1, 10), (4, 30), (7, 20)):
        ledger.backlogged("bob", at)
        ledger.produced("ann", at + 1, tokens)
        ledger.idle("bob", at + 2)
    gap = ledger.largest_gap()
    assert (gap.value, gap.first, gap.second, gap.start, gap.end) == (60, "ann", "bob", 4, 5)


def test_a_fractional_gap_is_rounded_up() -> None:
    """The whole value is never below the exact one."""
    ledger = Ledger(weights={"ann": 3}, default_weight=2)
    ledger.backlogged("ann", 0)
    ledger.backlogged("bob", 0)
    ledger.produced("ann", 1, 2)
    ledger.idle("ann", 1)
    gap = ledger.largest_gap()
    assert gap.exact_value == Fraction(4, 3)
    assert gap.value == 2


def test_without_two_backlogged_clients_there_is_no_gap() -> None:
    """A lone client has no gap, and an empty ledger answers as well."""
    empty, lone = Ledger(), Ledger()
    lone.backlogged("ann", 0)
    lone.produced("ann", 1, 5)
    for ledger in (empty, lone):
        gap = ledger.largest_gap(top=0)
        assert (gap.value, gap.first, gap.second, gap.others_at_most) == (0, None, None, 0)


def test_each_view_weighs_the_prompt_in_its_own_way() -> None:
    """Actual service counts computed tokens, the client sees its whole prompt, the policy what it charged."""
    ledger = Ledger(CostWeights(extend=3, output=2))
    ledger.admitted("ann", 0, input_tokens=10, extend=4, charged=7)
    ledger.produced("ann", 1, 5)
    ledger.recomputed("ann", 2, 6)
    service = ledger.service("ann")
    assert service == Service(input_tokens=10, extend=4, output=5, recomputed=6, requests=1, charged=7)
    units = [service.units(view, ledger.cost) for view in (View.ACTUAL, View.CHARGED, View.CLIENT)]
    assert units == [22, 17, 40]
    assert ledger.clients() == ("ann",)


def test_backlogged_intervals_are_half_open_and_reports_idempotent() -> None:
    """Saying twice that a client is backlogged, or idle, changes nothing; an open interval ends now."""
    ledger = Ledger()
    ledger.idle("ann", -3)
    ledger.backlogged("ann", 1)
    ledger.backlogged("ann", 2)
    ledger.idle("ann", 4)
    ledger.idle("ann", 5)
    assert ledger.backlogged_intervals("ann") == [(1, 4)]
    ledger.backlogged("ann", 6)
    ledger.idle("ann", 6)
    ledger.backlogged("ann", 6)
    assert ledger.backlogged_intervals("ann") == [(1, 4)]
    ledger.recomputed("bob", 9, 1)
    assert ledger.backlogged_intervals("ann") == [(1, 4), (6, 9)]
    assert ledger.backlogged_intervals("bob") == []


def test_jain_counts_only_what_was_received_while_all_were_backlogged() -> None:
    """Service before, between and after is left out; the rest gives (sum x)^2 / (n * sum x^2)."""
    ledger = Ledger()
    ledger.backlogged("ann", 0)
    ledger.produced("ann", 5, 1000)
    ledger.backlogged("bob", 10)
    ledger.produced("ann", 11, 1)
    ledger.admitted("bob", 12, input_tokens=8, extend=6, charged=2)
    ledger.idle("bob", 13)
    ledger.produced("bob", 14, 1000)
    ledger.idle("ann", 15)
    ledger.backlogged("bob", 16)
    ledger.backlogged("ann", 17)
    ledger.produced("ann", 19, 1)
    assert ledger.all_backlogged_time() == 3 + 2
    assert ledger.all_backlogged_services() == {"ann": 4, "bob": 6}
    assert ledger.all_backlogged_service("bob", View.CLIENT) == 8
    assert ledger.jain() == Fraction(100, 2 * 52)
    assert ledger.jain(View.CLIENT) == Fraction(144, 2 * 80)


def test_jain_divides_by_the_weights() -> None:
    """Clients served in proportion to their weights are treated with perfect fairness."""
    ledger = Ledger(weights={"ann": 3})
    ledger.backlogged("ann", 0)
    ledger.backlogged("bob", 0)
    ledger.produced("ann", 1, 6)
    ledger.produced("bob", 1, 2)
    assert ledger.jain() == 1


def test_a_client_never_seen_before_ends_the_time_in_which_all_were_backlogged() -> None:
    """With a newcomer, nobody can say that all clients were backlogged until now."""
    ledger = Ledger()
    ledger.backlogged("ann", 0)
    ledger.produced("ann", 2, 1)
    ledger.idle("ann", 3)
    ledger.backlogged("ann", 4)
    ledger.produced("ann", 5, 1)
    assert ledger.all_backlogged_time() == 3 + 1
    assert ledger.jain() == 1
    ledger.produced("bob", 6, 1)
    assert ledger.all_backlogged_time() == 0
    assert ledger.jain() is None
    ledger.backlogged("bob", 7)
    ledger.recomputed("bob", 8, 1)
    assert ledger.all_backlogged_time() == 1
    assert ledger.jain() is None


def test_jain_index_is_one_for_equals_and_one_in_n_for_a_monopoly() -> None:
    """The extremes of the index, and the cases in which it means nothing."""
    assert jain_index([4, 4, 4]) == 1
    assert jain_index([0, Fraction(7, 2), 0]) == Fraction(1, 3)
    assert jain_index([]) is None
    assert jain_index([0, 0]) is None
    with pytest.raises(ConfigError, match="Jain"):
        jain_index([1, -1])


def test_time_that_goes_backwards_is_refused_and_changes_nothing() -> None:
    """An event before the last one is the host's error."""
    ledger = Ledger()
    ledger.produced("ann", 5, 1)
    with pytest.raises(HostError, match="an event at 4 after one at 5"):
        ledger.produced("bob", 4, 1)
    assert ledger.clients() == ("ann",)


@pytest.mark.parametrize("field", ["input_tokens", "extend", "charged"])
def test_a_negative_admission_is_refused(field: str) -> None:
    """The message names the figure that is wrong."""
    figures = {"input_tokens": 1, "extend": 1, "charged": 1, field: -1}
    with pytest.raises(ConfigError, match=field):
        Ledger().admitted("ann", 0, **figures)


def test_other_negative_figures_are_refused() -> None:
    """Tokens, `top` and weights have a smallest value."""
    ledger = Ledger()
    with pytest.raises(ConfigError, match="produced: tokens = -1"):
        ledger.produced("ann", 0, -1)
    with pytest.raises(ConfigError, match="recomputed: tokens = -1"):
        ledger.recomputed("ann", 0, -1)
    with pytest.raises(ConfigError, match="top = -1"):
        ledger.largest_gap(top=-1)
    with pytest.raises(ConfigError, match="default_weight = 0"):
        Ledger(default_weight=0)
    with pytest.raises(ConfigError, match=r"weights\['ann'\] = 0"):
        Ledger(weights={"ann": 0})


def test_a_client_that_was_never_seen_is_unknown() -> None:
    """A mistyped name is an error with a suggestion, not a client without service."""
    ledger = Ledger()
    ledger.backlogged("annabel", 0)
    for query in (ledger.service, ledger.backlogged_intervals, ledger.all_backlogged_service):
        with pytest.raises(HostError, match="did you mean 'annabel'"):
            query("anabel")


def test_later_changes_of_the_mapping_do_not_change_the_weights() -> None:
    """Weights are fixed when the ledger is made."""
    weights = {"ann": 2}
    ledger = Ledger(weights=weights)
    weights["ann"] = 0
    assert ledger.weights == {"ann": 2}


def test_service_adds_up_over_many_events() -> None:
    """Each figure of a client is the sum over all of its events, nothing at all among them."""
    ledger = Ledger()
    for at in (0, 1):
        ledger.admitted("ann", at, input_tokens=10, extend=4, charged=7)
        ledger.produced("ann", at, 5)
        ledger.recomputed("ann", at, 6)
        ledger.admitted("ann", at, input_tokens=0, extend=0, charged=0)
        ledger.produced("ann", at, 0)
        ledger.recomputed("ann", at, 0)
    expected = Service(input_tokens=20, extend=8, output=10, recomputed=12, requests=4, charged=14)
    assert ledger.service("ann") == expected


@pytest.mark.parametrize("field", ["input_tokens", "extend", "charged"])
def test_a_refused_admission_names_its_field_first(field: str) -> None:
    """The message begins with the call and the field, so that it is found in a log."""
    figures = {"input_tokens": 1, "extend": 1, "charged": 1, field: -1}
    with pytest.raises(ConfigError, match=f"^admitted: {field} = -1 is not valid"):
        Ledger().admitted("ann", 0, **figures)


def test_without_a_gap_there_is_no_place_for_it() -> None:
    """Start and end of a gap that does not exist are 0, whenever the clock began."""
    ledger = Ledger()
    for client in ("ann", "bob"):
        ledger.backlogged(client, 50)
    gap = ledger.largest_gap()
    assert (gap.start, gap.end) == (0, 0)


def test_thirty_two_clients_are_looked_at_exactly_unless_said() -> None:
    """With 33 backlogged clients one of them is left to the upper bound, with 32 none."""
    for clients, left_out in ((32, False), (33, True)):
        ledger = Ledger()
        for n in range(clients):
            ledger.backlogged(f"c{n}", 0)
        for n in range(clients):
            ledger.produced(f"c{n}", 1, 5 + n)
        assert (ledger.largest_gap().others_at_most > 0) == left_out


def test_a_stay_that_began_before_any_clock_takes_no_time() -> None:
    """An open interval ends now, which may be instant 0."""
    ledger = Ledger()
    ledger.backlogged("ann", 0)
    assert ledger.backlogged_intervals("ann") == []


def test_each_view_has_its_own_service_while_all_are_backlogged() -> None:
    """What one client received is counted in the view that is asked for."""
    ledger = Ledger()
    ledger.backlogged("ann", 0)
    ledger.admitted("ann", 1, input_tokens=10, extend=4, charged=7)
    assert [ledger.all_backlogged_service("ann", view) for view in (View.ACTUAL, View.CHARGED, View.CLIENT)] == [
        4,
        7,
        10,
    ]
    assert ledger.largest_gap(View.CHARGED).value == 0


def test_a_stretch_in_which_all_are_backlogged_ends_with_the_history() -> None:
    """Service after the last event of a stretch that is still open counts up to now."""
    ledger = Ledger()
    ledger.backlogged("ann", 0)
    ledger.backlogged("bob", 1)
    ledger.produced("ann", 2, 3)
    ledger.produced("bob", 3, 4)
    assert ledger.all_backlogged_services() == {"ann": 6, "bob": 8}
