"""Our component between Dynamo's frontend and three mock workers, against Dynamo's own KV router."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.dynamo.rig import Answer, Deployment, Stream, deployed, hit_rate, load, output_rate, p50

STREAMS = (
    Stream("heavy", 60, 12, 500, 20, 64),
    Stream("light-1", 3, 2, 500, 20, 16),
    Stream("light-2", 3, 2, 500, 20, 16),
)
LIGHT = ("light-1", "light-2")
SECONDS = 15


def measured(folder: Path, *, ours: bool) -> tuple[list[Answer], Deployment]:
    """Load a deployment; return the answers."""
    with deployed(folder, ours=ours) as found:
        answers = asyncio.run(load(found, STREAMS, SECONDS))
        time.sleep(1)  # the last report
        return answers, found


def test_light_clients_wait_less_than_with_the_native_router(tmp_path: Path) -> None:
    """The worse-off light client's p50 is 1.2 times lower, the other's 2.5 times; throughput and cache hold."""
    native, _ = measured(tmp_path / "native", ours=False)
    ours, found = measured(tmp_path / "ours", ours=True)
    assert {one.status for one in (*native, *ours)} == {200}, [one.problem for one in (*native, *ours)]
    ratios = sorted(p50(native, client) / p50(ours, client) for client in LIGHT)
    throughput = output_rate(ours) / output_rate(native)
    rates = hit_rate(native), hit_rate(ours)
    status = found.status()
    print(f"p50 ratios {ratios}, throughput {throughput:.3f}, hit rates {rates}", {**status, "assumptions": ...})
    print({c: (p50(native, c), p50(ours, c)) for c in ("heavy", *LIGHT)})
    assert ratios[0] >= 1.2
    assert ratios[1] >= 2.5
    # By the clock, beside the clients on the same two cores: 0.93 to 1.00 were seen.
    assert throughput >= 0.85
    assert rates[1] >= rates[0] - 0.03
    # Every request was charged what it really cost, and the gap that was seen stays below the stated bound.
    charged = sum(status["service"].values())
    true = sum(one.input_tokens - one.cached_tokens + 2 * one.output_tokens for one in ours)
    assert abs(charged - true) <= 0.05 * true + 1000
    assert 0 < status["largest_gap"] < status["bound"]


def test_a_killed_worker_costs_no_request_that_had_not_begun(tmp_path: Path) -> None:
    """After a SIGKILL of one worker of three under load, only requests with a first token may fail."""
    streams = (Stream("a", 20, 6, 300, 20, 24), Stream("b", 8, 3, 300, 20, 24))

    async def ask(found: Deployment) -> list[Answer]:
        loading = asyncio.create_task(load(found, streams, 14))
        await asyncio.sleep(4)
        found.workers[0].kill()
        return await loading

    with deployed(tmp_path / "killed", ours=True) as found:
        answers = asyncio.run(ask(found))
        time.sleep(1)  # the last report
        status = found.status()
    lost = [one for one in answers if one.status != 200]
    print(len(answers), len(lost), {one.problem for one in lost}, {**status, "assumptions": ...})
    assert len(lost) == status["failed_requests"]
    assert status["retried"] > 0
    assert status["waiting"] == 0
    assert not any(status["in_flight"].values())
    # Afterwards two workers do the work, and nothing fails any more.
    assert {one.status for one in answers[-60:]} == {200}
    assert status["workers"] == 2
