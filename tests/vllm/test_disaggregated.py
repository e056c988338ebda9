"""Prefill/decode disaggregation: prompts are computed by one engine and continued by another; both are fair."""

from __future__ import annotations

import random
from typing import Any

import pytest
import vllm

from fairprefix.adapters.vllm.support import CONNECTORS_FROM, parse_version
from fairprefix.core.errors import ConfigError
from tests.vllm import rig, transfer
from tests.vllm.observed import World

works_here = pytest.mark.skipif(
    (parse_version(vllm.__version__) or CONNECTORS_FROM) < CONNECTORS_FROM,
    reason="refused in this version of vLLM",
)


class Disaggregated(World):
    """One of the two engines; transfers end one by one, one in each step."""

    def __init__(self, role: str, **more: Any) -> None:  # noqa: ANN401 (settings of the rig)
        super().__init__(transfer=transfer.settings(role), **more)
        connector = self.scheduler.connector
        assert isinstance(connector, transfer.Transfers)
        self.connector = connector
        carry_out = self.runner._carry_out

        def carry_out_and_transfer(plan: Any) -> Any:  # noqa: ANN401
            output = carry_out(plan)
            output.kv_connector_output = connector.done()
            return output

        self.runner._carry_out = carry_out_and_transfer  # type: ignore[method-assign]

    def finish(self) -> None:
        """Let the last transfers end as well."""
        self.runner.run()
        while self.connector.sending or self.connector.loading:
            self.runner.step()
        super().finish()

    def send(self, seed: int, longest_output: int) -> None:
        """Let 40 requests of a flooding client arrive, then 8 of a light one."""
        draw = random.Random(seed)  # noqa: S311
        shared = [draw.randrange(3, 1000) for _ in range(64)]
        for client, count in (("flood", 40), ("light", 8)):
            for number in range(count):
                own = [draw.randrange(3, 1000) for _ in range(draw.randint(5, 90))]
                self.add(f"{client}{number}", shared + own, draw.randint(1, longest_output), client)


@works_here
@pytest.mark.parametrize("seed", range(3))
def test_the_decoding_engine_charges_what_it_computes_itself(seed: int) -> None:
    """What came from elsewhere is not charged, each delivered token is, and the light client passes the flood."""
    world = Disaggregated("kv_consumer", seed=seed, seats=4)
    world.send(seed, 12)
    world.finish()
    assert world.charged == world.expected()
    assert world.charged["flood"] < sum(world.prompts.values()) / 2, (
        "prompts were charged that came from elsewhere"
    )
    order = world.runner.admitted
    assert max(order.index(f"light{n}") for n in range(8)) < order.index("flood39")


@works_here
def test_the_prefilling_engine_charges_prompts() -> None:
    """Blocks that wait to be fetched outlive their request, and nothing of it is left in the policy."""
    world = Disaggregated("kv_producer", seats=4)
    world.send(1, 1)
    world.finish()
    assert world.charged == world.expected()
    assert world.charged["light"] > 0


@works_here
def test_a_request_that_is_aborted_while_it_is_loaded_leaves_nothing_behind() -> None:
    """The policy forgets it at once; its blocks are free when the transfer is over."""
    world = Disaggregated("kv_consumer", seats=4)
    world.send(2, 5)
    world.runner.step()
    loading = list(world.connector.loading)
    assert loading
    for id in loading:  # they were admitted: what they would have computed themselves stays charged
        world.runner.first_cached[id] = (world.prompts[id] - 1) // rig.BLOCK * rig.BLOCK
    rig.abort(world.scheduler, *loading)
    world.finish()
    assert world.charged["light"] > 0


@pytest.mark.skipif(not works_here.args[0], reason="it works in this version of vLLM")
def test_where_it_cannot_be_told_what_is_loaded_it_is_refused() -> None:
    """Older versions of vLLM do not say how much of a prompt comes from elsewhere."""
    with pytest.raises(ConfigError, match="kv_transfer_config is not valid"):
        Disaggregated("kv_consumer")
