"""Settled is settled: a finished request and a void receipt can never be settled again."""

from __future__ import annotations

from attrs import define, field

from fairprefix.core.cost import Receipt
from fairprefix.core.errors import FairprefixError
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import anything
from fairprefix.testing.driver import Driver
from fairprefix.testing.events import History
from fairprefix.testing.lab import Lab


@define
class _Settled:
    """Collects receipts, and hands in those of finished requests once more."""

    seen: dict[str, Receipt] = field(factory=dict)

    def look(self, driver: Driver) -> None:
        policy = driver.slot.asked
        gone = [id for id in self.seen if id not in driver.jobs]
        before = policy.canonical()
        for id in gone:
            receipt = self.seen.pop(id)
            _refused(f"finish of {id}, which is finished", lambda r=receipt: policy.finish(r.request, output=0))
            _refused(f"refund of {id}, which is finished", lambda r=receipt: policy.refund(r))
        assert policy.canonical() == before, f"settling {', '.join(gone)} again changed the state"
        self.seen |= {job.id: job.receipt for job in driver.jobs.values() if job.receipt}


def check(lab: Lab, history: History) -> None:
    """Settle everything twice."""
    lab.run(history, hook=_Settled().look)


def _refused(what: str, call: object) -> None:
    assert callable(call)
    try:
        call()
    except FairprefixError:
        return
    except Exception as error:
        raise AssertionError(f"{what}: expected HostError, not {type(error).__name__}: {error}") from error
    raise AssertionError(f"{what} was accepted")


CHECK = Check(
    name="settlement",
    claim="each request is settled exactly once: a second finish, or a late refund, is refused",
    run=check,
    data=anything,
)
