"""A plan keeps to its limit, and the engine's memory and slots are never exceeded."""

from __future__ import annotations

from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import anything
from fairprefix.testing.driver import Driver
from fairprefix.testing.events import History
from fairprefix.testing.lab import Lab
from fairprefix.testing.parts import HELD, RUNNING


def check(lab: Lab, history: History) -> None:
    """Ask for plans of several lengths, and count what runs."""
    lab.run(history, hook=_look)


def _look(driver: Driver) -> None:
    limits, running = driver.limits, driver.of_stage(RUNNING)
    used = sum(job.prompt + job.produced for job in running)
    assert used <= limits.kv_tokens, f"step {driver.at}: {used} tokens in a memory of {limits.kv_tokens}"
    assert len(driver.of_stage(RUNNING, HELD)) <= limits.max_running, f"step {driver.at}: too many run"
    for limit in (0, 1, 3):
        planned = driver.slot.asked.plan(limit)
        assert len(planned) <= limit, f"plan({limit}) returned {len(planned)} requests"


CHECK = Check(
    name="capacity",
    claim="plan(limit) returns at most `limit` requests, and the engine is never overfilled",
    run=check,
    data=anything,
)
