"""Proof by an inductive invariant, and what keeps such proofs honest.

A *system* is a start, some transitions, and a claim about every state that can be reached. The claim is proved
when an invariant holds at the start, is kept by every transition, and implies the claim; every parameter is
symbolic, so that this covers all engines, costs and quanta at once.

A proof about a system in which nothing can happen is worthless: `every_transition_can_happen` looks for a run
to each transition. And the method has to be able to say no: `find_run` returns a run into a violated claim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import attrs
from attrs import define, frozen

from tests.formal.smt.logic import Formula, Term, all_of, any_of, any_whole, find, negation, refute, same

S = TypeVar("S")

DEEPEST = 8
"""Steps of the longest run that is searched for."""


@frozen
class Step(Generic[S]):
    """What a transition does, when it may: `needs` may speak about new variables, the transition's inputs."""

    needs: Formula
    after: S


@frozen(kw_only=True)
class System(Generic[S]):
    """A transition system with symbolic parameters, and a claim about all of its reachable states."""

    state: Callable[[], S]
    """Returns a state of variables that nobody else has: an attrs class of terms, formulas or such classes."""
    given: Formula
    """What is assumed about the parameters."""
    example: Formula
    """Parameters that satisfy `given`, small enough to search for runs."""
    start: Callable[[S], Formula]
    transitions: Mapping[str, Callable[[S], Step[S]]]
    invariant: Callable[[S], Mapping[str, Formula]]
    claim: Callable[[S], Mapping[str, Formula]]


@define
class Tally:
    """How much was proved, over all tests of a session."""

    obligations: int = 0
    runs: int = 0


TALLY = Tally()


def prove(system: System[Any]) -> None:
    """Prove the claim, one obligation after the other.

    Raises:
        AssertionError: an obligation does not hold; its name and a counterexample are the message.
    """
    for name, counterexample in obligations(system):
        assert counterexample is None, f"{name}: {counterexample}"
        TALLY.obligations += 1


def obligations(system: System[S]) -> Iterator[tuple[str, dict[str, str] | None]]:
    """Yield each obligation's name and a counterexample to it, if there is one."""
    before = system.state()
    invariant = all_of(*system.invariant(before).values())
    for part, formula in system.invariant(before).items():
        yield f"start: {part}", refute(formula, system.given, system.start(before))
    for transition, take in system.transitions.items():
        step = take(before)
        for part, formula in system.invariant(step.after).items():
            yield f"{transition}: {part}", refute(formula, system.given, invariant, step.needs)
    for part, formula in system.claim(before).items():
        yield f"claim: {part}", refute(formula, system.given, invariant)


def broken_obligations(system: System[Any]) -> list[str]:
    """Return the names of the obligations that do not hold."""
    return [name for name, counterexample in obligations(system) if counterexample is not None]


def every_transition_can_happen(system: System[Any]) -> None:
    """Show a run from the start to each transition, with the parameters of the example.

    Raises:
        AssertionError: no run of at most `DEEPEST` steps leads to a transition.
    """
    assert find(system.given, system.example) is not None, "the example contradicts what is given"
    for name, take in system.transitions.items():
        run = find_run(system, lambda state, take=take: take(state).needs)  # type: ignore[misc]
        assert run is not None, f"{name!r} never happens"
        TALLY.runs += 1


def violation(system: System[S], deepest: int = DEEPEST) -> list[str] | None:
    """Return the transitions of a shortest run into a violated claim, or None when there is none that short."""
    return find_run(system, lambda state: negation(all_of(*system.claim(state).values())), deepest)


def find_run(system: System[S], goal: Callable[[S], Formula], deepest: int = DEEPEST) -> list[str] | None:
    """Return the transitions of a shortest run from the start into a state in which `goal` is possible."""
    names = list(system.transitions)
    states: list[S] = [system.state()]
    choices: list[Term] = []
    path = [system.given, system.example, system.start(states[0])]
    for _ in range(deepest + 1):
        found = find(*path, goal(states[-1]))
        if found is not None:
            return [names[int(found[choice.sexpr()])] for choice in choices]
        choices.append(any_whole("choice"))
        states.append(system.state())
        path.append(any_of(*(_taken(system, states, choices[-1], j) for j in range(len(names)))))
    return None


def leads_to_violation(system: System[S], names: Sequence[str]) -> bool:
    """Return whether the named transitions, one after the other, can lead from the start into a violated claim."""
    state = system.state()
    path = [system.given, system.example, system.start(state)]
    for name in names:
        step = system.transitions[name](state)
        path.append(step.needs)
        state = step.after
    return find(*path, negation(all_of(*system.claim(state).values()))) is not None


def _taken(system: System[S], states: list[S], choice: Term, number: int) -> Formula:
    step = list(system.transitions.values())[number](states[-2])
    moves = zip(_parts(states[-1]), _parts(step.after), strict=True)
    return all_of(same(choice, number), step.needs, *(same(new, old) for new, old in moves))


def _parts(state: Any) -> list[Any]:  # noqa: ANN401 (a term, or an attrs class of such)
    """Return the variables of a state, those of its parts included."""
    if not attrs.has(type(state)):
        return [state]
    return [part for field in attrs.fields(type(state)) for part in _parts(getattr(state, field.name))]
