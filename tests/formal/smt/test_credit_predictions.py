"""The credit gate with predicted instead of longest outputs: what wrong predictions cost."""

from __future__ import annotations

from attrs import evolve, frozen

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.dlpm import DLPM
from fairprefix.core.request import Request
from tests.formal.smt.induction import Step, System, every_transition_can_happen, prove, violation
from tests.formal.smt.logic import (
    Formula,
    Term,
    all_of,
    any_of,
    any_real,
    follows,
    larger,
    real,
    refute,
    same,
)

names = ("Q", "S", "U", "V_under", "V_over", "V_one")
quantum, slack, request, under, over, error = (real(name) for name in names)
"""U: the most that one request costs, predicted or true. V_under: w_q*(N - 1)*e-, V_over: w_q*N*e+,
V_one: w_q*e-."""


@frozen
class Predicted:
    """One client whose running requests hold what they are predicted to produce."""

    q: Term
    h: Term
    """Predicted output that is still to come."""
    overrun: Term
    """Output beyond the predictions of requests that still run; it lowers what the gate takes for h."""
    unforeseen: Term
    """How much further their outputs, and prompts that were estimated, may exceed what was taken for them."""
    refundable: Term
    """Predictions that were charged and may turn out too large."""


def _any() -> Predicted:
    return Predicted(*(any_real(name) for name in ("q", "h", "overrun", "unforeseen", "refundable")))


def _gate_is_open(client: Predicted) -> Formula:
    return client.q - larger(client.h - client.overrun, 0) > 0


def _admit(client: Predicted) -> Step[Predicted]:
    c, a, e, o = any_real("c"), any_real("a"), any_real("e"), any_real("o")
    after = evolve(
        client,
        q=client.q - c,
        h=client.h + a,
        unforeseen=client.unforeseen + e,
        refundable=client.refundable + o,
    )
    return Step(
        all_of(
            _gate_is_open(client),
            *(c >= 0, a >= 0, e >= 0, e <= error, c + a + e <= request, o >= 0, o <= c),
            client.overrun + client.unforeseen <= under,  # N - 1 others run at most
            after.refundable <= over,
        ),
        after,
    )


def _produce(client: Predicted) -> Step[Predicted]:
    t = any_real("t")
    return Step(all_of(t > 0, t <= client.h), evolve(client, q=client.q - t, h=client.h - t))


def _exceed(client: Predicted) -> Step[Predicted]:
    t = any_real("t")
    after = evolve(client, q=client.q - t, overrun=client.overrun + t, unforeseen=client.unforeseen - t)
    return Step(all_of(t > 0, t <= client.unforeseen), after)


def _prompt_was_longer(client: Predicted) -> Step[Predicted]:
    """A prompt that was estimated at its admission is charged in full: nothing that is held becomes less."""
    t = any_real("t")
    after = evolve(client, q=client.q - t, unforeseen=client.unforeseen - t)
    return Step(all_of(t > 0, t <= client.unforeseen), after)


def _end(client: Predicted) -> Step[Predicted]:
    d, v, e = any_real("d"), any_real("v"), any_real("e")
    after = evolve(client, h=client.h - d, overrun=client.overrun - v, unforeseen=client.unforeseen - e)
    return Step(
        all_of(
            *(d >= 0, d <= client.h, v >= 0, v <= client.overrun),
            *(e >= 0, e <= client.unforeseen, d + v + e > 0),
        ),
        after,
    )


def _settle(client: Predicted) -> Step[Predicted]:
    x = any_real("x")
    after = evolve(client, q=client.q + x, refundable=client.refundable - x)
    return Step(all_of(x > 0, x <= client.refundable), after)


def _refill(client: Predicted) -> Step[Predicted]:
    held = larger(client.h - client.overrun, 0)
    due = any_of(client.q <= 0, all_of(client.q - held <= 0, client.q <= slack))
    return Step(due, evolve(client, q=client.q + quantum))


