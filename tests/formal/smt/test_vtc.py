"""VTC: the lemma about queued clients, and what follows for their service."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen

from tests.formal.smt.induction import (
    Step,
    System,
    broken_obligations,
    every_transition_can_happen,
    leads_to_violation,
    prove,
    violation,
)
from tests.formal.smt.logic import (
    NOTHING,
    Formula,
    Term,
    all_of,
    any_flag,
    any_of,
    any_real,
    find,
    follows,
    implies,
    larger,
    negation,
    real,
    refute,
    same,
    whole,
)


@frozen
class Counter:
    """One client: its virtual counter, per unit of weight."""

    c: Term
    h: Term
    """Output that its running requests may still be charged."""
    queued: Formula
    w: Term
    """Service charged in the interval."""
    stays: Formula
    """It has been queued ever since the interval began."""
    c_then: Term


@frozen
class Queue:
    """Two clients, and what everybody else's counters amount to."""

    f: Counter
    g: Counter
    floor: Term
    """The smallest counter of those queued; if nobody is, that of the client that left last."""


u_f, u_g = real("U_f"), real("U_g")
"""What one admission charges, together with all output outstanding right after it, per unit of weight."""


def _any_counter() -> Counter:
    return Counter(
        any_real("c"), any_real("h"), any_flag("queued"), any_real("w"), any_flag("stays"), any_real("c0")
    )


def _any() -> Queue:
    return Queue(_any_counter(), _any_counter(), any_real("floor"))


Move = Callable[[Counter, Term, Term], Step[Counter]]
"""(client, floor, its U) -> step."""


def _arrive(client: Counter, floor: Term, debt: Term) -> Step[Counter]:
    del debt
    after = evolve(client, c=larger(client.c, floor), queued=same(floor, floor))
    return Step(negation(client.queued), after)


def _select(client: Counter, floor: Term, debt: Term) -> Step[Counter]:
    return _served(client, debt, all_of(client.queued, client.c <= floor))


def _served(client: Counter, debt: Term, gate: Formula) -> Step[Counter]:
    p, a, more = any_real("p"), any_real("a"), any_flag("more")
    after = evolve(
        client,
        c=client.c + p,
        w=client.w + p,
        h=client.h + a,
        queued=more,
        stays=all_of(client.stays, more),
    )
    return Step(all_of(gate, p > 0, a >= 0, p + after.h <= debt), after)


def _produce(client: Counter, floor: Term, debt: Term) -> Step[Counter]:
    del floor, debt
    t = any_real("t")
    after = evolve(client, c=client.c + t, w=client.w + t, h=client.h - t)
    return Step(all_of(t > 0, t <= client.h), after)


def _end(client: Counter, floor: Term, debt: Term) -> Step[Counter]:
    del floor, debt
    d = any_real("d")
    return Step(all_of(d > 0, d <= client.h), evolve(client, h=client.h - d))


def _leave(client: Counter, floor: Term, debt: Term) -> Step[Counter]:
    del floor, debt
    nobody = negation(same(client.c, client.c))
    return Step(client.queued, evolve(client, queued=nobody, stays=nobody))


def _moves(own: dict[str, Move]) -> dict[str, Callable[[Queue], Step[Queue]]]:
    moves: dict[str, Callable[[Queue], Step[Queue]]] = {}
    for name, move in own.items():
        moves[f"f {name}"] = lambda queue, move=move: _of_f(queue, move(queue.f, queue.floor, u_f))  # type: ignore[misc]
        moves[f"g {name}"] = lambda queue, move=move: _of_g(queue, move(queue.g, queue.floor, u_g))  # type: ignore[misc]
    return moves


def _of_f(queue: Queue, step: Step[Counter]) -> Step[Queue]:
    return Step(step.needs, evolve(queue, f=step.after))


def _of_g(queue: Queue, step: Step[Counter]) -> Step[Queue]:
    return Step(step.needs, evolve(queue, g=step.after))


def _floor_rises(queue: Queue) -> Step[Queue]:
    """Let others be served, arrive or leave: no counter ever falls, so the smallest one does not either."""
    floor = any_real("floor")
    below = [implies(client.queued, floor <= client.c) for client in (queue.f, queue.g)]
    return Step(all_of(floor > queue.floor, *below), evolve(queue, floor=floor))


def _interval_begins(queue: Queue) -> Step[Queue]:
    f, g = (evolve(client, w=NOTHING, stays=client.queued, c_then=client.c) for client in (queue.f, queue.g))
    return Step(queue.f.queued, evolve(queue, f=f, g=g))


OWN: dict[str, Move] = {
    "arrives": _arrive,
    "is selected": _select,
    "produces": _produce,
    "ends a request": _end,
    "gives up waiting": _leave,
}


