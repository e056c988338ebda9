"""Claims about composed clients: whole sessions, given shares, the same every time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from attrs import evolve

from fairprefix.core.errors import ConfigError
from fairprefix.sim.trace import (
    Trace,
    TraceRequest,
    compose_clients,
    load_trace,
)
from tests.sim.trace_texts import plain_trace

SharedTrace = Callable[[str], Path]


def sessions_trace() -> Trace:
    """Return 3000 requests of 1000 sessions, one to five each, that share their first block."""
    requests = [
        TraceRequest(1000 * turn + session, "a", 48, 1, blocks=(0, 1 + session, 10_000 + 10 * session + turn))
        for session in range(1000)
        for turn in range(1 + session % 5)
    ]
    return Trace("sessions", requests, 16, has_clients=False)


class TestComposition:
    """Composed clients keep sessions whole, meet their shares, and are a function of the seed."""

    @pytest.mark.parametrize("clients", [2, 5, 20])
    def test_the_heavy_client_sends_half_and_the_others_share_the_rest_evenly(self, clients: int) -> None:
        """Within one percent of all requests."""
        trace = compose_clients(sessions_trace(), clients, seed=0)
        sent = Counter(request.client for request in trace.requests)
        assert sent["c0"] / 3000 == pytest.approx(0.5, abs=0.01)
        for number in range(1, clients):
            assert sent[f"c{number}"] / 3000 == pytest.approx(0.5 / (clients - 1), abs=0.01)

    def test_sessions_stay_whole(self) -> None:
        """A conversation has one owner, whatever its length."""
        owners: dict[int, set[str]] = {}
        for request in compose_clients(sessions_trace(), 7, seed=3).requests:
            owners.setdefault(request.blocks[1], set()).add(request.client)
        assert all(len(clients) == 1 for clients in owners.values())

    def test_requests_change_in_nothing_but_the_client(self) -> None:
        """Arrivals, lengths and blocks are the recorded ones."""
        before, after = sessions_trace(), compose_clients(sessions_trace(), 3, seed=0)
        assert [evolve(request, client="a") for request in after.requests] == list(before.requests)
        assert after.has_clients

    def test_a_note_states_method_and_seed(self) -> None:
        """Whoever sees the result sees that its clients are composed."""
        (note,) = compose_clients(sessions_trace(), 4, seed=17).notes
        for part in ("composed, not recorded", "1000 sessions", "4 clients", "seed 17", "of 3000 requests"):
            assert part in note

    def test_another_seed_gives_another_assignment(self) -> None:
        """And the same seed the same one."""
        first, again, other = (compose_clients(sessions_trace(), 4, seed=seed).requests for seed in (0, 0, 1))
        assert first == again
        assert first != other

    def test_no_heavy_share_means_equal_shares(self) -> None:
        """None has nobody send more than others."""
        sent = Counter(request.client for request in compose_clients(sessions_trace(), 4, 0, None).requests)
        assert all(count / 3000 == pytest.approx(0.25, abs=0.01) for count in sent.values())

    def test_one_client_sends_everything(self) -> None:
        """There is nobody to share with."""
        assert {request.client for request in compose_clients(sessions_trace(), 1, 0).requests} == {"c0"}

    def test_requests_without_blocks_are_sessions_of_their_own(self) -> None:
        """So any share can be met exactly."""
        trace = compose_clients(plain_trace(list(range(100))), 2, 0, Fraction(3, 4))
        assert sum(request.client == "c0" for request in trace.requests) == 75

    def test_the_assignment_does_not_depend_on_the_process(self) -> None:
        """Two interpreters with different hash seeds agree."""
        script = (
            "from fairprefix.sim.trace import compose_clients, generate_sample; from attrs import evolve;"
            "trace = compose_clients(evolve(generate_sample(), has_clients=False), 5, 1);"
            "print(''.join(request.client for request in trace.requests))"
        )
        outputs = [
            subprocess.run(  # noqa: S603  # our own interpreter, our own script
                [sys.executable, "-c", script],
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed in ("1", "2")
        ]
        assert outputs[0] == outputs[1]
        assert len(outputs[0]) > 1000

    def test_mooncake_composes_within_one_percent(self, shared_trace: SharedTrace) -> None:
        """Real sessions are small enough for the shares to be met."""
        trace = load_trace(shared_trace("mooncake_conversation_trace.jsonl.gz"))
        sent = Counter(request.client for request in compose_clients(trace, 10, seed=0).requests)
        assert sent["c0"] / 12_031 == pytest.approx(0.5, abs=0.01)
        assert len(sent) == 10

    @pytest.mark.parametrize(
        ("clients", "seed", "share", "message"),
        [
            (0, 0, None, "clients = 0 is not valid: expected an integer >= 1"),
            (2, -1, None, "seed = -1 is not valid: expected an integer >= 0"),
            (2, 0, Fraction(1), "heavy_share = .* is not valid: expected a fraction between 0 and 1"),
            (2, 0, Fraction(0), "heavy_share = .* is not valid: expected a fraction between 0 and 1"),
        ],
    )
    def test_arguments_are_checked(self, clients: int, seed: int, share: Fraction | None, message: str) -> None:
        """Each message names the argument and its range."""
        with pytest.raises(ConfigError, match=message):
            compose_clients(plain_trace([1]), clients, seed, share)

    def test_recorded_clients_are_never_replaced(self) -> None:
        """Composing would hide who really asked."""
        with pytest.raises(ConfigError, match=r"'plain' has clients already"):
            compose_clients(plain_trace([1], has_clients=True), 2, 0)
