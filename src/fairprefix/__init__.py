"""Scheduling for LLM serving that is fair between clients and keeps the prefix cache hot.

Everything that a host or a policy author needs, in one place; the modules behind it are described in
docs/architecture.md.
"""

from fairprefix.core import bounds
from fairprefix.core.catalog import make_policy, restore_policy
from fairprefix.core.central_pool import CentralPool
from fairprefix.core.config import PolicyConfig
from fairprefix.core.contract import HostContract
from fairprefix.core.cost import CostWeights, Receipt
from fairprefix.core.d2lpm import D2LPM
from fairprefix.core.dlpm import DLPM
from fairprefix.core.errors import ConfigError, FairprefixError, HostError, SnapshotError
from fairprefix.core.fcfs import FCFS
from fairprefix.core.history import Decision, RecordedIndex, Recorder, Replay
from fairprefix.core.ledger import Gap, Ledger, Service, View, jain_index
from fairprefix.core.ledger_view import LedgerView
from fairprefix.core.lpm import LPM
from fairprefix.core.policy import Policy, Refusal
from fairprefix.core.prefixes import AskedPrefixes, NoPrefixes, Prefixes, PrefixIndex, chain_hashes
from fairprefix.core.refill_watch import RefillWatch
from fairprefix.core.request import BlockHash, Client, Request
from fairprefix.core.router_catalog import make_router, restore_router
from fairprefix.core.router_config import RouterConfig
from fairprefix.core.routing import Choice, Router
from fairprefix.core.run_index import ApproximateIndex
from fairprefix.core.shared_ledger import SharedLedger
from fairprefix.core.vtc import VTC
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
