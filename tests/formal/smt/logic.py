"""A small typed face of the SMT solver z3, which has no type annotations of its own.

Everything that the proofs say is said in these words; nothing else in this folder imports z3.
"""

from __future__ import annotations

from itertools import count
from typing import Protocol, cast

import z3  # type: ignore[import-untyped]

_PATIENCE_MS = 20_000
_numbers = count()


class Formula(Protocol):
    """A statement that is true or false."""

    def sexpr(self) -> str:
        """Return it as text."""
        ...


class Term(Protocol):
    """A number: a variable, or what is computed from variables."""

    def sexpr(self) -> str:
        """Return it as text."""
        ...

    def __neg__(self) -> Term: ...
    def __add__(self, other: Term | int) -> Term: ...
    def __radd__(self, other: int) -> Term: ...
    def __sub__(self, other: Term | int) -> Term: ...
    def __rsub__(self, other: int) -> Term: ...
    def __mul__(self, other: Term | int) -> Term: ...
    def __rmul__(self, other: int) -> Term: ...
    def __lt__(self, other: Term | int) -> Formula: ...
    def __le__(self, other: Term | int) -> Formula: ...
    def __gt__(self, other: Term | int) -> Formula: ...
    def __ge__(self, other: Term | int) -> Formula: ...


class Unknown(Exception):  # noqa: N818 (a verdict, like "true" and "false")
    """The solver gave up: neither a proof nor a counterexample."""


def whole(name: str) -> Term:
    """Return an integer variable; the same name is the same variable."""
    return cast("Term", z3.Int(name))


def real(name: str) -> Term:
    """Return a real variable; the same name is the same variable."""
    return cast("Term", z3.Real(name))


def flag(name: str) -> Formula:
    """Return a truth variable; the same name is the same variable."""
    return cast("Formula", z3.Bool(name))


def any_whole(name: str) -> Term:
    """Return an integer variable that nobody else has."""
    return whole(f"{name}!{next(_numbers)}")


def any_real(name: str) -> Term:
    """Return a real variable that nobody else has."""
    return real(f"{name}!{next(_numbers)}")


def any_flag(name: str) -> Formula:
    """Return a truth variable that nobody else has."""
    return flag(f"{name}!{next(_numbers)}")


def number(value: int) -> Term:
    """Return a constant."""
    return cast("Term", z3.IntVal(value))


def all_of(*formulas: Formula) -> Formula:
    """Return the conjunction."""
    return cast("Formula", z3.And(*formulas))


def any_of(*formulas: Formula) -> Formula:
    """Return the disjunction."""
    return cast("Formula", z3.Or(*formulas))


def negation(formula: Formula) -> Formula:
    """Return the opposite."""
    return cast("Formula", z3.Not(formula))


def implies(premise: Formula, conclusion: Formula) -> Formula:
    """Return "if premise then conclusion"."""
    return cast("Formula", z3.Implies(premise, conclusion))


def same(first: Term | Formula, second: Term | Formula | int | bool) -> Formula:  # noqa: FBT001
    """Return "both are equal"."""
    return cast("Formula", first == second)


def either(condition: Formula, then: Term | int, otherwise: Term | int) -> Term:
    """Return one number or the other."""
    return cast("Term", z3.If(condition, then, otherwise))


def larger(first: Term, second: Term | int) -> Term:
    """Return the maximum."""
    return either(first >= second, first, second)


def smaller(first: Term, second: Term | int) -> Term:
    """Return the minimum."""
    return either(first <= second, first, second)


ALWAYS = all_of()
NOTHING = number(0)


def find(*formulas: Formula) -> dict[str, str] | None:
    """Return values under which all formulas hold, or None when there are none.

    Raises:
        Unknown: the solver cannot tell.
    """
    solver = z3.Solver()
    solver.set("timeout", _PATIENCE_MS)
    solver.add(*formulas)
    verdict = solver.check()
    if verdict == z3.unknown:
        raise Unknown(str(solver.reason_unknown()))
    if verdict == z3.unsat:
        return None
    model = solver.model()
    return {str(name): str(model[name]) for name in model.decls()}


def follows(claim: Formula, *given: Formula) -> None:
    """Prove that a claim follows from what is given, and that this is possible at all.

    Raises:
        AssertionError: it does not follow, or follows from a contradiction; the message says which.
    """
    assert find(*given, claim) is not None, "what is given contradicts itself"
    counterexample = refute(claim, *given)
    assert counterexample is None, f"it does not follow: {counterexample}"


def refute(claim: Formula, *given: Formula) -> dict[str, str] | None:
    """Return a counterexample to "claim follows from what is given", or None: then it is proved."""
    return find(*given, negation(claim))
