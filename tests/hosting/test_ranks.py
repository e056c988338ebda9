"""The ranks of one server as workers: configuration, choice, settlement, and a policy that fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError
from fairprefix.core.router_config import RouterConfig
from fairprefix.hosting.ranks import RANKS_VARIABLE, RankRouter, blocks_of, rank_config

POLICY = PolicyConfig(weights={"gold": 3}, cost_output=5)


def pick(router: RankRouter, id: str, client: str = "c", prompt: bytes = b"p" * 640) -> int | None:
    """Ask for a rank."""
    return router.pick(id, client, prompt, bytes_per_token=4, max_output=10)


def test_it_is_off_unless_it_is_configured() -> None:
    """No variable, or an empty one: the server chooses."""
    assert rank_config(POLICY, {}) is None
    assert rank_config(POLICY, {RANKS_VARIABLE: " "}) is None


def test_a_name_a_file_or_settings(tmp_path: Path) -> None:
    """All three ways of configuring it; weights and costs are the policy's."""
    file = tmp_path / "ranks.toml"
    file.write_text('router = "rr"\nquantum = 7\n')
    for text, router, quantum in (
        ("preble", "preble", 20_000),
        (str(file), "rr", 7),
        (json.dumps({"quantum": 9, "weights": {}}), "d2lpm", 9),
    ):
        config = rank_config(POLICY, {RANKS_VARIABLE: text})
        assert config
        assert (config.router, config.quantum, config.cost_output) == (router, quantum, 5)
        assert config.weight("gold") == (1 if text.startswith("{") else 3)


@pytest.mark.parametrize(
    "text", ["{", '{"quantum": 0}', '{"router": "best"}', "nowhere.toml", '{"index": "exact"}']
)
def test_a_wrong_configuration_names_the_variable(text: str) -> None:
    """The message says where the setting is."""
    with pytest.raises(ConfigError, match=RANKS_VARIABLE):
        rank_config(POLICY, {RANKS_VARIABLE: text})


def test_a_client_stays_where_its_prefix_is_until_its_quantum_is_spent() -> None:
    """Algorithm 2 between ranks: the other client gets the other rank, and a spent quantum makes one move."""
    router = RankRouter(RouterConfig(quantum=500, output_charge="max"), 2)
    ranks = []
    for number in range(3):
        ranks.append((pick(router, f"a{number}", "a"), pick(router, f"b{number}", "b", b"q" * 640)))
        router.done(f"a{number}")
        router.done(f"b{number}")
    assert ranks == [(0, 1)] * 3
    assert {pick(router, f"m{number}", "a") for number in range(5)} == {0, 1}


def test_asking_again_changes_nothing() -> None:
    """The same request gets the same rank, and is counted once."""
    router = RankRouter(RouterConfig(), 2)
    assert pick(router, "x") == pick(router, "x")
    assert (router.out, router.picked) == (1, [1, 0])


def test_output_is_charged_when_a_request_is_over() -> None:
    """What was reported last counts; what was refused costs nothing; whoever is unknown is skipped."""
    router = RankRouter(RouterConfig(quantum=1000, output_charge="finish"), 1)
    deficit = router._router.deficit  # type: ignore[attr-defined]
    for id in ("a", "b"):
        pick(router, id)
        router.produced(id, 3)
    router.produced("a", 100)
    router.done("a")
    router.refused("b")
    for call in (router.done, router.refused):
        call("nobody")
    router.produced("nobody", 1)
    assert deficit("c", "0") == 1000 - 160 - 2 * 100
    assert router.out == 0


def test_requests_that_the_server_has_forgotten_are_settled() -> None:
    """Nothing leaks when an end is never reported."""
    router = RankRouter(RouterConfig(), 2)
    for number in range(4):
        pick(router, str(number))
    router.gone("2".__eq__)
    assert router.out == 1
    assert sum(worker.load for worker in router._router.workers) == 1


@pytest.mark.parametrize("call", ["pick", "settle", "refund"])
def test_a_policy_that_fails_leaves_the_choice_to_the_server(call: str) -> None:
    """It is told once, and nothing is raised then or later."""
    problems: list[Exception] = []
    router = RankRouter(RouterConfig(), 2, problems.append)

    def broken(*_args: object, **_named: object) -> None:
        raise ZeroDivisionError

    pick(router, "a")
    setattr(router._router, call, broken)
    if call == "pick":
        assert pick(router, "b") is None
    elif call == "settle":
        router.done("a")
    else:
        router.refused("a")
    assert [type(problem) for problem in problems] == [ZeroDivisionError]
    assert pick(router, "c") is None
    router.done("a")
    router.refused("a")
    assert (router.errors, router.out) == (1, 0)


def test_prompts_agree_in_blocks_as_far_as_they_agree() -> None:
    """Hashes are cumulative, of whole blocks, of a namespace, and of the beginning alone where it is very long."""
    one, two = blocks_of(b"abcdefgh", 2), blocks_of(b"abcdXfghi", 2)
    assert [a == b for a, b in zip(one, two, strict=True)] == [True, True, False, False]
    assert not set(one) & set(blocks_of(b"abcdefgh", 2, "salt"))
    assert len(blocks_of(bytes(100_000), 2)) == 4096