def _invariant(queue: Queue) -> dict[str, Formula]:
    f, g, floor = queue.f, queue.g, queue.floor
    both_stay = all_of(f.stays, g.stays)
    not_yet_lifted = g.w + g.h <= u_g
    lifted = g.w <= g.c - f.c_then + u_f + u_g
    return {
        "nobody is far above the floor": all_of(
            f.c + f.h <= floor + u_f, g.c + g.h <= floor + u_g, f.h >= 0, g.h >= 0, f.h <= u_f, g.h <= u_g
        ),
        "queued clients are above the floor": all_of(
            implies(f.queued, f.c >= floor), implies(g.queued, g.c >= floor)
        ),
        "who stays is queued": all_of(implies(f.stays, f.queued), implies(g.stays, g.queued)),
        "service is what a queued counter gained": all_of(
            implies(f.stays, same(f.w, f.c - f.c_then)), implies(g.stays, same(g.w, g.c - g.c_then))
        ),
        "service grows": f.w >= 0,
        "counters were close when both began": implies(
            both_stay, all_of(f.c_then - g.c_then <= u_f, g.c_then - f.c_then <= u_g)
        ),
        "the floor is not far below where f began": implies(f.stays, floor >= f.c_then - u_f),
        "g is served from its hold, or after a lift": implies(f.stays, any_of(not_yet_lifted, lifted)),
    }


def _claim(queue: Queue) -> dict[str, Formula]:
    f, g = queue.f, queue.g
    apart = f.c - g.c
    ahead = g.w - f.w
    return {
        "lemma": implies(all_of(f.queued, g.queued), all_of(apart <= u_f, -apart <= u_g)),
        "both backlogged": implies(all_of(f.stays, g.stays), all_of(ahead <= u_f + u_g, -ahead <= u_f + u_g)),
        "f backlogged, g any": implies(f.stays, ahead <= u_f + 2 * u_g),
    }


def _idle(client: Counter) -> Formula:
    amounts = (client.c, client.h, client.w, client.c_then)
    return all_of(negation(client.queued), negation(client.stays), *(same(x, 0) for x in amounts))


VTC = System[Queue](
    state=_any,
    given=all_of(u_f > 0, u_g > 0),
    example=all_of(same(u_f, 2), same(u_g, 2)),
    start=lambda queue: all_of(_idle(queue.f), _idle(queue.g), same(queue.floor, 0)),
    transitions={
        **_moves(OWN),
        "the floor rises": _floor_rises,
        "an interval begins": _interval_begins,
    },
    invariant=_invariant,
    claim=_claim,
)


def test_vtc_keeps_queued_counters_together_and_service_too() -> None:
    """Queued counters differ by at most U, two backlogged clients by 2U, and anybody leads one by at most 3U.

    Nothing is assumed here about how much the two hold together. (Published for the last case: 4U.)
    """
    prove(VTC)


def _one_memory() -> System[Queue]:
    """Return VTC where f and g share one engine, both of weight 1."""

    def select(own: Counter, other: Counter, floor: Term) -> Step[Counter]:
        step = _select(own, floor, u_f)
        prompt = step.after.c - own.c
        return evolve(step, needs=all_of(step.needs, prompt + step.after.h + other.h <= u_f))

    def invariant(queue: Queue) -> dict[str, Formula]:
        f, g, floor = queue.f, queue.g, queue.floor
        held_on_top = f.c + f.h + g.h <= floor + u_f
        g_is_near = f.c + f.h <= g.c + u_f
        from_its_hold = g.w + g.h <= floor - f.c_then + u_f
        from_near_f = g.w <= g.c - f.c_then + u_f
        return {
            **_invariant(queue),
            "one memory": f.h + g.h <= u_f,
            "what g holds fits on top of f, or g is near f": any_of(held_on_top, g_is_near),
            "so far g was served from either": implies(f.stays, any_of(from_its_hold, from_near_f)),
        }

    return evolve(
        VTC,
        given=all_of(VTC.given, same(u_f, u_g)),
        transitions={
            **VTC.transitions,
            "f is selected": lambda queue: _of_f(queue, select(queue.f, queue.g, queue.floor)),
            "g is selected": lambda queue: _of_g(queue, select(queue.g, queue.f, queue.floor)),
        },
        invariant=invariant,
        claim=lambda queue: {
            **_claim(queue),
            "f backlogged, g any": implies(queue.f.stays, queue.g.w - queue.f.w <= 2 * u_f),
        },
    )


def test_clients_of_one_engine_lead_a_backlogged_client_by_no_more_than_2u() -> None:
    """W_g - W_f <= 2U for any g, half of the published 4U: what g holds is memory that f cannot lead with.

    All that is needed is that U covers one prompt and the outstanding output of BOTH clients. It does in either
    reservation mode: M, and the cap B, are those of the whole engine.
    """
    prove(_one_memory())


def test_every_event_of_vtc_with_one_memory_can_happen() -> None:
    """The proof is not empty."""
    every_transition_can_happen(_one_memory())


