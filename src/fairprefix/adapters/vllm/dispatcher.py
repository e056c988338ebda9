"""What `--scheduler-cls` names: picks the right one of vLLM's schedulers to extend."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from typing import ClassVar

from fairprefix.adapters.vllm.shapes import Theirs
from fairprefix.adapters.vllm.support import refuse_what_cannot_work
from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import Prefixes


class FairScheduler:
    """vLLM's scheduler, with a policy of fairprefix in place of its waiting queue.

    vLLM never looks at the class, it only calls it: so this one can stand for both, and returns a scheduler that
    extends vLLM's `AsyncScheduler` where asynchronous scheduling is on, and its `Scheduler` where it is off.

    A policy of your own: derive a class, set `make_policy`, and name your class in `--scheduler-cls`.
    """

    make_policy: ClassVar[Callable[[PolicyConfig, Prefixes | None], Policy]] = staticmethod(make_policy)
    """Makes the policy."""

    def __new__(cls, *args: Theirs, **kwargs: Theirs) -> Theirs:  # noqa: D102
        try:
            return cls._make(*args, **kwargs)
        except ConfigError as problem:
            if multiprocessing.parent_process() is None:
                raise
            # Nobody but the log hears of this process: one line instead of a traceback.
            sys.stderr.write(f"fairprefix: {problem}\n")
            sys.stderr.flush()
            raise SystemExit(2) from None

    @classmethod
    def _make(cls, *args: Theirs, **kwargs: Theirs) -> object:
        import vllm  # noqa: PLC0415 (whoever calls this has it)

        from fairprefix.adapters.vllm.scheduler import fair  # noqa: PLC0415

        vllm_config = kwargs["vllm_config"] if "vllm_config" in kwargs else args[0]
        refuse_what_cannot_work(vllm_config, vllm.__version__)
        if vllm_config.scheduler_config.async_scheduling:
            from vllm.v1.core.sched.async_scheduler import AsyncScheduler as Base  # noqa: PLC0415
        else:
            from vllm.v1.core.sched.scheduler import Scheduler as Base  # noqa: PLC0415
        return fair(Base, cls.make_policy)(*args, **kwargs)
