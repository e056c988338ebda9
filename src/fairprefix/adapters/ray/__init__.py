"""D2LPM between the replicas of a Ray Serve deployment, and DLPM inside each of them.

    @serve.deployment(**fair_options(num_replicas=3, max_ongoing_requests=1000))
    class LLM(FairReplica):
        async def generate(self, key: RouteKey, prompt): ...

See docs/integrate/ray.md. `fairprefix.adapters.ray.router` is what Serve imports by name.
"""

from fairprefix.adapters.ray.key import RouteKey
from fairprefix.adapters.ray.options import fair_options
from fairprefix.adapters.ray.replica import FairReplica, Turn, fair

__all__ = ["FairReplica", "RouteKey", "Turn", "fair", "fair_options"]
