"""Our component between Dynamo's frontend and three mock workers, against Dynamo's own KV router."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import median

from tests.closed_loop import Answer, Stream, hit_rate, output_rate, p50
from tests.dynamo.rig import Deployment, deployed, load

STREAMS = (
    Stream("heavy", 60, 12, 500, 20, 64),
    Stream("light-1", 3, 2, 500, 20, 16),
    Stream("light-2", 3, 2, 500, 20, 16),
)
LIGHT = ("light-1", "light-2")
RUNS, SECONDS = 5, 9
WARM_S = 2.0


def measured(native: Deployment, ours: Deployment) -> tuple[list[Answer], list[Answer], list[float]]:
    """Load both in turns, so that whatever else this machine does meets both; return answers and rates' ratios."""
    answers: dict[bool, list[Answer]] = {False: [], True: []}
    ratios = []
    for number in range(RUNS):
        rates = {}
        for found in (native, ours) if number % 2 else (ours, native):
            part = asyncio.run(load(found, STREAMS, SECONDS))
            rates[found.ours] = output_rate(part, warm_s=WARM_S)
            answers[found.ours] += part
        ratios.append(rates[True] / rates[False])
    return answers[False], answers[True], ratios


def test_light_clients_wait_less_than_with_the_native_router(tmp_path: Path) -> None:
    """The worse-off light client's p50 is 1.2 times lower, the other's 2.5 times; throughput and cache hold."""
    with deployed(tmp_path / "native", ours=False) as other, deployed(tmp_path / "ours", ours=True) as found:
        native, ours, throughputs = measured(other, found)
        time.sleep(1)  # the last report
        status = found.status()
    assert not [one.problem for one in (*native, *ours) if one.problem]
    ratios = sorted(p50(native, client) / p50(ours, client) for client in LIGHT)
    rates = hit_rate(native), hit_rate(ours)
    print(f"requests {len(ours)} of {len(native)}; all in service units", status["service"])
    print(f"p50 ratios {ratios}, throughput {median(throughputs):.3f} of {throughputs}, hit rates {rates}")
    print({c: (p50(native, c), p50(ours, c)) for c in ("heavy", *LIGHT)}, {**status, "assumptions": ...})
    assert ratios[0] >= 1.2
    assert ratios[1] >= 2.5
    assert median(throughputs) >= 0.97
    assert len(ours) >= 0.97 * len(native)
    assert rates[1] >= rates[0] - 0.03
    # Every request was charged what it really cost, and the gap that was seen stays below the stated bound.
    charged = sum(status["service"].values())
    true = sum(one.input_tokens - one.cached_tokens + 2 * one.output_tokens for one in ours)
    assert abs(charged - true) <= 0.05 * true + 1000
    assert 0 < status["largest_gap"] < status["bound"]
    assert status["bound"] > status["bound_without_staleness"]


def test_a_killed_worker_costs_no_request_that_had_not_begun(tmp_path: Path) -> None:
    """After a SIGKILL of one worker of three under load, every request that fails had had a token before."""
    streams = (Stream("a", 20, 6, 300, 20, 24), Stream("b", 8, 3, 300, 20, 24))

    async def ask(found: Deployment) -> list[Answer]:
        loading = asyncio.create_task(load(found, streams, 14, streamed=True))
        await asyncio.sleep(4)
        found.workers[0].kill()
        return await loading

    with deployed(tmp_path / "killed", ours=True) as found:
        answers = asyncio.run(ask(found))
        time.sleep(1)  # the last report
        status = found.status()
    lost = [one for one in answers if one.problem]
    print(len(answers), len(lost), {one.problem for one in lost}, {**status, "assumptions": ...})
    # As the clients saw it, and as the component counts it.
    assert all(one.output_tokens for one in lost)
    assert len(lost) == status["failed_requests"]
    assert status["retried"] > 0
    assert status["waiting"] == 0
    assert not any(status["in_flight"].values())
    # Afterwards two workers do the work, and nothing fails any more.
    assert not any(one.problem for one in answers[-60:])
    assert status["workers"] == 2
