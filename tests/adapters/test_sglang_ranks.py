"""Which rank a request gets in SGLang: chosen where it is tokenised, settled when its last token comes."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any

import pytest

from fairprefix.adapters.sglang import ranks
from fairprefix.adapters.sglang.ranks import RankHooks
from fairprefix.core.router_config import RouterConfig
from fairprefix.hosting.ranks import RankRouter

PROMPT = list(range(160))


def request(id: str, client: str | None, prompt: Any = PROMPT, **more: Any) -> SimpleNamespace:
    """Return a tokenised request."""
    fields = {"rid": id, "routing_key": client, "input_ids": prompt, "routed_dp_rank": None}
    return SimpleNamespace(**fields, sampling_params=SimpleNamespace(max_new_tokens=8), **more)


class Server:
    """Two ranks behind one process that tokenises."""

    def __init__(self, dp_size: int = 2, quantum: int = 500) -> None:
        self.hooks = RankHooks(RouterConfig(quantum=quantum, output_charge="max"))
        self.manager = SimpleNamespace(server_args=SimpleNamespace(dp_size=dp_size), rid_to_state={})

    def send(self, id: str, client: str | None, prompt: Any = PROMPT, **more: Any) -> int | None:
        """Send one request; return the rank that it names."""
        one = request(id, client, prompt, **more)
        self.manager.rid_to_state[id] = one
        self.hooks.sending(self.manager, one)
        rank: int | None = one.routed_dp_rank
        return rank

    def receive(self, id: str, tokens: int, reason: object) -> None:
        """Let output come."""
        output = SimpleNamespace(rids=[id], completion_tokens=[tokens], finished_reasons=[reason])
        self.hooks.received(self.manager, output)
        if reason is not None:
            del self.manager.rid_to_state[id]

    @property
    def router(self) -> RankRouter:
        """What chooses."""
        assert self.hooks._router is not None
        return self.hooks._router


def test_a_client_stays_at_one_rank_until_its_quantum_is_spent() -> None:
    """Two clients get two ranks; whoever has spent a quantum moves."""
    server = Server()
    for number in range(2):
        assert server.send(f"a{number}", "a") == 0
        assert server.send(f"b{number}", "b", array("q", PROMPT[::-1])) == 1
        for client in "ab":
            server.receive(f"{client}{number}", 8, {"type": "length"})
    assert server.router.out == 0
    assert {server.send(f"m{number}", "a") for number in range(5)} == {0, 1}


def test_output_that_comes_in_parts_is_charged_once() -> None:
    """The last count is what counts."""
    server = Server(quantum=1000)
    server.send("a", "a")
    for tokens, reason in ((1, None), (4, None), (5, {"type": "stop"})):
        server.receive("a", tokens, reason)
    assert server.router._router.deficit("a", "0") == 1000 - 160 - 2 * 5  # type: ignore[attr-defined]


def test_requests_that_end_in_silence_are_settled() -> None:
    """What was aborted while it waited is found to be gone, at the latest some dozens of requests later."""
    server = Server(quantum=1_000_000)
    server.send("lost", "a")
    server.manager.rid_to_state.clear()
    for number in range(70):
        server.send(str(number), "a")
        server.receive(str(number), 1, {"type": "stop"})
    assert server.router.out == 0


def test_a_batch_is_chosen_for_one_by_one() -> None:
    """Each of its requests names a rank."""
    server = Server()
    batch = [request("a", "a"), request("b", "b", PROMPT[::-1])]
    server.hooks.sending_batch(server.manager, batch)
    assert [one.routed_dp_rank for one in batch] == [0, 1]


@pytest.mark.parametrize(
    ("one", "rank"),
    [
        (request("x", "a", None), None),
        (SimpleNamespace(rid="x", input_ids=PROMPT), None),
        (SimpleNamespace(**{**vars(request("x", "a")), "routed_dp_rank": 1}), 1),
    ],
)
def test_what_cannot_or_need_not_be_chosen_is_left_alone(one: SimpleNamespace, rank: int | None) -> None:
    """No tokens, no field, or a rank already."""
    server = Server()
    server.hooks.sending(server.manager, one)
    assert getattr(one, "routed_dp_rank", None) == rank


def test_one_rank_needs_no_choice() -> None:
    """Without data parallelism nothing is set, and what is received is ignored."""
    server = Server(dp_size=1)
    assert server.send("a", "a") is None
    server.receive("a", 1, {"type": "stop"})


def test_a_fault_leaves_the_choice_to_sglang(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, and the request goes on without a rank."""
    server = Server()
    assert server.send("a", "a", "no tokens") is None
    assert server.send("b", "a") is None
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "fairprefix failed, SGLang chooses ranks itself"
    ]


@pytest.mark.parametrize(("fields", "refused"), [(("rid",), True), (("rid", "routed_dp_rank"), False)])
def test_an_sglang_without_the_field_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    fields: tuple[str, ...],
    refused: bool,  # noqa: FBT001
) -> None:
    """Before 0.5.22 a request cannot name its rank: one line says so and ends the process."""
    module = SimpleNamespace(TokenizedGenerateReqInput=SimpleNamespace(__struct_fields__=fields))
    monkeypatch.setattr(ranks, "import_module", lambda _name: module)
    if not refused:
        ranks.check_rank_field()
        return
    with pytest.raises(SystemExit, match=r"0\.5\.22"):
        ranks.check_rank_field()
