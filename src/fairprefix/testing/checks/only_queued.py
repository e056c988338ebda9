"""Only requests that are queued are offered: not those that run, are blocked, are finished or were refused."""

from __future__ import annotations

from collections.abc import Sequence

from fairprefix.core.request import Request
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import anything
from fairprefix.testing.driver import Driver
from fairprefix.testing.events import History
from fairprefix.testing.lab import Lab
from fairprefix.testing.parts import WAITING


def check(lab: Lab, history: History) -> None:
    """Look at every offer, and at what is planned."""
    broken = lab.run(history, hook=_plan).broken
    if broken and broken.kind == "offer":
        raise AssertionError(broken.text)


def _plan(driver: Driver) -> None:
    _only_queued(driver, driver.slot.asked.plan(3))


def _only_queued(driver: Driver, planned: Sequence[Request]) -> None:
    able = {id(job.request): job.id for job in driver.of_stage(WAITING) if not job.refused}
    for request in planned:
        assert id(request) in able, f"{getattr(request, 'id', request)!r} is planned, which is not queued"
        del able[id(request)]


CHECK = Check(
    name="only_queued",
    claim="each request is offered only while it is queued, once in a plan, and not again after a refusal",
    run=check,
    data=anything,
)
