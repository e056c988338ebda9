"""SGLang's in-batch prefix sharing: of several requests with the same prefix to compute, one goes first.

The others find it cached a little later. SGLang puts them behind everybody else for a pass, if next to nothing of
them is cached and at least so many tokens at their beginning are the same. Whether two prompts share at least k
tokens is whether their first k tokens are equal: a set of beginnings does what SGLang has a second tree for.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from attrs import frozen

from fairprefix.adapters.sglang.views import Tracked, cache_namespace

MOST_PUT_BACK = 4
"""How often a request is put behind others for this; the computed prefix shows after a pass or two."""


@frozen
class Sharing:
    """The two thresholds, in tokens; SGLang's environment variables IN_BATCH_PREFIX_CACHING_... set them."""

    check: int = 32
    """Requests with more cached tokens than this are left alone."""
    deprioritize: int = 32
    """So many equal tokens make a shared prefix."""

    def followers(self, planned: Iterable[Tracked]) -> list[Tracked]:
        """Return those who should wait for an earlier one to compute their prefix."""
        check, seen = self.check, set[tuple[str, bytes]]()
        found: list[Tracked] = []
        for entry in planned:
            if entry.matched > check or entry.put_back >= MOST_PUT_BACK or entry.tokens < self.deprioritize:
                continue  # it goes ahead in any case
            start = self._start(entry)
            if start in seen:
                found.append(entry)
            else:
                seen.add(start)
        return found

    def _start(self, entry: Tracked) -> tuple[str, bytes]:
        """Return what tells its shared prefix."""
        length = self.deprioritize
        start = array("q", entry.req.origin_input_ids[:length])
        start.extend(entry.req.output_ids[: length - len(start)])
        return cache_namespace(entry.req), start.tobytes()
