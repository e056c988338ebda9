"""Interrupts a policy that does not return.

On the main thread a timer signal interrupts anything, also a call that sleeps. Elsewhere, or where there are no
such signals (Windows), a second thread raises the exception asynchronously in the hanging one: that works in
CPython, and interrupts Python code but not a call into C that does not return. Without either there is no limit.
"""

from __future__ import annotations

import ctypes
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_PATIENCE = 5
"""On a machine that does something else, a call may take so many times its time by the clock."""
_AGAIN_S = 0.05
_HERE = (__name__, "contextlib")
_OF_THE_KIT = (*_HERE, "fairprefix.testing.parts", "fairprefix.testing.driver", "fairprefix.testing.lab")
"""What calls the policy, and lets the exception through."""


class TimeIsUpError(BaseException):
    """The time limit is over. Not an `Exception`: a policy that catches those is interrupted all the same."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeIsUpError` in the body when it takes longer; a timer that was running before runs on.

    Where a signal tells the time, it is processor time, or five times as long by the clock: what sleeps is
    interrupted, and what waits for a busy machine, or is stopped and goes on later, is not.
    """
    on_main = threading.current_thread() is threading.main_thread()
    if on_main and hasattr(signal, "setitimer"):
        with _by_signal(seconds):
            yield
    else:
        with _by_thread(seconds):
            yield


@contextmanager
def _by_signal(seconds: float) -> Iterator[None]:
    began = time.thread_time()
    turn, waited = seconds, 0.0

    def ring(_number: int, frame: FrameType | None) -> None:
        nonlocal turn, waited
        waited += turn  # not what the clock says: the process may have been stopped for as long as you like
        left = seconds - (time.thread_time() - began)
        if collecting.is_set() or (left > 0 and waited < _PATIENCE * seconds):
            turn = max(left, _AGAIN_S)
            signal.setitimer(signal.ITIMER_REAL, turn)
            return
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)  # until the exception has come through
        if rung and _module(frame) in _HERE:
            return  # it is on its way out
        if rung:
            _raise_at_the_next_line(frame)
        rung.append(None)
        raise TimeIsUpError

    rung: list[None] = []
    tracing = sys.gettrace()
    try:
        with _collections() as collecting, _alarm(seconds, ring):
            yield
    finally:
        if rung:
            sys.settrace(tracing)


def _raise_at_the_next_line(frame: FrameType | None) -> None:
    """Raise in the handler as well: a policy with `except:` in a loop has caught the exception before this one.

    Two such loops around each other go on for ever.
    """

    def raise_again(_frame: FrameType, event: str, _arg: Any) -> Any:  # noqa: ANN401 (as `sys.settrace` has it)
        if event == "line":
            raise TimeIsUpError
        return raise_again

    while frame is not None and _module(frame) not in _OF_THE_KIT:
        frame.f_trace = raise_again
        frame = frame.f_back
    sys.settrace(lambda _frame, _event, _arg: None)


def _module(frame: FrameType | None) -> str:
    return str(frame.f_globals.get("__name__")) if frame else ""


@contextmanager
def _alarm(seconds: float, ring: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, left, interval)  # 0 stops what the last ring may have set


@contextmanager
def _collections() -> Iterator[threading.Event]:
    """Yield what is set while garbage is collected: an exception raised in there would be lost.

    First and last among the callbacks, because Python swallows what the callbacks of others raise, too.
    """
    collecting = threading.Event()

    def first(phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            collecting.set()

    def last(phase: str, _info: dict[str, int]) -> None:
        if phase == "stop":
            collecting.clear()

    gc.callbacks.insert(0, first)
    gc.callbacks.append(last)
    try:
        yield collecting
    finally:
        gc.callbacks.remove(first)
        gc.callbacks.remove(last)


@contextmanager
def _by_thread(seconds: float) -> Iterator[None]:
    victim = ctypes.c_ulong(threading.get_ident())
    over = threading.Event()

    def ring() -> None:
        if not over.wait(seconds) and hasattr(ctypes, "pythonapi"):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(victim, ctypes.py_object(TimeIsUpError))

    watcher = threading.Thread(target=ring, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
