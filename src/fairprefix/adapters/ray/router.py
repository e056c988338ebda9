"""The request router that Serve is told of by name, `fairprefix.adapters.ray.router:D2LPMRouter`.

Alone in its module: Serve pickles it by value, so that everything in here exists once per process and is not what
others import. Whatever has state or identity lives elsewhere.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

from ray.serve.request_router import PendingRequest, ReplicaID, ReplicaResult, RequestRouter, RunningReplica

from fairprefix.adapters.ray.key import key_in
from fairprefix.adapters.ray.link import LedgerHandle, LedgerLink
from fairprefix.adapters.ray.lookup import find_ledger
from fairprefix.hosting.identity import Identity


class D2LPMRouter(RequestRouter):  # type: ignore[misc]  # Ray is not typed here
    """Asks the deployment's ledger where a request goes; decides by itself while there is none.

    Calls without a `RouteKey` go to the replica that has the least to do, and count for nobody.
    """

    def initialize_state(
        self,
        *,
        ledger: str = "fairprefix",
        timeout_s: float = 1.0,
        sync_period_s: float = 2.0,
        identity: Sequence[str] = (),
        block_size: int = 16,
        **unknown: object,
    ) -> None:
        """Take in `request_router_kwargs`.

        Args:
            ledger: name of the deployment actor.
            timeout_s: how long an answer of the ledger is waited for.
            sync_period_s: how often a checkpoint is fetched.
            identity: where requests without a `RouteKey`, those of `ray.serve.llm`, say whose they are.
            block_size: tokens per block of their keys.
            unknown: a mistake.
        """
        if unknown:
            raise ValueError(f"unknown request_router_kwargs {sorted(unknown)}: expected ledger, timeout_s, "
                             "sync_period_s, identity, block_size")  # fmt: skip
        self._ledger_name = ledger
        self._identity = Identity(identity) if identity else None
        self._block_size = block_size
        self._link = LedgerLink(uuid.uuid4().hex, self._find, timeout_s=timeout_s, sync_s=sync_period_s)
        self._by_name: dict[str, ReplicaID] = {}
        self._refused: dict[str, set[str]] = {}
        """Replicas that have rejected a request, until it is accepted somewhere."""
        self._rounds: dict[str, int] = {}
        """How often a request has been rejected by everybody."""
        self._accepted: set[str] = set()

    async def _find(self) -> LedgerHandle:
        app, deployment = self._deployment_id.app_name, self._deployment_id.name
        return await asyncio.to_thread(find_ledger, app, deployment, self._ledger_name)

    # Membership.

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Take in the full set of replicas."""
        super().update_replicas(replicas)
        self._by_name = {replica_id.unique_id: replica_id for replica_id in self._replicas}
        self._link.members(self._by_name)

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Forget a replica that is dead; its requests are refunded."""
        super().on_replica_actor_died(replica_id)
        if self._by_name.pop(replica_id.unique_id, None) is not None:
            self._link.died(replica_id.unique_id)

    # Requests.

    async def _choose_replica_for_request(
        self, pending_request: PendingRequest, *, is_retry: bool = False
    ) -> RunningReplica:
        """Choose the replica of a request; again after each rejection, then without those that rejected it."""
        self._link.start()
        id = pending_request.metadata.internal_request_id
        if is_retry and id in self._link.sent:
            self._refused.setdefault(id, set()).add(self._link.sent[id][1])
        given = [*pending_request.args, *pending_request.kwargs.values()]
        key = key_in(given, self._identity, block_size=self._block_size)
        try:
            while True:
                while not self._replicas:
                    self._replicas_updated_event.clear()
                    await self._replicas_updated_event.wait()
                avoid = self._refused.get(id, set())
                name = await self._link.pick(id, key, avoid) if key else self._least_busy(avoid)
                replica = self._replicas.get(self._by_name[name]) if name in self._by_name else None
                if replica is not None:
                    return replica
                # Everybody has rejected it, or the ledger knows of a replica before this router does.
                self._refused.pop(id, None)
                self._link.given_up(id)
                self._rounds[id] = self._rounds.get(id, -1) + 1
                await self._backoff(self._rounds[id])
        except asyncio.CancelledError:
            self._refused.pop(id, None)
            self._rounds.pop(id, None)
            self._link.given_up(id)
            raise

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Rank replicas by the requests that this router has sent there; Serve's own way to ask, not used here."""
        del pending_request
        loads = self._busy()
        return [[one] for one in sorted(candidate_replicas, key=lambda r: loads.get(r.replica_id.unique_id, 0))]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: ReplicaResult
    ) -> None:
        """Note that a replica has accepted a request."""
        del replica_id, result
        id = pending_request.metadata.internal_request_id
        self._refused.pop(id, None)
        self._rounds.pop(id, None)
        if id in self._link.sent:
            self._accepted.add(id)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Note that a request is over at a replica: done, failed, cancelled, or rejected."""
        accepted = internal_request_id in self._accepted
        out = self._link.sent.get(internal_request_id)
        if out is None or out[1] != replica_id.unique_id:
            return
        self._accepted.discard(internal_request_id)
        if not accepted and internal_request_id in self._refused:
            return  # the next choice takes it back
        self._link.ended(internal_request_id, replica_id.unique_id, accepted=accepted)

    def _busy(self) -> dict[str, int]:
        loads = dict.fromkeys(self._by_name, 0)
        for _, worker in self._link.sent.values():
            if worker in loads:
                loads[worker] += 1
        for replica_id in self._replicas:
            queued = self._replica_queue_len_cache.get(replica_id)
            if queued is not None:
                loads[replica_id.unique_id] = max(loads.get(replica_id.unique_id, 0), queued)
        return loads

    def _least_busy(self, avoid: set[str]) -> str | None:
        loads = {name: load for name, load in self._busy().items() if name not in avoid}
        return min(loads, key=lambda name: (loads[name], name), default=None)
