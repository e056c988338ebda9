"""vLLM's scheduler with the policy attached: four of its public methods extended, none of its private ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fairprefix.adapters.vllm.host import Host
from fairprefix.core.config import PolicyConfig
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import Prefixes

if TYPE_CHECKING:
    from fairprefix.adapters.vllm.shapes import EngineScheduler as Base
    from fairprefix.adapters.vllm.shapes import Theirs
else:
    Base = object

MakePolicy = Callable[[PolicyConfig, Prefixes | None], Policy]


class FairMixin(Base):
    """To be put in front of one of vLLM's schedulers; `fair` does it."""

    make_policy: MakePolicy

    def __init__(self, *args: Theirs, **kwargs: Theirs) -> None:
        super().__init__(*args, **kwargs)
        self.fairprefix: Host = Host(self, type(self).make_policy)

    def schedule(self, *args: Theirs, **kwargs: Theirs) -> Theirs:
        """Plan a step."""
        self.fairprefix.before_step()
        plan = super().schedule(*args, **kwargs)
        self.fairprefix.after_step(plan)
        return plan

    def update_from_output(self, *args: Theirs, **kwargs: Theirs) -> Theirs:
        """Take in the results of a step."""
        outputs = super().update_from_output(*args, **kwargs)
        self.fairprefix.delivered(outputs)
        return outputs

    def finish_requests(self, request_ids: Theirs, *args: Theirs, **kwargs: Theirs) -> Theirs:
        """Abort requests."""
        if request_ids is not None and not isinstance(request_ids, str):
            request_ids = list(request_ids)
        result = super().finish_requests(request_ids, *args, **kwargs)
        self.fairprefix.aborted(request_ids)
        return result

    def reset_prefix_cache(self, *args: Theirs, **kwargs: Theirs) -> Theirs:
        """Forget everything that is cached."""
        done = super().reset_prefix_cache(*args, **kwargs)
        if done:
            self.fairprefix.cache_reset()
        return done


def fair(base: type[Theirs], make_policy: MakePolicy) -> type[FairMixin]:
    """Return a scheduler class that extends `base` of vLLM's."""
    return type(f"Fair{base.__name__}", (FairMixin, base), {"make_policy": staticmethod(make_policy)})
