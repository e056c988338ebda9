"""Every admission is charged once, in whole units, to its own client, and for no more than it costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fairprefix.core.cost import Receipt
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import anything
from fairprefix.testing.driver import Driver
from fairprefix.testing.events import History
from fairprefix.testing.lab import Lab
from fairprefix.testing.parts import Job
from fairprefix.testing.trace import Taken


def check(lab: Lab, history: History) -> None:
    """Compare receipts with what was admitted."""
    cost = lab.subject.configured(history).cost
    for fact in lab.run(history, hook=_look).facts:
        if isinstance(fact, Taken):
            most = cost.service(max(fact.prompt, fact.extend), 0)
            assert fact.charged <= most, (
                f"step {fact.at}: {fact.id} was charged {fact.charged}, but all its tokens cost {most}"
            )


def _look(driver: Driver) -> None:
    for job in driver.jobs.values():
        if job.receipt is not None:
            _matches(job.receipt, job)
    for where, number in _numbers("snapshot", driver.slot.asked.snapshot()):
        assert not isinstance(number, float), f"{where} = {number!r} is no integer"


def _matches(receipt: Receipt, job: Job) -> None:
    given = (receipt.request, receipt.client)
    expected = (job.request.id, job.request.client)
    assert given == expected, f"the receipt of {job.id} says {given}"
    for name in ("extend", "reserve", "charged"):
        value = getattr(receipt, name)
        assert type(value) is int, f"the receipt of {job.id} says {name} = {value!r}, which is no integer"
        assert value >= 0, f"the receipt of {job.id} says {name} = {value}"


def _numbers(where: str, data: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (plain data of any form)
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _numbers(f"{where}.{key}", value)
    elif isinstance(data, (list, tuple)):
        for place, value in enumerate(data):
            yield from _numbers(f"{where}[{place}]", value)
    elif isinstance(data, (int, float)):
        yield where, data


CHECK = Check(
    name="conservation",
    claim="each admission is charged to its own client, in whole units, and for no more than its tokens",
    run=check,
    data=anything,
)