PREDICTED = System[Predicted](
    state=_any,
    given=all_of(quantum > 0, slack >= 0, request > 0, under >= 0, over >= 0, error >= 0),
    example=all_of(
        *(same(quantum, 2), same(slack, 1), same(request, 4), same(under, 2), same(over, 1), same(error, 2))
    ),
    start=lambda client: all_of(
        *(same(x, 0) for x in (client.q, client.h, client.overrun, client.unforeseen, client.refundable))
    ),
    transitions={
        "is admitted": _admit,
        "produces as predicted": _produce,
        "produces more": _exceed,
        "is charged for a longer prompt": _prompt_was_longer,
        "ends a request": _end,
        "is given back a prediction": _settle,
        "is refilled": _refill,
    },
    invariant=lambda client: {
        "amounts": all_of(
            *(client.h >= 0, client.overrun >= 0, client.unforeseen >= 0),
            *(client.refundable >= 0, client.refundable <= over),
        ),
        "errors": client.overrun + client.unforeseen <= under + error,
        "lowest": client.q - client.h - client.unforeseen > -(request + under),
        "highest": client.q + client.refundable <= quantum + slack + over,
    },
    claim=lambda client: {
        "lowest": client.q > -(request + under),
        "highest": client.q <= quantum + slack + over,
    },
)


def test_wrong_predictions_widen_the_counters_range_by_their_errors() -> None:
    """-(U + w_q*(N - 1)*e-) < q <= Q + S + w_q*N*e+, the latter only where predictions are charged."""
    prove(PREDICTED)


def test_every_event_with_predictions_can_happen() -> None:
    """The proof is not empty."""
    every_transition_can_happen(PREDICTED)


def test_too_small_predictions_cost_nothing_less_than_their_errors() -> None:
    """Control: with outputs beyond the predictions the range without w_q*(N - 1)*e- is left."""
    assert violation(evolve(PREDICTED, claim=lambda client: {"lowest": client.q > -request})) is not None


def test_an_output_beyond_the_longest_one_is_not_covered() -> None:
    """Control: were the new request's own error not counted in U, the range would be left as well."""

    def admit(client: Predicted) -> Step[Predicted]:
        c, a, e = any_real("c"), any_real("a"), any_real("e")
        after = evolve(client, q=client.q - c, h=client.h + a, unforeseen=client.unforeseen + e)
        needs = (_gate_is_open(client), c >= 0, a >= 0, c + a <= request, e >= 0, e <= error)
        return Step(all_of(*needs, client.overrun + client.unforeseen <= under), after)

    assert violation(evolve(PREDICTED, transitions={**PREDICTED.transitions, "is admitted": admit})) is not None


def test_the_shipping_policy_reaches_the_range() -> None:
    """N=2, L=1, O=3, w=1,1, Q=1, S=0, e-=2: q falls to -5, where -(U + (N - 1)*e-) = -6."""
    policy = make_policy(PolicyConfig(policy="dlpm", gate="credit", quantum=1, slack=0, cost_output=1))
    for id in ("a1", "a2"):
        policy.arrive(Request(id, "a", 1, 3))
    policy.take("a1", extend=1, reserve=1)  # predicted: 1, true: 3
    policy.produced({"a": 1})
    assert isinstance(policy, DLPM)
    assert policy.deficit("a") == -1
    offered = policy.peek()
    assert offered is not None
    policy.take(offered.id, extend=1, reserve=1)
    policy.produced({"a": 2 + 3})
    assert policy.deficit("a") == -5


def test_too_large_predictions_raise_the_counter_only_where_they_are_charged() -> None:
    """Predictions that are only held, not charged, leave q <= Q + S as it is: e+ costs nothing then."""
    given = all_of(PREDICTED.given, same(over, 0))
    prove(
        evolve(
            PREDICTED,
            given=given,
            example=all_of(given, same(under, 1), same(error, 1)),
            claim=lambda client: {
                "highest": client.q <= quantum + slack,
            },
        )
    )


def test_the_surcharge_on_an_interval_counts_both_errors_of_both_clients_once() -> None:
    """Two clients drift twice V_under + V_over further apart over an interval, half of that from a fresh start."""
    q_f, q_g, then_f, then_g, granted = (real(name) for name in ("q_f", "q_g", "q_f then", "q_g then", "granted"))
    drift = (then_f + granted - q_f) - (then_g + granted - q_g)
    ranges = [all_of(q > -(request + under), q <= quantum + slack + over) for q in (q_f, q_g, then_f, then_g)]
    gap = 2 * (request + quantum + slack)
    follows(drift < gap + 2 * (under + over), *ranges)
    assert refute(drift < gap + under + over, *ranges, over + under > 0) is not None
    at_first = [same(then_f, 0), same(then_g, 0)]
    follows(drift < request + quantum + slack + under + over, *ranges, *at_first)
