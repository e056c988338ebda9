"""FairScheduler with its policy wrapped: every call is checked, and every charge is added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from fairprefix import CostWeights, HostContract, make_policy
from fairprefix.adapters.vllm import FairScheduler
from fairprefix.core.config import PolicyConfig
from fairprefix.core.cost import Receipt
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import Prefixes
from fairprefix.core.request import Client
from tests.vllm import rig

COST = CostWeights()


class Charged(HostContract):
    """Checks the host's side of the contract, and adds up what each client is charged."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.charged: Counter[Client] = Counter()

    def take(self, id: str, *, extend: int, reserve: int) -> Receipt:
        """Add up the charge of an admission."""
        receipt = super().take(id, extend=extend, reserve=reserve)
        self.charged[receipt.client] += receipt.charged
        return receipt

    def produced(self, tokens: Mapping[Client, int]) -> None:
        """Add up the charge of output."""
        super().produced(tokens)
        self.charged.update({client: COST.output * count for client, count in tokens.items()})


class ObservedScheduler(FairScheduler):
    """FairScheduler whose policy is wrapped."""

    @staticmethod
    def make_policy(config: PolicyConfig, prefixes: Prefixes | None) -> Policy:  # type: ignore[override]
        """Return the configured policy, wrapped."""
        return Charged(make_policy(config, prefixes))


class World:
    """A fair scheduler, who carries out its plans, and whose requests they are."""

    def __init__(self, *, depth: int = 0, seed: int = 0, **settings: Any) -> None:  # noqa: ANN401 (those of the rig)
        config = rig.settings(asynchronous=depth > 0, **{"fairprefix": {"quantum": 200}, **settings})
        self.scheduler = rig.make_scheduler(ObservedScheduler, config)
        self.host = self.scheduler.fairprefix
        self.runner = rig.Runner(self.scheduler, depth=depth, seed=seed)
        self.prompts: dict[str, int] = {}
        self.clients: dict[str, str] = {}
        self.blocks = self.free_blocks()

    @property
    def charged(self) -> Counter[Client]:
        """Service units that the policy took from each client."""
        policy = self.host.policy._policy
        assert isinstance(policy, Charged)
        return Counter({client: units for client, units in policy.charged.items() if units})

    def add(self, id: str, prompt: list[int], longest_output: int, client: str, **more: object) -> Any:  # noqa: ANN401
        """Send a request."""
        request = rig.make_request(id, prompt, longest_output, client, **more)
        self.prompts[id], self.clients[id] = len(prompt), client
        self.scheduler.add_request(request)
        return request

    def free_blocks(self) -> int:
        """Return the KV blocks that nobody holds."""
        return int(self.scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    def expected(self) -> Counter[Client]:
        """Return prompt - cached at first admission + weight x delivered, from what vLLM said and delivered."""
        units: Counter[Client] = Counter()
        for id, client in self.clients.items():
            if id in self.runner.first_cached:
                units[client] += COST.extend * (self.prompts[id] - self.runner.first_cached[id])
            units[client] += COST.output * self.runner.delivered.get(id, 0)
        return Counter({client: count for client, count in units.items() if count})

    def check_index(self) -> None:
        """The index must agree with vLLM's own search for every request that waits."""
        view, ask = self.host.view, self.scheduler.kv_cache_manager.coordinator.find_longest_cache_hit
        view.matches.validate()
        for tracked in self.host.translator._tracked.values():
            if tracked.request.id in view.matches:
                waiting = tracked.engine_request
                cached = ask(waiting.block_hashes, waiting.num_tokens - 1)[1]
                assert view.confirm(tracked.request.id) == cached, tracked.request.id

    def step(self) -> None:
        """One step, and a look at the index."""
        self.runner.step()
        self.check_index()

    def finish(self) -> None:
        """Run until nothing is left, and check that nothing is left behind."""
        self.runner.run()
        self.scheduler.schedule()
        assert self.host.policy.errors == 0, "the policy failed"
        assert self.host.shield.errors == 0, "the adapter failed"
        self.host.policy._policy.close()
        assert len(self.host.translator) == self.host.policy.live == len(self.host.queue) == 0
        assert self.host.translator.admitted_requests == 0
        assert not self.scheduler.requests
        assert self.free_blocks() == self.blocks
        assert self.host.queue.stalls == 0
        assert self.host.view.corrections == 0
        assert self.charged == self.expected()
