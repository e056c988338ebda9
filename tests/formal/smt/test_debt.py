"""What one client can owe: under full reservation, and on present occupancy."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce

from tests.formal.smt.logic import Term, all_of, follows, larger, same, smaller, whole

# What U is.

w_e, w_q, memory, longest = whole("w_e"), whole("w_q"), whole("M"), whole("L")
extend, output = whole("e"), whole("o")
_TOKENS = all_of(w_e >= 0, w_q >= 0, extend >= 0, output >= 0, extend <= longest)


def test_a_prompt_and_its_output_share_the_memory_under_full_reservation() -> None:
    """w_e*e + w_q*o <= w_q*M + max(0, w_e - w_q)*L whenever e <= L and e + o <= M: the prompt counts once."""
    debt = w_q * memory + larger(w_e - w_q, 0) * longest
    follows(w_e * extend + w_q * output <= debt, _TOKENS, extend + output <= memory)


def test_the_papers_debt_is_never_smaller_under_full_reservation() -> None:
    """w_e*L + w_q*M counts the prompt twice, so that it is correct there, but not exact."""
    debt = w_q * memory + larger(w_e - w_q, 0) * longest
    follows(debt <= w_e * longest + w_q * memory, w_e >= 0, w_q >= 0, longest >= 0, memory >= 0)


def test_lengths_bound_costs() -> None:
    """w_e*e <= w_e*L: the proofs may speak of costs where the algorithm speaks of tokens."""
    follows(w_e * extend <= w_e * longest, _TOKENS)


def test_requests_that_advance_together_hold_no_more_output_than_the_harmonic_cap() -> None:
    """Four requests, any M and N: outputs sum up to at most the sum over t of min(N, M // (t + 1)).

    The requests that still produce their t-th token all occupy t + 1 tokens or more at that moment.
    """
    running, longest_output = whole("N"), 5
    lengths = [whole(f"o_{i}") for i in range(4)]
    served = all_of(*(all_of(length >= 0, length <= longest_output) for length in lengths))
    counts = [whole(f"n_{t}") for t in range(1, longest_output + 1)]
    caps = [whole(f"floor_{t}") for t in range(1, longest_output + 1)]
    given = [served]
    for t, (number, cap) in enumerate(zip(counts, caps, strict=True), start=1):
        still = [smaller(larger(length - (t - 1), 0), 1 + 0 * length) for length in lengths]
        given += [same(number, _total(still)), number <= running, number * (t + 1) <= memory]
        given += [cap * (t + 1) <= memory, memory < (cap + 1) * (t + 1)]
    cap_total = _total([smaller(running, cap) for cap in caps])
    follows(_total(lengths) <= cap_total, *given)


def _total(terms: Sequence[Term]) -> Term:
    return reduce(operator.add, terms)
