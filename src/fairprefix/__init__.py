"""Scheduling for LLM serving that is fair between clients and keeps the prefix cache hot.

Everything that a host or a policy author needs, in one place; the modules behind it are described in
docs/architecture.md.
"""

from fairprefix.core import bounds
from fairprefix.core.catalog import make_policy, restore_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.contract import HostContract
from fairprefix.core.cost import CostWeights, Receipt
from fairprefix.core.dlpm import DLPM
from fairprefix.core.errors import ConfigError, FairprefixError, HostError, SnapshotError
from fairprefix.core.fcfs import FCFS
from fairprefix.core.history import Decision, RecordedIndex, Recorder, Replay
from fairprefix.core.ledger import Gap, Ledger, Service, View, jain_index
from fairprefix.core.lpm import LPM
from fairprefix.core.policy import Policy, Refusal
from fairprefix.core.prefixes import AskedPrefixes, NoPrefixes, Prefixes, PrefixIndex, chain_hashes
from fairprefix.core.request import BlockHash, Client, Request
from fairprefix.core.vtc import VTC

__all__ = [
    "DLPM",
    "FCFS",
    "LPM",
    "VTC",
    "AskedPrefixes",
    "BlockHash",
    "Client",
    "ConfigError",
    "CostWeights",
    "Decision",
    "FairprefixError",
    "Gap",
    "HostContract",
    "HostError",
    "Ledger",
    "NoPrefixes",
    "Policy",
    "PolicyConfig",
    "PrefixIndex",
    "Prefixes",
    "Receipt",
    "RecordedIndex",
    "Recorder",
    "Refusal",
    "Replay",
    "Request",
    "Service",
    "SnapshotError",
    "View",
    "bounds",
    "chain_hashes",
    "jain_index",
    "make_policy",
    "restore_policy",
]
