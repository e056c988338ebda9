"""Histories: everything that a host told a policy, as plain data that can be written down and re-executed.

A `Recorder` stands in for the policy, and a `RecordedIndex` for the prefix index; both hand every event to a
function of the host's. A `Replay` feeds such events into a policy of any kind and tells, for each admission, what
that policy would have offered. One event is one mapping, "event" says which; the first one is "open":

    {"event": "open", "schema": 1, "block_size": 16, "config": {...}}
    {"event": "arrive", "request": {"id": "7", "client": "alice", "input_tokens": 512, ...}}
    {"event": "take", "id": "7", "extend": 512, "reserve": 64, "serial": 0}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.cost import Receipt
from fairprefix.core.errors import SnapshotError
from fairprefix.core.policy import Policy, Refusal
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import BlockHash, Client, Request
from fairprefix.core.snapshot import SCHEMA, dump_blocks, dump_request, load_blocks, load_request

Event = Mapping[str, Any]
Emit = Callable[[dict[str, Any]], None]
Make = Callable[[PolicyConfig, PrefixIndex], Policy]
"""(config, prefixes) -> a new policy."""


def opening(config: PolicyConfig, block_size: int) -> dict[str, Any]:
    """Return the event that a history begins with."""
    return {"event": "open", "schema": SCHEMA, "block_size": block_size, "config": config.to_mapping()}


class RecordedIndex(PrefixIndex):
    """A prefix index that writes down what the host reports to it."""

    def __init__(self, block_size: int, emit: Emit) -> None:
        super().__init__(block_size)
        self._emit = emit

    def cached(
        self, blocks: Sequence[BlockHash], *, start: int = 0, end: int | None = None, namespace: str = ""
    ) -> None:
        """Record and pass on."""
        self._run("cached", blocks[:end], start, namespace)
        super().cached(blocks, start=start, end=end, namespace=namespace)

    def evicted(
        self, blocks: Sequence[BlockHash], *, start: int = 0, end: int | None = None, namespace: str = ""
    ) -> None:
        """Record and pass on."""
        self._run("evicted", blocks[:end], start, namespace)
        super().evicted(blocks, start=start, end=end, namespace=namespace)

    def _run(self, event: str, blocks: Sequence[BlockHash], start: int, namespace: str) -> None:
        self._emit({"event": event, "blocks": dump_blocks(blocks), "start": start, "namespace": namespace})


class Recorder:
    """A policy that writes down every call before passing it on to another one."""

    def __init__(self, policy: Policy, emit: Emit) -> None:
        self._policy = policy
        self._emit = emit

    def arrive(self, request: Request) -> None:
        """Record and pass on."""
        self._emit({"event": "arrive", "request": dump_request(request)})
        self._policy.arrive(request)

    def begin_pass(self) -> None:
        """Record and pass on."""
        self._emit({"event": "begin_pass"})
        self._policy.begin_pass()

    def peek(self) -> Request | None:
        """Pass on: looking changes nothing, so there is nothing to record."""
        return self._policy.peek()

    def plan(self, limit: int, *, budget: int | None = None) -> Sequence[Request]:
        """Pass on: looking changes nothing, so there is nothing to record."""
        return self._policy.plan(limit, budget=budget)

    def take(self, id: str, *, extend: int, reserve: int) -> Receipt:
        """Record with the receipt's number, and pass on."""
        receipt = self._policy.take(id, extend=extend, reserve=reserve)
        self._emit({"event": "take", "id": id, "extend": extend, "reserve": reserve, "serial": receipt.serial})
        return receipt

    def amend(self, receipt: Receipt, *, extend: int | None = None, reserve: int | None = None) -> Receipt:
        """Record with the numbers of both receipts, and pass on."""
        amended = self._policy.amend(receipt, extend=extend, reserve=reserve)
        self._emit(
            {
                "event": "amend",
                "old_serial": receipt.serial,
                "extend": extend,
                "reserve": reserve,
                "serial": amended.serial,
            }
        )
        return amended

    def refund(self, receipt: Receipt) -> None:
        """Record and pass on."""
        self._emit({"event": "refund", "serial": receipt.serial})
        self._policy.refund(receipt)

    def defer(self, id: str, why: Refusal) -> None:
        """Record and pass on."""
        self._emit({"event": "defer", "id": id, "why": why.value})
        self._policy.defer(id, why)

    def unblock(self, id: str) -> None:
        """Record and pass on."""
        self._emit({"event": "unblock", "id": id})
        self._policy.unblock(id)

    def produced(self, tokens: Mapping[Client, int]) -> None:
        """Record and pass on."""
        self._emit({"event": "produced", "tokens": dict(tokens)})
        self._policy.produced(tokens)

    def preempt(self, id: str, *, output: int, keep_hold: bool) -> None:
        """Record and pass on."""
        self._emit({"event": "preempt", "id": id, "output": output, "keep_hold": keep_hold})
        self._policy.preempt(id, output=output, keep_hold=keep_hold)

    def finish(self, id: str, *, output: int) -> None:
        """Record and pass on."""
        self._emit({"event": "finish", "id": id, "output": output})
        self._policy.finish(id, output=output)

    def reweigh(self, client: Client, weight: int) -> None:
        """Record and pass on."""
        self._emit({"event": "reweigh", "client": client, "weight": weight})
        self._policy.reweigh(client, weight)

    def snapshot(self) -> dict[str, Any]:
        """Return the policy's snapshot."""
        return self._policy.snapshot()

    def canonical(self) -> tuple[object, ...]:
        """Return the policy's canonical state."""
        return self._policy.canonical()

    def validate(self) -> None:
        """Validate the policy."""
        self._policy.validate()