def test_without_one_memory_3u_is_needed() -> None:
    """Control: if what g holds took no memory from f, a run would lead a backlogged client by more than 2.9U.

    The floor rises while g holds its output; g produces it, is lifted over the gap, and is served as usual.
    """
    apart = evolve(
        VTC,
        example=all_of(same(u_f, 10), same(u_g, 10)),
        claim=lambda queue: {"f backlogged, g any": implies(queue.f.stays, queue.g.w - queue.f.w <= 29)},
    )
    story = (
        *("g arrives", "g is selected", "the floor rises", "f arrives", "f is selected", "an interval begins"),
        *("g produces", "g arrives", "g is selected", "the floor rises", "g is selected"),
    )
    assert leads_to_violation(apart, story)


def test_less_than_2u_cannot_be_promised_for_vtc() -> None:
    """Control: a run leads a backlogged client by more than 1.9U."""
    tight = evolve(
        _one_memory(),
        example=all_of(same(u_f, 10), same(u_g, 10)),
        claim=lambda queue: {"f backlogged, g any": implies(queue.f.stays, queue.g.w - queue.f.w <= 19)},
    )
    assert violation(tight, deepest=10) is not None


def test_every_event_of_vtc_can_happen() -> None:
    """The proof is not empty."""
    every_transition_can_happen(VTC)


def _broken(**changed: Move) -> System[Queue]:
    own = {**OWN, **{name.replace("_", " "): move for name, move in changed.items()}}
    return evolve(VTC, transitions={**VTC.transitions, **_moves(own)})


def test_offering_the_next_client_after_a_refusal_breaks_the_lemma() -> None:
    """Control: any queued client is selected, not only the one with the smallest counter."""

    def select_anybody(client: Counter, floor: Term, debt: Term) -> Step[Counter]:
        del floor
        return _served(client, debt, client.queued)

    skipping = _broken(is_selected=select_anybody)
    assert broken_obligations(skipping)
    assert violation(skipping) is not None


def test_a_client_that_returns_without_a_lift_breaks_the_lemma() -> None:
    """Control: neither branch of the lift may be missing; an empty queue is no excuse."""

    def come_back(client: Counter, floor: Term, debt: Term) -> Step[Counter]:
        return evolve(_arrive(client, floor, debt), after=evolve(client, queued=same(floor, floor)))

    unlifted = _broken(arrives=come_back)
    assert broken_obligations(unlifted)
    assert violation(unlifted) is not None


# What U is.

w_p, w_q, memory, longest, prompt, output = (whole(name) for name in ("w_p", "w_q", "M", "L", "e", "o"))
_TOKENS = all_of(w_p >= 1, w_q >= 1, prompt >= 1, prompt <= longest, output >= 1)
_published = larger(w_p * longest, w_q * memory)


def test_the_published_debt_is_right_for_cheap_prompts() -> None:
    """w_p*e + w_q*o <= max(w_p*L, w_q*M) when w_q >= w_p and prompt and output share the memory."""
    shared_memory = all_of(_TOKENS, prompt + output <= memory)
    follows(w_p * prompt + w_q * output <= _published, shared_memory, w_q >= w_p)


def test_the_published_debt_is_too_small_for_dear_prompts() -> None:
    """With w_p > w_q it fails: w_p=4, w_q=1, L=200, M=400 reach 1000 where 800 is claimed."""
    shared_memory = all_of(_TOKENS, prompt + output <= memory)
    claim = w_p * prompt + w_q * output <= _published
    example = all_of(same(w_p, 4), same(w_q, 1), same(longest, 200), same(memory, 400))
    assert refute(claim, shared_memory, example) is not None
    reaches = all_of(same(prompt, 200), same(output, 200), same(w_p * prompt + w_q * output, 1000))
    assert find(shared_memory, example, reaches) is not None


def test_a_prefix_cache_changes_nothing_while_resident_prompts_count_against_the_memory() -> None:
    """Each resident token counted once, by whomever it is used: whole prompts may be charged, U stays as it is.

    The last prompt that is charged is resident, and so is all outstanding output: e + o <= M still holds.
    """
    own, others = whole("unshared tokens of the prompt"), whole("tokens that others hold as well")
    resident = all_of(same(prompt, own + others), own >= 0, others >= 0, own + others + output <= memory)
    debt = w_q * memory + larger(w_p - w_q, 0) * longest
    follows(w_p * prompt + w_q * output <= debt, _TOKENS, resident)


def test_a_prompt_that_is_charged_but_not_counted_against_the_memory_needs_a_larger_debt() -> None:
    """Only extend + output <= M: U = w_p*L + w_q*M holds, and max(w_p*L, w_q*M) fails.

    Smallest case: M=2, L=2, w=1,1: one prompt token cached, one computed, one output token: 3 > 2.
    """
    computed = whole("extend")
    counted = all_of(_TOKENS, computed >= 1, computed <= prompt, computed + output <= memory)
    charge = w_p * prompt + w_q * output
    follows(charge <= w_p * longest + w_q * memory, counted)
    unit = all_of(same(w_p, 1), same(w_q, 1))
    follows(charge <= _published, counted, unit, memory + longest <= 3)
    smallest = all_of(same(memory, 2), same(longest, 2))
    assert refute(charge <= _published, counted, unit, smallest) is not None
    assert find(counted, unit, smallest, same(charge, 3)) is not None
