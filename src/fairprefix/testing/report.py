"""What became of each check, as data, as text, and as an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from fairprefix.testing.story import Story

PASSED, FAILED, SKIPPED, NOT_RUN = "passed", "failed", "skipped", "not run"


class ConformanceError(AssertionError):
    """A policy failed checks; the message tells each story. `report` has all of it as data."""

    def __init__(self, report: Report) -> None:
        super().__init__(report.to_text())
        self.report = report


@frozen(kw_only=True)
class Verdict:
    """What became of one check."""

    check: str
    claim: str
    """What it checks, in one sentence."""
    status: str
    """passed, failed, skipped (not claimed, or not asked for) or not run (the factory does not work)."""
    detail: str = ""
    """Failed: what broke. Skipped, not run: why. Passed: remarks, such as that time ran out before the end."""
    examples: int = 0
    """Histories executed."""
    seconds: float = 0.0
    seed: int = 0
    story: Story | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Return everything as JSON-serialisable data."""
        return {
            "check": self.check,
            "claim": self.claim,
            "status": self.status,
            "detail": self.detail,
            "examples": self.examples,
            "seconds": round(self.seconds, 3),
            "seed": self.seed,
            "story": self.story.to_mapping() if self.story else None,
        }


@frozen(kw_only=True)
class Report:
    """What became of all checks."""

    subject: str
    """What was checked."""
    verdicts: tuple[Verdict, ...]
    seed: int

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """The checks that failed."""
        return tuple(verdict for verdict in self.verdicts if verdict.status == FAILED)

    @property
    def ok(self) -> bool:
        """Whether no check failed and each that applies could be run (`only` switches on no claim)."""
        return all(verdict.status in (PASSED, SKIPPED) for verdict in self.verdicts)

    def __getitem__(self, check: str) -> Verdict:
        """Return the verdict of one check.

        Raises:
            KeyError: there is no such check.
        """
        for verdict in self.verdicts:
            if verdict.check == check:
                return verdict
        raise KeyError(check)

    def raise_if_failed(self) -> None:
        """Raise `ConformanceError` unless everything is in order."""
        if not self.ok:
            raise ConformanceError(self)

    def to_text(self, picture: Callable[[Story], Sequence[str]] | None = None) -> str:
        """Return a table of the checks, then the story of each that failed.

        Args:
            picture: returns lines to add to a story.
        """
        width = max((len(verdict.check) for verdict in self.verdicts), default=0)
        lines = [f"{self.subject}: {self._summary()} (seed {self.seed})"]
        lines += [
            f"  {verdict.status:<8} {verdict.check:<{width}}  {verdict.claim}"
            for verdict in self.verdicts
            if verdict.status != SKIPPED
        ]
        for verdict in self.verdicts:
            if verdict.status in (FAILED, NOT_RUN):
                lines += ["", *_told(verdict, picture)]
        return "\n".join(lines)

    def to_mapping(self) -> dict[str, Any]:
        """Return everything as JSON-serialisable data."""
        return {
            "subject": self.subject,
            "ok": self.ok,
            "seed": self.seed,
            "verdicts": [verdict.to_mapping() for verdict in self.verdicts],
        }

    def _summary(self) -> str:
        counts = [
            f"{count} {status}"
            for status in (PASSED, FAILED, NOT_RUN, SKIPPED)
            if (count := sum(verdict.status == status for verdict in self.verdicts))
        ]
        return ", ".join(counts) or "no checks"


def _told(verdict: Verdict, picture: Callable[[Story], Sequence[str]] | None) -> list[str]:
    if verdict.story is None:
        return [f"{verdict.check}: {verdict.detail}"]
    seed = f"found with seed {verdict.seed}"
    lines = [*verdict.story.lines, *(picture(verdict.story) if picture else ())]
    return [f"{verdict.check} ({seed}):", *(f"  {line}" for line in lines)]
