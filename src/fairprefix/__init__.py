"""Scheduling for LLM serving that is fair between clients and keeps the prefix cache hot.

Everything that a host or a policy author needs, in one place; the modules behind it are described in
docs/architecture.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fairprefix.core.catalog import make_policy, restore_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.cost import CostWeights, Receipt
from fairprefix.core.dlpm import DLPM
from fairprefix.core.errors import ConfigError, FairprefixError, HostError, SnapshotError
from fairprefix.core.fcfs import FCFS
from fairprefix.core.lpm import LPM
from fairprefix.core.policy import Policy, Refusal
from fairprefix.core.prefixes import AskedPrefixes, NoPrefixes, Prefixes, PrefixIndex, chain_hashes
from fairprefix.core.request import BlockHash, Client, Request
from fairprefix.core.vtc import VTC

if TYPE_CHECKING:
    from fairprefix.core import bounds
    from fairprefix.core.central_pool import CentralPool
    from fairprefix.core.contract import HostContract
    from fairprefix.core.d2lpm import D2LPM
    from fairprefix.core.history import Decision, RecordedIndex, Recorder, Replay
    from fairprefix.core.ledger import Gap, Ledger, Service, View, jain_index
    from fairprefix.core.ledger_view import LedgerView
    from fairprefix.core.refill_watch import RefillWatch
    from fairprefix.core.router_catalog import make_router, restore_router
    from fairprefix.core.router_config import RouterConfig
    from fairprefix.core.routing import Choice, Router
    from fairprefix.core.run_index import ApproximateIndex
    from fairprefix.core.shared_ledger import SharedLedger
    from fairprefix.core.worker_index import ExactIndex

__all__ = [
    "D2LPM",
    "DLPM",
    "FCFS",
    "LPM",
    "VTC",
    "ApproximateIndex",
    "AskedPrefixes",
    "BlockHash",
    "CentralPool",
    "Choice",
    "Client",
    "ConfigError",
    "CostWeights",
    "Decision",
    "ExactIndex",
    "FairprefixError",
    "Gap",
    "HostContract",
    "HostError",
    "Ledger",
    "LedgerView",
    "NoPrefixes",
    "Policy",
    "PolicyConfig",
    "PrefixIndex",
    "Prefixes",
    "Receipt",
    "RecordedIndex",
    "Recorder",
    "RefillWatch",
    "Refusal",
    "Replay",
    "Request",
    "Router",
    "RouterConfig",
    "Service",
    "SharedLedger",
    "SnapshotError",
    "View",
    "bounds",
    "chain_hashes",
    "jain_index",
    "make_policy",
    "make_router",
    "restore_policy",
    "restore_router",
]

_LATER = {
    "ApproximateIndex": "run_index",
    "CentralPool": "central_pool",
    "Choice": "routing",
    "D2LPM": "d2lpm",
    "Decision": "history",
    "ExactIndex": "worker_index",
    "Gap": "ledger",
    "HostContract": "contract",
    "Ledger": "ledger",
    "LedgerView": "ledger_view",
    "RecordedIndex": "history",
    "Recorder": "history",
    "RefillWatch": "refill_watch",
    "Replay": "history",
    "Router": "routing",
    "RouterConfig": "router_config",
    "Service": "ledger",
    "SharedLedger": "shared_ledger",
    "View": "ledger",
    "bounds": "bounds",
    "jain_index": "ledger",
    "make_router": "router_catalog",
    "restore_router": "router_catalog",
}
"""Modules of the core that are imported when the name is first used: what a policy does not need."""


__version__: str
"""The package's, such as 0.1.0; looked up when it is first asked for."""


if not TYPE_CHECKING:  # or misspelt names would be objects to a type checker

    def __getattr__(name: str) -> object:
        if name == "__version__":
            return import_module("importlib.metadata").version(__name__)
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f"fairprefix.core.{_LATER[name]}")
        found: object = module if name == "bounds" else getattr(module, name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
