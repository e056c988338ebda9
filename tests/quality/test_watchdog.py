"""The time limit ends what does not return, and at no moment at which its exception would be lost."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from fairprefix.testing.watchdog import TimeIsUpError, time_limit


def spin(seconds: float) -> None:
    """Be busy, interruptibly."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.parametrize("busy", [spin, time.sleep], ids=["busy", "asleep"])
def test_what_does_not_return_is_interrupted(busy: Callable[[float], None]) -> None:
    """Whether it computes or sleeps."""
    with pytest.raises(TimeIsUpError), time_limit(0.05):
        busy(20)


@pytest.mark.parametrize("busy", [lambda: sum(range(100)), lambda: time.sleep(0.01)], ids=["busy", "asleep"])
def test_what_catches_everything_is_interrupted(busy: Callable[[], object]) -> None:
    """A loop around `except:` swallows the exception; it is raised again where nothing catches it."""

    def never_gives_up() -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                busy()
            except:  # noqa: E722, PERF203, S112 (that is the point)
                continue

    tracing = sys.gettrace()
    with pytest.raises(TimeIsUpError), time_limit(0.05):
        never_gives_up()
    assert sys.gettrace() is tracing
    spin(0.2)  # and nothing rings later


def test_in_another_thread_too() -> None:
    """There are no signals there."""
    seen = []

    def work() -> None:
        try:
            with time_limit(0.05):
                spin(20)
        except TimeIsUpError as error:
            seen.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=20)
    assert len(seen) == 1


def test_a_busy_machine_is_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """What had no processor for a while goes on; by the clock it has five times its limit."""
    began = time.monotonic()
    monkeypatch.setattr(time, "thread_time", lambda: 0.01 * (time.monotonic() - began))
    with time_limit(0.1):
        spin(0.3)
    with pytest.raises(TimeIsUpError), time_limit(0.1):
        spin(20)
    assert time.monotonic() - began < 10


STOPPED = """
import time
from fairprefix.testing.watchdog import time_limit

with time_limit(0.3):
    print("begun", flush=True)
    for _ in range(30):
        time.sleep(0.01)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process is stopped here")
def test_a_process_that_was_stopped_has_not_hung() -> None:
    """However long: somebody suspended the run, or the machine."""
    with subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE) as child:  # noqa: S603
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGSTOP)
        time.sleep(3)
        child.send_signal(signal.SIGCONT)
    assert child.returncode == 0


def test_what_returns_in_time_is_left_alone() -> None:
    """And nothing rings later."""
    with time_limit(0.05):
        pass
    spin(0.1)


@pytest.mark.parametrize("phase", ["start", "stop"])
def test_a_limit_that_ends_while_garbage_is_collected_waits(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python reports and drops what is raised in there: the policy would run on without a limit."""
    lost: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)

    def slow(now: str, _info: dict[str, int]) -> None:
        if now == phase:
            spin(0.1)

    def collect_then_hang() -> None:
        gc.collect()
        spin(20)

    gc.callbacks.append(slow)
    try:
        with pytest.raises(TimeIsUpError), time_limit(0.05):
            collect_then_hang()
    finally:
        gc.callbacks.remove(slow)
    assert lost == []


def test_a_limit_within_a_limit_leaves_the_outer_one() -> None:
    """The outer timer runs on."""

    def inner_then_hang() -> None:
        with time_limit(5):
            pass
        spin(20)

    with pytest.raises(TimeIsUpError), time_limit(0.2):
        inner_then_hang()
    assert not [callback for callback in gc.callbacks if callback.__module__ == time_limit.__module__]
