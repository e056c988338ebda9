"""A legal call never raises; an illegal one raises `HostError` and changes nothing."""

from __future__ import annotations

from collections.abc import Callable

from fairprefix.core.errors import FairprefixError
from fairprefix.core.policy import Refusal
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import anything
from fairprefix.testing.driver import Driver
from fairprefix.testing.events import History
from fairprefix.testing.lab import Lab
from fairprefix.testing.parts import RUNNING, WAITING, Job


def check(lab: Lab, history: History) -> None:
    """Call wrongly wherever that is possible, besides all that is legal."""
    broken = lab.run(history, hook=_misuse).broken
    if broken and broken.kind == "raised":
        raise AssertionError(broken.text)


def _misuse(driver: Driver) -> None:
    policy = driver.slot.asked
    before = policy.canonical()
    for what, call in _wrong_calls(driver):
        raised = _raised(call)
        assert isinstance(raised, FairprefixError), f"{what}: expected HostError, not {_describe(raised)}"
    policy.validate()
    assert policy.canonical() == before, "a call that was refused with HostError changed the state"


def _wrong_calls(driver: Driver) -> list[tuple[str, Callable[[], object]]]:
    policy = driver.slot.asked
    calls: list[tuple[str, Callable[[], object]]] = [
        ("take of an unknown request", lambda: policy.take("nobody", extend=1, reserve=1)),
        ("finish of an unknown request", lambda: policy.finish("nobody", output=0)),
        ("defer of an unknown request", lambda: policy.defer("nobody", Refusal.BLOCKED)),
    ]
    for job in driver.of_stage(WAITING)[:1]:
        calls += _wrong_while_waiting(driver, job)
    for job in driver.of_stage(RUNNING)[:1]:
        calls += _wrong_while_running(driver, job)
    return calls


def _wrong_while_waiting(driver: Driver, job: Job) -> list[tuple[str, Callable[[], object]]]:
    policy, id = driver.slot.asked, job.request.id
    return [
        (f"second arrival of {job.id}", lambda: policy.arrive(job.request)),
        (f"unblock of {job.id}, which is queued", lambda: policy.unblock(id)),
        (f"preempt of {job.id}, which is queued", lambda: policy.preempt(id, output=0, keep_hold=False)),
    ]


def _wrong_while_running(driver: Driver, job: Job) -> list[tuple[str, Callable[[], object]]]:
    policy, id = driver.slot.asked, job.request.id
    return [
        (f"take of {job.id}, which runs", lambda: policy.take(id, extend=1, reserve=1)),
        (f"defer of {job.id}, which runs", lambda: policy.defer(id, Refusal.NO_ROOM)),
    ]


def _raised(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 (whatever it is, it is judged)
        return error
    return None


def _describe(raised: Exception | None) -> str:
    return "nothing at all" if raised is None else f"{type(raised).__name__}: {raised}"


CHECK = Check(
    name="life_cycle",
    claim="a legal call never raises; an illegal one raises HostError and changes nothing",
    run=check,
    data=anything,
)
