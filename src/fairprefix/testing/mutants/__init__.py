"""Wrong variants of the shipping policies: each breaks one rule, and names the check that has to notice.

They are the test of the tests: tests/quality runs every one of them against its check, and docs/kill-matrix.md
publishes the result. Most of them have been shipped by somebody; docs/theory.md tells what goes wrong.
"""

from __future__ import annotations

from attrs import evolve, frozen

from fairprefix.core.config import PolicyConfig
from fairprefix.core.fcfs import FCFS
from fairprefix.core.lpm import LPM
from fairprefix.testing.checks import CHECKS
from fairprefix.testing.claims import Claims
from fairprefix.testing.lab import MakePolicy
from fairprefix.testing.mutants import deficit, order, protocol, virtual
from fairprefix.testing.report import Verdict
from fairprefix.testing.runner import SMALL, check_policy

EXAMPLES = 200
"""Histories within which a mutant has to be killed."""

EVENTS = 10
"""Events of which the story that kills it may consist."""

_CREDIT = evolve(SMALL, gate="credit")
_VTC = evolve(SMALL, policy="vtc")
_WAITS = evolve(SMALL, bounded_wait=2)
_DLPM_BOUND = Claims(bound="dlpm", keeps_debt=True)


@frozen
class Mutant:
    """A wrong policy, what it claims nevertheless, and who catches it."""

    make_policy: MakePolicy
    killed_by: str
    """The check that has to fail."""
    config: PolicyConfig = SMALL
    claims: Claims = Claims()  # noqa: RUF009 (frozen)
    about: str = ""
    """What is wrong, in one sentence; by default what its docstring says."""

    @property
    def name(self) -> str:
        """Its name."""
        return getattr(self.make_policy, "__name__", "?") + ("" if not self.about else "Claims")

    def wrong(self) -> str:
        """Return what is wrong, in one sentence."""
        return self.about or (self.make_policy.__doc__ or "").splitlines()[0]


def _mutant(
    make_policy: MakePolicy,
    killed_by: str,
    config: PolicyConfig = SMALL,
    claims: Claims | None = None,
    about: str = "",
) -> Mutant:
    return Mutant(make_policy, killed_by, config, claims or Claims.of(config), about)


MUTANTS: tuple[Mutant, ...] = (
    _mutant(virtual.LiftsNobody, "rejoin_bound", _VTC),
    _mutant(virtual.LiftsToTheQueuedOnly, "lift_rules", _VTC),
    _mutant(virtual.SkipsWithoutRoom, "lift_rules", _VTC),
    _mutant(virtual.ChargesExtend, "charge_prompt", _VTC),
    _mutant(deficit.RefillsAny, "bound"),
    _mutant(deficit.RefillsTheWaiting, "refill_rules"),
    _mutant(deficit.AdmitsAtZero, "refill_rules"),
    _mutant(deficit.ForgivesDebt, "rejoin_bound"),
    _mutant(deficit.TopsUp, "refill_rules"),
    _mutant(deficit.ChargesThePrompt, "charge_prompt"),
    _mutant(deficit.ChargesNoOutput, "charge_output"),
    _mutant(deficit.ChargesAtTheEnd, "charge_output"),
    _mutant(deficit.ChargesTwice, "charge_once"),
    _mutant(deficit.DropsTheHold, "preemption", _CREDIT),
    _mutant(deficit.KeepsTheHold, "refund", _CREDIT),
    _mutant(deficit.LosesRefunds, "refund"),
    _mutant(deficit.CommitsByLooking, "looking"),
    _mutant(deficit.FreezesOnBlocked, "blocked"),
    _mutant(deficit.IgnoresWeights, "weighted_bound"),
    _mutant(deficit.RescalesDebt, "reweighing"),
    _mutant(deficit.CountsInFloats, "conservation"),
    _mutant(deficit.WaitsWithoutHold, "bounded_wait", _WAITS),
    _mutant(deficit.SpinsWithoutRoom, "termination"),
    _mutant(deficit.ForgetsOnRestore, "snapshots"),
    _mutant(deficit.IgnoresPrefixes, "prefix_order"),
    _mutant(LPM, "bound", claims=_DLPM_BOUND, about="LPM, which claims DLPM's bound"),
    _mutant(FCFS, "bound", claims=_DLPM_BOUND, about="FCFS, which claims DLPM's bound"),
    _mutant(order.Sticky, "starvation", claims=_DLPM_BOUND),
    _mutant(order.ShortestPrefix, "hit_rate", evolve(SMALL, policy="lpm")),
    _mutant(order.ByName, "relabelling", claims=Claims()),
    _mutant(order.ByHash, "hash_seed", claims=Claims()),
    _mutant(order.ByMood, "determinism", claims=Claims()),
    _mutant(order.SharesItsMemory, "side_by_side", claims=Claims(workers=2)),
    _mutant(protocol.OffersTheRefused, "only_queued"),
    _mutant(protocol.PlansTooMuch, "capacity"),
    _mutant(protocol.SettlesTwice, "settlement"),
    _mutant(protocol.KeepsTheEstimate, "amendment"),
    _mutant(protocol.RaisesKeyErrors, "life_cycle"),
    _mutant(protocol.SpoilsItsInput, "inputs"),
    _mutant(protocol.Dawdles, "work_conservation", claims=Claims()),
    _mutant(protocol.LosesTheUnblocked, "termination"),
)


def kill(mutant: Mutant, *, examples: int = EXAMPLES, seed: int = 0, time_limit_s: float = 20.0) -> Verdict:
    """Return what the check that has to catch a mutant says about it."""
    report = check_policy(
        mutant.make_policy,
        claims=mutant.claims,
        config=mutant.config,
        examples=examples,
        only=[mutant.killed_by],
        seed=seed,
        time_limit_s=time_limit_s,
    )
    return report[mutant.killed_by]


_HEADER = (
    "# Kill matrix",
    "",
    "Who tests the tests? Each row is a shipping policy with one rule broken, and the check of",
    f"`fairprefix.testing` that catches it within {EXAMPLES} random histories, with a story of at most",
    f"{EVENTS} events. Every check catches at least one. The shipping policies pass all checks.",
    "`tests/quality/test_kill_matrix.py` makes sure of it; the table is",
    "`fairprefix.testing.mutants.kill_matrix()`, the variants are in `src/fairprefix/testing/mutants/`.",
    "",
)


def kill_matrix() -> str:
    """Return docs/kill-matrix.md: every mutant, and the check that catches it.

    Raises:
        AssertionError: a check catches no mutant at all.
    """
    lines = [*_HEADER, "| wrong variant | what is wrong | caught by |", "|---|---|---|"]
    lines += [f"| `{mutant.name}` | {mutant.wrong()} | `{mutant.killed_by}` |" for mutant in MUTANTS]
    caught = {mutant.killed_by for mutant in MUTANTS}
    spare = [check.name for check in CHECKS if check.name not in caught]
    assert not spare, f"no mutant shows that these checks find anything: {spare}"
    return "\n".join(lines) + "\n"
