"""Why mutants that survive are equivalent: nothing that a caller can see, or is promised, tells them apart."""

from __future__ import annotations

from attrs import frozen


@frozen
class Reason:
    """One reason, and the survivors that it holds for."""

    where: str
    """The function, as "module.function" or "module.Class.method"; `*` stands for anything."""
    changed: str
    """A regular expression that is found in what the mutant says instead, or in what it leaves out."""
    why: str


REASONS: tuple[Reason, ...] = ()
