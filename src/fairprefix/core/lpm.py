"""Longest prefix match (SGLang, arXiv 2312.07104): keeps the cache hot, and promises no client anything."""

from __future__ import annotations

from typing import ClassVar

from fairprefix.core.compiling import mypyc_attr
from fairprefix.core.config import PolicyConfig
from fairprefix.core.fcfs import SingleQueuePolicy
from fairprefix.core.prefixes import Prefixes


@mypyc_attr(allow_interpreted_subclasses=True)
class LPM(SingleQueuePolicy):
    """The longest cached prefix is next, ties by age; a request that does not fit is passed over.

    With `bounded_wait = k` every k-th admission takes the oldest request (k-LPM, arXiv 2502.04677), and waits
    for it when it does not fit, so that no request starves.
    """

    name: ClassVar[str] = "lpm"

    def __init__(self, config: PolicyConfig, prefixes: Prefixes | None = None) -> None:
        super().__init__(config, prefixes, patience=config.bounded_wait)