@frozen
class Decision:
    """What happened at one admission of a history, and what the replaying policy would have done."""

    taken: str
    """The request that the host admitted."""
    client: Client
    offered: str | None
    """The request that the policy would have offered at that moment."""
    charged: int
    """Service units that the policy charges for it."""

    @property
    def agrees(self) -> bool:
        """Whether the policy would have offered just that request."""
        return self.taken == self.offered


class Replay:
    """Re-executes a history under a policy.

    Args:
        opening_event: the first event of the history.
        policy: the name of the policy to use instead of the recorded one.
        make: the factory that makes it; by default that of the shipping policies.

    Raises:
        SnapshotError: the history does not begin as it should, or with another schema version.
        ConfigError: there is no policy of that name.
    """

    config: PolicyConfig
    index: PrefixIndex
    policy: Policy

    def __init__(self, opening_event: Event, policy: str | None = None, *, make: Make = make_policy) -> None:
        for key, expected in (("event", "open"), ("schema", SCHEMA)):
            if opening_event.get(key) != expected:
                raise SnapshotError(f"history: {key} = {opening_event.get(key)!r}, expected {expected!r}")
        settings = dict(opening_event["config"])
        self.config = PolicyConfig.from_mapping(settings | ({"policy": policy} if policy else {}))
        self.index = PrefixIndex(opening_event["block_size"])
        self.policy = make(self.config, self.index)
        self._receipts: dict[int, Receipt] = {}
        """By the number that the receipt had in the recording."""
        self._steps: Mapping[str, Callable[[Event], Decision | None]] = {
            "arrive": lambda event: self.policy.arrive(load_request(event["request"])),
            "begin_pass": lambda _event: self.policy.begin_pass(),
            "take": self._take,
            "amend": self._amend,
            "refund": lambda event: self.policy.refund(self._receipts.pop(event["serial"])),
            "defer": lambda event: self.policy.defer(event["id"], Refusal(event["why"])),
            "unblock": lambda event: self.policy.unblock(event["id"]),
            "produced": lambda event: self.policy.produced(event["tokens"]),
            "preempt": lambda event: self.policy.preempt(
                event["id"], output=event["output"], keep_hold=event["keep_hold"]
            ),
            "finish": lambda event: self.policy.finish(event["id"], output=event["output"]),
            "reweigh": lambda event: self.policy.reweigh(event["client"], event["weight"]),
            "cached": lambda event: self.index.cached(**_run(event)),
            "evicted": lambda event: self.index.evicted(**_run(event)),
        }

    def step(self, event: Event) -> Decision | None:
        """Re-execute one event; an admission returns what the policy would have done.

        Raises:
            SnapshotError: there is no such event, or it lacks a field.
            HostError: the event is not possible at this point of the history.
        """
        kind = str(event.get("event"))
        step = self._steps.get(kind)
        if step is None:
            raise SnapshotError(f"history: event = {kind!r}, expected one of {', '.join(self._steps)}")
        try:
            return step(event)
        except KeyError as missing:
            raise SnapshotError(f"history: event {kind!r} lacks or does not know {missing}") from None

    def _take(self, event: Event) -> Decision:
        offered = self.policy.peek()
        receipt = self.policy.take(event["id"], extend=event["extend"], reserve=event["reserve"])
        self._receipts[event["serial"]] = receipt
        return Decision(receipt.request, receipt.client, offered.id if offered else None, receipt.charged)

    def _amend(self, event: Event) -> None:
        receipt = self._receipts.pop(event["old_serial"])
        amended = self.policy.amend(receipt, extend=event["extend"], reserve=event["reserve"])
        self._receipts[event["serial"]] = amended


def _run(event: Event) -> dict[str, Any]:
    """Return the arguments that a run of blocks was reported with."""
    return {
        "blocks": load_blocks(event["blocks"]),
        "start": event["start"],
        "namespace": event["namespace"],
    }
